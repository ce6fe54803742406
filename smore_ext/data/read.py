"""Reads a dataset folder as MMRec's users have it (docs/spec.md, section 4) into a :class:`Dataset`.

    folder/
      <name>.inter          tab-separated: user, item, split label (0 train, 1 validation, 2 test)
      inter.csv             the same with commas, read where there is no .inter
      <modality>_feat.npy   [I, D_m] float32 or float64
      <modality>_graph.npz  row, col, weight, shape: a ready-made, already normalised item graph (optional)

Nothing here unpickles.
"""

from __future__ import annotations

import csv
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from smore_ext.data import files
from smore_ext.data.dataset import MAX_ID, SPLITS, Dataset, DatasetError, SplitOverlapError
from smore_ext.graph import Graph
from smore_ext.registry import did_you_mean

if TYPE_CHECKING:
    import pandas as pd  # else loaded where it is used: whoever imports a model does not wait for it

logger = logging.getLogger(__name__)

SHOWN_DATASETS = 10

_USER, _ITEM, _LABEL = "userID", "itemID", "x_label"
# header names after dropping the type (`user_id:token`), case and underscores
_COLUMN_NAMES = {"userid": _USER, "user": _USER, "itemid": _ITEM, "item": _ITEM, "xlabel": _LABEL}
_GRAPH_KEYS = ("row", "col", "weight", "shape")


# A table whose largest id is far beyond its number of distinct ids holds raw ids (hashes, ASINs): tables of
# that many rows would be allocated. The constant leaves room for a small extract of a large data set.
MAX_IDS_PER_DISTINCT, MAX_IDS_ALWAYS = 1000, 10_000_000


def load_dataset(folder: str | os.PathLike[str], name: str | None = None) -> Dataset:
    """Reads and validates a dataset folder.

    With `name` the interaction table is `<name>.inter`, or `inter.csv` in a folder without any `.inter`, and
    the data set has that name. Without, the table is `<folder's name>.inter`, else the only `*.inter`, else `inter.csv`
    (comma-separated). Its header names the columns, typed or not (`userID`, `user_id:token`, `itemID`,
    `x_label`, `x_label:float`); further columns such as rating and timestamp are ignored; line ends may be
    Unix's or Windows's. `n_users` and `n_items` are the largest id + 1 over the whole file (refused when
    above 1000 times the distinct ids + 10 million). Float32 features are memory-mapped.

    Raises:
        DatasetError: a file, column or value is missing or wrong; names the file, what was expected, what
            came and, for the table, the line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing there"
        raise DatasetError(f"{folder}: expected a dataset folder, got {what}")
    table_path = files.table_of(folder, name)
    users, items, labels = _read_table(table_path)
    if len(users) == 0:
        raise DatasetError(f"{table_path}: expected at least one train interaction (label 0), got an empty table")
    n_users, n_items = _count(table_path, users, _USER), _count(table_path, items, _ITEM)

    sources = {"interactions": str(table_path)}
    features, graphs = {}, {}
    for modality, path in files.by_modality(folder, files.FEATURES):
        sources[f"{modality}_feat"] = str(path)
        features[modality] = _read_features(path)
    for modality, path in files.by_modality(folder, files.GRAPH):
        sources[f"{modality}_graph"] = str(path)
        graphs[modality] = _read_graph(path, n_items)
        if modality not in features:
            logger.warning("%s: no %s%s beside it; only models without features use it", path, modality, files.FEATURES)

    splits = {split: (users[labels == label], items[labels == label]) for label, split in enumerate(SPLITS)}
    name = name or folder.resolve().name
    try:
        data = Dataset.from_pairs(name, n_users, n_items, **splits, features=features, graphs=graphs, sources=sources)
    except SplitOverlapError as error:
        rows = np.flatnonzero((users == error.user) & (items == error.item))
        first = rows[np.sort(np.unique(labels[rows], return_index=True)[1])[:2]]  # of two splits
        lines = " and ".join(str(_line(table_path, int(row))[0]) for row in first)
        raise DatasetError(f"{error} (lines {lines})") from None
    left_out = {key: count for key, count in data.report.items() if count}
    if left_out:
        logger.info("%s: %s", name, ", ".join(f"{key} {count:,}" for key, count in left_out.items()))
    return data


def read_mmrec(data_path: Path, name: str) -> Dataset:
    """The data set in `<data_path>/<name>`, or in `data_path` itself, as MMRec's users have it (`load_dataset`)."""
    inside = data_path / name
    if inside.is_dir():
        return load_dataset(inside)
    if files.holds(data_path, name):
        return load_dataset(data_path, name)
    there = files.datasets_in(data_path)
    listed = ", ".join(there[:SHOWN_DATASETS]) + (
        f" and {more} more" if (more := len(there) - SHOWN_DATASETS) > 0 else ""
    )
    raise FileNotFoundError(
        f"data set {name!r} not found: neither folder {inside} nor file {data_path / name}{files.TABLE} exists"
        f"{did_you_mean(name, there)}; {data_path} holds {listed or 'no data set'}"
    )


