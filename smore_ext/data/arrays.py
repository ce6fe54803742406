"""Features and item graphs of a data set's folder. Nothing here unpickles."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from smore_ext.data import files
from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import cut, listed
from smore_ext.graph import Graph

_GRAPH_KEYS = ("row", "col", "weight", "shape")


def read_features(path: Path) -> np.ndarray:
    """The array of a `.npy` file, mapped copy-on-write: torch may write to it, the file stays as it is."""
    files.check_readable(path)
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
        raise DatasetError(
            f"{path}: expected a complete .npy array, got {size} bytes: {cut(str(error), 200)}"
        ) from None


def read_graph(path: Path, n_items: int) -> Graph:
    """The item graph of an `.npz` archive with `row`, `col`, `weight`, `shape`, as it is: already normalised."""
    files.check_readable(path)
    try:
        if not zipfile.is_zipfile(path):  # numpy would take the file for a pickle and suggest to allow it
            raise DatasetError(f"{path}: expected an .npz archive, got a file that is none (or a truncated one)")
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _GRAPH_KEYS if key not in archive]
            if missing:
                raise DatasetError(
                    f"{path}: expected the arrays {', '.join(_GRAPH_KEYS)}, got "
                    f"{listed(archive)} (missing: {', '.join(missing)})"
                )
            row, col, weight, shape = (archive[key] for key in _GRAPH_KEYS)
    except DatasetError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have their own types for damaged bytes
        raise DatasetError(f"{path}: expected an .npz archive without pickles, got: {cut(str(error), 200)}") from None

    if shape.dtype.kind not in "iu" or shape.tolist() != [n_items, n_items]:
        raise DatasetError(
            f"{path}: expected shape [{n_items}, {n_items}] (items x items), got {cut(str(shape.tolist()))}"
        )
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
