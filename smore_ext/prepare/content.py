"""What items are described by: texts put together from columns, and vectors that others made.

Items are those of the database's table `items`, raw ids and numbers, which `rules.select` leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import listed
from smore_ext.prepare.database import Database, quoted
from smore_ext.prepare.ids import spelled, spelled_sql
from smore_ext.prepare.sources import ITEM, TEXTS, Source, open_source

_ROWS = 512  # rows that are Python's objects at once
IMAGES = {  # endings of images, and their media types
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif",
    ".bmp": "image/bmp",
}  # fmt: skip
LONGEST = 4000  # characters of a text: encoders read less


class Texts(NamedTuple):
    """A text an item by number, "" where there is none, and the columns that it is made of."""

    texts: list[str]
    columns: list[str]


def texts_of(
    database: Database,
    source: Source,
    item_ids: Sequence[str],
    chosen: Sequence[str] = (),
    item_column: str | None = None,
) -> Texts:
    """The texts of items from their table: columns one after the other, lists spelled with commas.

    Raises `DatasetError`: no column of items or texts, an item twice with different texts.
    """
    item = source.column(_item_names(item_column), None, "items")
    if item is None:
        raise DatasetError(
            f"{source.path}: expected a column of items ({', '.join(ITEM)}), got {', '.join(source.columns)}"
        )
    columns = [str(source.column((), name, "texts")) for name in chosen]
    if not chosen:
        found = (source.column(names, None, "texts") for names in TEXTS)
        columns = [name for name in found if name is not None]
    if not columns:
        raise DatasetError(
            f"{source.path}: expected a column of texts ({', '.join(names[0] for names in TEXTS)}, or those that "
            f"--text-columns names), got {', '.join(source.columns)}"
        )
    picked = ", ".join(f"CAST(described.{quoted(name)} AS VARCHAR)" for name in columns)
    texts: list[str | None] = [None] * len(item_ids)
    for block in database.blocks(
        f"SELECT items.number, {picked} FROM {source.relation} AS described "
        f"JOIN items ON items.raw = {spelled_sql(f'described.{quoted(item)}')}",
        _ROWS,
        source.path,
    ):
        for number, *parts in block:
            whole = ". ".join(filter(None, (_text(part) for part in parts)))
            text = " ".join(whole.split())[:LONGEST]
            if texts[number] not in (None, text):
                raise DatasetError(f"{source.path}: expected each item once, got {item_ids[number]!r} with other texts")
            texts[number] = text
    return Texts([text or "" for text in texts], columns)


def _text(value: str | None) -> str:
    """A column's text; of a list in JSON, or of lists in it, the texts with commas between."""
    text = (value or "").strip()
    if not text.startswith("["):
        return text
    try:
        return ", ".join(_flat(json.loads(text)))
    except (ValueError, RecursionError):
        return text  # a text that begins with a bracket


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for part in value:
            yield from _flat(part)
    elif value is not None and str(value).strip():
        yield str(value).strip()


def vectors_of(
    database: Database,
    path: Path,
    temporary: Path,
    item_ids: Sequence[str],
    item_column: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Features [I, D] float32 of items, zero where there are none, and which those are, [I] bool."""
    if path.is_dir():
        ids, table = _folder(path, item_ids)
    elif path.suffix == ".npy":
        ids, table = _npy(path)
    else:
        ids, table = _table(database, path, temporary, item_ids, item_column)
    return aligned(path, ids, table, item_ids)


def images_of(folder: Path, item_ids: Sequence[str]) -> dict[str, Path]:
    """The image of each item that has one. Raises `DatasetError` for no folder, none, or two of one item."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a folder of images that are named by item")
    wanted, out = set(item_ids), dict[str, Path]()
    for path in sorted(folder.iterdir()):
        item = spelled(path.stem)
        if path.suffix.lower() not in IMAGES or item not in wanted:
            continue
        if item in out:
            raise DatasetError(f"{path}: expected one image an item, got {out[item].name} too")
        out[item] = path
    if not out:
        forms = ", ".join(IMAGES)
        raise DatasetError(
            f"{folder}: expected images ({forms}) of some of the {len(item_ids):,} items, got none of theirs"
        )
    return out


