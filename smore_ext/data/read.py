"""Reads a dataset folder as MMRec's users have it (docs/spec.md, section 4) into a :class:`Dataset`.

    folder/
      <name>.inter          tab-separated: user, item, split label (0 train, 1 validation, 2 test); or inter.csv
      <modality>_feat.npy   [I, D_m], float32 or other numbers
      <modality>_graph.npz  row, col, weight, shape: a ready-made, already normalised item graph (optional)

and in the other ways that `ReadOptions` names. Nothing here unpickles.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smore_ext.data import files
from smore_ext.data.arrays import read_features, read_graph
from smore_ext.data.dataset import SPLITS, Dataset, DatasetError, SplitOverlapError
from smore_ext.data.ids import UnmappedId, first_seen, numbered, read_map
from smore_ext.data.messages import listed, shown
from smore_ext.data.options import ReadOptions
from smore_ext.data.splits import describe, earliest, split_labels
from smore_ext.data.table import ITEM, LABEL, TIME, USER, Table
from smore_ext.data.table_cache import cached_table
from smore_ext.registry import did_you_mean

logger = logging.getLogger(__name__)

# A table whose largest id is far beyond its number of distinct ids holds raw ids (hashes, ASINs): tables of
# that many rows would be allocated. The constant leaves room for a small extract of a large data set.
MAX_IDS_PER_DISTINCT, MAX_IDS_ALWAYS = 1000, 10_000_000


def load_dataset(
    folder: str | os.PathLike[str], name: str | None = None, options: ReadOptions | None = None
) -> Dataset:
    """Reads and validates a dataset folder.

    With `name` the interaction table is `<name>.inter`, or `inter.csv` in a folder without any `.inter`, and
    the data set has that name. Without, the table is `<folder's name>.inter`, else the only `*.inter`, else `inter.csv`
    (comma-separated); each may be packed (`.inter.gz`), or three files of one split each (`<name>.train.inter`,
    `.valid.inter`, `.test.inter`). Its header names the columns, typed or not (`userID`, `user_id:token`, `itemID`,
    `x_label`, `x_label:float`); further columns such as rating and timestamp are ignored; line ends may be
    Unix's or Windows's. `n_users` and `n_items` are the largest id + 1 over the whole file (refused when
    above 1000 times the distinct ids + 10 million), or the number of feature rows where that is larger. Float32
    features are memory-mapped. `options`: raw ids, splits made here, separators, and which modalities are read.

    Raises:
        DatasetError: a file, column or value is missing or wrong; names the file, what was expected, what
            came and, for the table, the line.
    """
    folder, options = Path(folder), options or ReadOptions()
    try:
        return _load(folder, name, options)
    except PermissionError as error:
        raise DatasetError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None


def read_mmrec(data_path: Path, name: str, options: ReadOptions | None = None) -> Dataset:
    """The data set in `<data_path>/<name>`, or in `data_path` itself, as MMRec's users have it (`load_dataset`)."""
    inside = data_path / name
    if inside.is_dir():
        return load_dataset(inside, options=options)
    if files.holds(data_path, name):
        return load_dataset(data_path, name, options)
    there = files.datasets_in(data_path)
    raise FileNotFoundError(
        f"data set {name!r} not found: neither folder {inside} nor file {data_path / name}{files.TABLE} exists"
        f"{did_you_mean(name, there)}; {data_path} holds {listed(there) if there else 'no data set'}"
    )