# --- the interaction table ---


def _count(path: Path, ids: np.ndarray, column: str) -> int:
    """Largest id + 1. Raises `DatasetError` when the ids cannot be meant as `0..n-1`."""
    n, distinct = int(ids.max()) + 1, len(np.unique(ids))
    if n > MAX_IDS_PER_DISTINCT * distinct + MAX_IDS_ALWAYS:
        raise DatasetError(
            f"{path}: expected ids numbered from 0 in column {column}, got {n - 1} as the largest of {distinct} "
            f"distinct ids; number them anew"
        )
    return n


def _separator(path: Path) -> str:
    return "," if path.name == files.CSV_TABLE else "\t"


def _read_table(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """User, item and label columns, `[E]` int64 each, in file order."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(
                path,
                sep=_separator(path),
                engine="c",
                encoding="utf-8-sig",
                index_col=False,
                low_memory=False,
                quoting=csv.QUOTE_MINIMAL if _separator(path) == "," else csv.QUOTE_NONE,
            )
    except pd.errors.EmptyDataError:
        raise DatasetError(f"{path}: expected a header line and interactions, got an empty file") from None
    except pd.errors.ParserWarning:
        raise DatasetError(
            f"{path}: expected as many fields a line as the header has, got more in line {_line(path, 0)[0]}"
        ) from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise DatasetError(f"{path}: expected a UTF-8 table with a header line, got: {reason}") from None

    places: dict[str, int] = {}
    header = [str(column) for column in table.columns]
    for place, column in enumerate(header):
        known = _COLUMN_NAMES.get(column.split(":")[0].strip().lower().replace("_", ""))
        if known in places:
            raise DatasetError(f"{path}: expected one {known} column, got {header[places[known]]!r} and {column!r}")
        if known is not None:
            places[known] = place
    missing = [column for column in (_USER, _ITEM, _LABEL) if column not in places]
    if missing:
        raise DatasetError(
            f"{path}: expected the columns {_USER}, {_ITEM}, {_LABEL} in the header, "
            f"got {', '.join(header)} (missing: {', '.join(missing)})"
        )
    users = _integers(path, table, places[_USER], MAX_ID, f"a user id (integer from 0 to {MAX_ID})")
    items = _integers(path, table, places[_ITEM], MAX_ID, f"an item id (integer from 0 to {MAX_ID})")
    labels = _integers(path, table, places[_LABEL], 2, "a split label 0 (train), 1 (validation) or 2 (test)")
    return users, items, labels


def _integers(path: Path, table: pd.DataFrame, place: int, largest: int, expected: str) -> np.ndarray:
    """One column as int64, values in `0..largest`; integral floats such as `1.0` pass (typed files)."""
    import pandas as pd

    column = table.iloc[:, place]
    if column.dtype.kind in "iuf":
        values = column.to_numpy()
    elif column.dtype.kind == "b":  # a column of True and False is not one of numbers
        values = np.full(len(column), np.nan)
    else:
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    # written so that NaN fails: every comparison with it is false
    bad = np.flatnonzero(~((values >= 0) & (values <= largest) & (values == np.floor(values))))
    if len(bad):
        number, text = _line(path, int(bad[0]))
        fields = text.split(_separator(path))
        got = repr(fields[place].strip()) if place < len(fields) and fields[place].strip() else "nothing"
        raise DatasetError(f"{path}, line {number}: expected {expected} in column {table.columns[place]}, got {got}")
    return values.astype(np.int64)


def _line(path: Path, row: int) -> tuple[int, str]:
    """Number (from 1) and text of the line with table row `row` (from 0); only errors pay for the search."""
    for index, (number, text) in enumerate(_filled_lines(path)):
        if index == row + 1:  # the first filled line is the header
            return number, text
    return row + 2, ""


def _filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that pandas counts: it skips those that are empty or blank."""
    blank = " \r\n\t".replace(_separator(path), "")
    with path.open(encoding="utf-8-sig") as lines:
        for number, text in enumerate(lines, start=1):
            if text.strip(blank):
                yield number, text.rstrip("\r\n")


# --- arrays ---


def _read_features(path: Path) -> np.ndarray:
    """The array of a `.npy` file, mapped copy-on-write: torch may write to it, the file stays as it is."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
        if not start.startswith(b"\x93NUMPY"):
            what = "a pickle" if start.startswith(b"\x80") else f"a file starting with {start!r}"
            raise DatasetError(f"{path}: expected a .npy array (pickles are not read), got {what}")
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except DatasetError:
        raise
    except Exception as error:  # numpy raises half a dozen types on damaged headers
        if "Python objects" in str(error):
            raise DatasetError(
                f"{path}: expected a float32 or float64 array, got pickled Python objects, which are not read"
            ) from None
        size = path.stat().st_size
        raise DatasetError(f"{path}: expected a complete .npy array, got {size} bytes: {error}") from None


def _read_graph(path: Path, n_items: int) -> Graph:
    try:
        if not zipfile.is_zipfile(path):  # numpy would take the file for a pickle and suggest to allow it
            raise DatasetError(f"{path}: expected an .npz archive, got a file that is none (or a truncated one)")
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _GRAPH_KEYS if key not in archive]
            if missing:
                raise DatasetError(
                    f"{path}: expected the arrays {', '.join(_GRAPH_KEYS)}, got "
                    f"{', '.join(archive) or 'none'} (missing: {', '.join(missing)})"
                )
            row, col, weight, shape = (archive[key] for key in _GRAPH_KEYS)
    except DatasetError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have their own types for damaged bytes
        raise DatasetError(f"{path}: expected an .npz archive without pickles, got: {error}") from None

    if shape.dtype.kind not in "iu" or shape.tolist() != [n_items, n_items]:
        raise DatasetError(f"{path}: expected shape [{n_items}, {n_items}] (items x items), got {shape.tolist()}")
    for key, array, kinds in (("row", row, "iu"), ("col", col, "iu"), ("weight", weight, "f")):
        wanted = "numbers" if kinds == "f" else "integers"
        if array.ndim != 1 or array.dtype.kind not in kinds or len(array) != len(row):
            raise DatasetError(
                f"{path}: expected {key} to be a vector of {len(row) if row.ndim else 0} {wanted}, "
                f"got {array.dtype} of shape {array.shape}"
            )
    for key, array in (("row", row), ("col", col)):
        bad = np.flatnonzero((array < 0) | (array >= n_items))
        if len(bad):
            raise DatasetError(
                f"{path}: expected {key} indices from 0 to {n_items - 1}, got {array[bad[0]]} at position {bad[0]}"
            )
    with np.errstate(over="ignore"):
        weight = weight.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(weight))
    if len(bad):
        raise DatasetError(f"{path}: expected finite weights, got {weight[bad[0]]} at position {bad[0]}")
    row, col = (torch.from_numpy(array.astype(np.int64)) for array in (row, col))
    return Graph.from_edges(row, col, torch.from_numpy(weight), (n_items, n_items))