def aligned(
    path: Path, ids: Sequence[str], table: np.ndarray, item_ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a table [n, D] of items `ids` for all items: [I, D] float32, and which have none, [I] bool."""
    place = {raw: row for row, raw in enumerate(ids)}
    if len(place) < len(ids):
        twice = next(raw for row, raw in enumerate(ids) if place[raw] != row)
        raise DatasetError(f"{path}: expected each item once, got {twice!r} twice")
    rows = np.array([place.get(raw, -1) for raw in item_ids])
    absent = rows < 0
    out = np.zeros((len(item_ids), table.shape[1]), dtype=np.float32)
    out[~absent] = table[rows[~absent]]
    if not np.isfinite(out).all():
        row = int(np.argwhere(~np.isfinite(out).all(axis=1))[0, 0])
        raise DatasetError(f"{path}: expected finite numbers, got NaN or infinity for item {item_ids[row]!r}")
    return out, absent


def _npy(path: Path) -> tuple[list[str], np.ndarray]:
    names = path.with_suffix(".txt")
    if not names.is_file():
        raise DatasetError(f"{path}: expected the items of its rows, one id a line, in {names}, got nothing there")
    try:
        table = np.load(path, allow_pickle=False, mmap_mode="r")
        ids = [spelled(line) for line in names.read_text(encoding="utf-8").splitlines()]
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    if table.ndim != 2 or len(table) != len(ids) or table.dtype.kind not in "fiu":
        raise DatasetError(
            f"{path}: expected numbers of shape ({len(ids)}, width), a row a line of {names.name}, got {table.dtype} "
            f"of shape {table.shape}"
        )
    return ids, table


def _folder(path: Path, item_ids: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """A file an item, `<id>.npy` with one vector, as Ducho writes them; those of other items are not read."""
    wanted = set(item_ids)
    files = sorted(file for file in path.glob("*.npy") if spelled(file.stem) in wanted)
    if not files:
        raise DatasetError(
            f"{path}: expected files <item>.npy of some of the {len(item_ids):,} items, got none of theirs"
        )
    rows: list[np.ndarray] = []
    for file in files:
        try:
            row = np.load(file, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise DatasetError(f"{file}: cannot be read: {error}") from None
        if row.dtype.kind not in "fiu" or row.size != max(row.shape, default=0) or not row.size:
            raise DatasetError(f"{file}: expected one vector of numbers, got {row.dtype} of shape {row.shape}")
        if rows and row.size != rows[0].size:
            raise DatasetError(f"{file}: expected {rows[0].size} numbers as in {files[0].name}, got {row.size}")
        rows.append(row.reshape(-1).astype(np.float32))
    return [spelled(file.stem) for file in files], np.stack(rows)


def _table(
    database: Database,
    path: Path,
    temporary: Path,
    item_ids: Sequence[str],
    item_column: str | None,
) -> tuple[list[str], np.ndarray]:
    source = open_source(database, path, temporary)
    item = source.column(_item_names(item_column, "id"), None, "items")
    if item is None:
        raise DatasetError(f"{path}: expected a column of items ({', '.join(ITEM)}, id), got {listed(source.columns)}")
    numbers = [name for name in source.columns if name != item]
    kind = "FLOAT[]" if len(numbers) == 1 else "FLOAT"
    picked = ", ".join(f"CAST({quoted(name)} AS {kind})" for name in numbers)
    there = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in numbers)
    ids: list[str] = []
    parts: list[np.ndarray] = []
    for block in database.blocks(
        f"SELECT {spelled_sql(quoted(item))}, {picked} FROM {source.relation} "
        f"WHERE {spelled_sql(quoted(item))} IN (SELECT raw FROM items) AND {there}",
        _ROWS,
        path,
    ):
        values = [row[1] if len(numbers) == 1 else row[1:] for row in block]
        widths = {len(value) for value in values} | {part.shape[1] for part in parts[:1]}
        if len(widths) > 1 or widths == {0}:
            raise DatasetError(f"{path}: expected vectors of one width, got {listed(sorted(map(str, widths)))}")
        ids += [row[0] for row in block]
        parts.append(np.array(values, dtype=np.float32))
    if not ids:
        raise DatasetError(f"{path}: expected features of some of the {len(item_ids):,} items, got none of theirs")
    return ids, np.concatenate(parts)


def _item_names(chosen: str | None, *more: str) -> tuple[str, ...]:
    """Names of a column of items, the one of the interactions first."""
    return (*((chosen,) if chosen else ()), *ITEM, *more)