def _load(folder: Path, name: str | None, options: ReadOptions) -> Dataset:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing there"
        raise DatasetError(f"{folder}: expected a dataset folder, got {what}")
    paths = files.tables_of(folder, name).paths
    tables = _read_tables(paths, options)
    where = ", ".join(map(str, paths))
    if not any(len(table.users) for table in tables):
        raise DatasetError(f"{where}: expected at least one train interaction (label 0), got an empty table")
    found, features = _features(folder, options)
    _check_maps(folder, found, options)
    users, user_ids = _numbers(folder, "user", tables, options)
    items, item_ids = _numbers(folder, "item", tables, options)
    n_users = len(user_ids) if user_ids else _count(where, users, USER)
    n_items, extra = len(item_ids) if item_ids else _count(where, items, ITEM), 0
    rows = {len(array) if array.ndim else 0 for array in features.values()}
    if item_ids is None and len(rows) == 1 and n_items < (most := rows.pop()) and _meant(most, items):
        n_items, extra = most, most - n_items
    sources = {"interactions": where} | {f"{modality}_feat": str(path) for modality, path in found.items()}
    graphs = {}
    for modality, path in files.by_modality(folder, files.GRAPH, options.features):
        sources[f"{modality}_graph"] = str(path)
        graphs[modality] = read_graph(path, n_items)
        if modality not in features:
            logger.warning("%s: no %s%s beside it; only models without features use it", path, modality, files.FEATURES)

    labels, kept, report = _labels(tables, users, items, options)
    parts = {split: (users[kept][labels == label], items[kept][labels == label]) for label, split in enumerate(SPLITS)}
    rule = {"rule": "files"} if options.split == "label" and len(tables) > 1 else {}
    try:
        data = Dataset.from_pairs(
            name or folder.resolve().name,
            n_users,
            n_items,
            **parts,
            features=features,
            graphs=graphs,
            sources=sources,
            user_ids=user_ids,
            item_ids=item_ids,
            split=describe(options, timed=all(table.times is not None for table in tables)) | rule,
            overlap=options.overlap,
            report=report | ({"items_with_features_only": extra} if extra else {}),
            notes=_notes(folder, tables, features, found),
            hint="" if features else files.misnamed_features(folder),
        )
    except SplitOverlapError as error:
        twice = np.flatnonzero((users == error.user) & (items == error.item))
        first = twice[np.sort(np.unique(labels[twice], return_index=True)[1])[:2]]  # of two splits
        raw = [ids[n] for ids, n in ((user_ids, error.user), (item_ids, error.item)) if ids]
        named = f", raw ids {', '.join(map(shown, raw))}" if raw else ""
        raise DatasetError(f"{error}{named} ({_lines(tables, first)}); --overlap earliest keeps the first") from None
    left_out = {key: count for key, count in data.report.items() if count}
    if left_out:
        logger.info("%s: %s", data.name, ", ".join(f"{key} {count:,}" for key, count in left_out.items()))
    for note in data.notes:
        logger.info("%s: %s", data.name, note)
    return data


def _features(folder: Path, options: ReadOptions) -> tuple[dict[str, Path], dict[str, np.ndarray]]:
    """The features that are asked for: their files, and what those hold."""
    found = dict(files.by_modality(folder, files.FEATURES, options.features))
    missing = [m for m in options.features or () if m not in found]
    if missing:
        there = [modality for modality, _ in files.by_modality(folder, files.FEATURES)]
        raise DatasetError(
            f"{folder}: expected {', '.join(m + files.FEATURES for m in missing)}, got features of {listed(there)}"
            f"{did_you_mean(missing[0], there)}{files.misnamed_features(folder)}"
        )
    return found, {modality: read_features(path) for modality, path in found.items()}


def _check_maps(folder: Path, found: dict[str, Path], options: ReadOptions) -> None:
    """Raises `DatasetError` where a file of raw ids is needed and absent; `found` are the features."""
    if options.ids == "mapped" and not any(files.id_map(folder, kind) for kind in files.ID_MAPS):
        raise DatasetError(f"{folder}: expected {' or '.join(files.ID_MAPS.values())} for ids mapped, got neither")
    if options.ids == "raw" and found and files.id_map(folder, "item") is None:
        raise DatasetError(
            f"{folder}: expected {files.ID_MAPS['item']}, raw ids and their rows in the features "
            f"({listed(path.name for path in found.values())}), got none: which row is whose would be a guess"
        )


def _read_tables(paths: Sequence[Path], options: ReadOptions) -> list[Table]:
    wanted = [USER, ITEM]
    if options.split == "label" and len(paths) == 1:
        wanted.append(LABEL)
    if options.split in ("time", "user_time"):
        wanted.append(TIME)
    return [cached_table(path, options, wanted) for path in paths]


def _numbers(
    folder: Path, kind: str, tables: Sequence[Table], options: ReadOptions
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """One column of ids over all tables as numbers, [E] int64, and the raw ids where there are any."""
    columns = [table.users if kind == "user" else table.items for table in tables]
    if options.ids == "index":
        return np.concatenate(columns), None
    path = files.id_map(folder, kind)
    if options.ids == "mapped":
        return _mapped(tables, columns, kind, path)
    ids = first_seen(columns) if path is None else read_map(path)
    out = []
    for table, column in zip(tables, columns, strict=True):
        try:
            out.append(numbered(column, ids, path.name if path else "the tables"))
        except UnmappedId as error:
            raise DatasetError(f"{table.form.path}, line {table.line(error.position)}: {error}") from None
    return np.concatenate(out), ids


def _mapped(
    tables: Sequence[Table], columns: Sequence[np.ndarray], kind: str, path: Path | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Numbers of the tables as they are, and the raw ids that `path` has for them."""
    numbers = np.concatenate(columns)
    if path is None:
        return numbers, None
    ids = read_map(path)
    beyond = np.flatnonzero(numbers >= len(ids))[:1]
    if len(beyond):
        raise DatasetError(
            f"{', '.join(str(table.form.path) for table in tables)}: expected {kind} ids up to {len(ids) - 1}, as "
            f"{path.name} has them, got {numbers[beyond[0]]} ({_lines(tables, beyond)})"
        )
    return numbers, ids


def _labels(
    tables: Sequence[Table], users: np.ndarray, items: np.ndarray, options: ReadOptions
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Labels 0, 1, 2 of the rows that count, which those are, and what is left out."""
    every = np.arange(len(users))
    if options.split != "label":
        timed = all(table.times is not None for table in tables)
        times = np.concatenate([t.times for t in tables if t.times is not None]) if timed else None
        kept = earliest(users, items, times)
        repeated = {"repeated_pairs": len(users) - len(kept)}
        return split_labels(users[kept], None if times is None else times[kept], options), kept, repeated
    if len(tables) > 1:
        return np.repeat(np.arange(len(tables)), [len(table.users) for table in tables]), every, {}
    labels = tables[0].labels
    assert labels is not None
    return labels, every, {}


def _notes(folder: Path, tables: Sequence[Table], features: dict[str, np.ndarray], found: dict[str, Path]) -> list[str]:
    notes = [table.note for table in tables if table.note]
    for modality, array in features.items():
        if array.dtype != np.float32 and array.dtype != np.float64:
            notes.append(f"{found[modality].name}: {array.dtype} converted to float32")
    if features and files.OF_USERS not in found and (path := folder / f"{files.OF_USERS}{files.FEATURES}").is_file():
        notes.append(f"{path.name} is not read: features are those of items")
    return notes


def _meant(n: int, ids: np.ndarray) -> bool:
    """Whether as many as `n` ids can be meant by those of a table."""
    return n <= MAX_IDS_ALWAYS or n <= MAX_IDS_PER_DISTINCT * len(np.unique(ids)) + MAX_IDS_ALWAYS


def _count(where: str, ids: np.ndarray, column: str) -> int:
    """Largest id + 1. Raises `DatasetError` when the ids cannot be meant as `0..n-1`."""
    n = int(ids.max()) + 1
    if not _meant(n, ids):
        raise DatasetError(
            f"{where}: expected ids numbered from 0 in column {column}, got {n - 1} as the largest of "
            f"{len(np.unique(ids))} distinct ids; --ids raw numbers them"
        )
    return n


def _lines(tables: Sequence[Table], rows: np.ndarray) -> str:
    """Where rows of the tables one after another are."""
    if len(tables) == 1:
        return f"line{'s' if len(rows) > 1 else ''} " + " and ".join(str(tables[0].line(int(row))) for row in rows)
    starts = np.cumsum([0, *(len(table.users) for table in tables)])
    which = np.searchsorted(starts, rows, side="right") - 1
    found = [(tables[n], int(row) - int(starts[n])) for n, row in zip(which, rows, strict=True)]
    return " and ".join(f"{table.form.path.name}, line {table.line(row)}" for table, row in found)
