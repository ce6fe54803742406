"""Interaction tables kept parsed: under a hash of the file's bytes and of what decides how it is read (`kept.py`).

A table that is kept is read without pandas, whose import alone takes longer than a table of some 100,000 rows. What
is wrong in a file is found when it is parsed; only tables without a fault are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smore_ext.data import files, kept
from smore_ext.data.lines import Form
from smore_ext.data.options import ReadOptions
from smore_ext.data.table import LABEL, Table, read_table, reads_times
from smore_ext.version import __version__

FORMAT_VERSION = 1
_KIND, _WHAT = "table", "table"
_IDS, _MORE, _FORM = ("users", "items"), ("labels", "times"), "form"
_INT32 = torch.iinfo(torch.int32)


def cached_table(path: Path, options: ReadOptions, wanted: Sequence[str]) -> Table:
    """`read_table`, from the folder `options.table_cache` if it is there, else parsed and kept there."""
    if options.table_cache is None:
        return read_table(path, options, wanted)
    files.check_readable(path)
    before = _state(path)
    with path.open("rb") as stream:
        described = _metadata(hashlib.file_digest(stream, "sha256").hexdigest(), path, options, wanted)
    place = kept.place(options.table_cache, _KIND, described)
    has_labels = LABEL in wanted
    names = (*_IDS, _FORM, *(_MORE[:1] if has_labels else ()))
    optional = _MORE[1:] if has_labels else _MORE
    table = kept.load(place, described, names, partial(_from_parts, path), _WHAT, optional=optional)
    if table is None:
        table = read_table(path, options, wanted)
        if _state(path) == before:  # else nobody knows which bytes were parsed
            kept.store(place, _parts(table), described, _WHAT)
    return table


def _state(path: Path) -> tuple[int, ...]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _metadata(digest: str, path: Path, options: ReadOptions, wanted: Sequence[str]) -> dict[str, str]:
    """What the parsed table depends on; safetensors holds strings only."""
    return {
        "kind": "smore_ext interaction table",
        "format_version": str(FORMAT_VERSION),
        "package_version": __version__,
        "file_sha256": digest,
        "file_name": path.name,
        "columns": json.dumps(list(wanted)),
        "times": str(reads_times(options, wanted)),
        "ids": options.ids,
        "separator": json.dumps(options.field_separator),
        "column_names": json.dumps(dict(options.column_names), sort_keys=True),
    }


def _parts(table: Table) -> dict[str, Tensor]:
    columns = {name: getattr(table, name) for name in (*_IDS, *_MORE)}
    parts = {name: _packed(column) for name, column in columns.items() if column is not None}
    form = json.dumps({"separator": table.form.separator, "note": table.note})
    return parts | {_FORM: _bytes(form)}


def _packed(column: np.ndarray) -> Tensor:
    """Whole numbers in four bytes where these do; texts, which have no line ends, as UTF-8, a line each."""
    if column.dtype == object:
        return _bytes("".join(f"{text}\n" for text in column))
    tensor = torch.from_numpy(np.array(column))
    small = tensor.dtype == torch.int64 and (
        not len(tensor) or _INT32.min <= tensor.min() <= tensor.max() <= _INT32.max
    )
    return tensor.int() if small else tensor


def _bytes(text: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy())


def _from_parts(path: Path, parts: dict[str, Tensor]) -> Table:
    form = json.loads(parts.pop(_FORM).numpy().tobytes())
    if not isinstance(form, dict) or form.keys() != {"separator", "note"}:
        raise ValueError(f"expected separator and note as its form, got {type(form).__name__}")
    columns: dict[str, np.ndarray] = {name: _unpacked(part) for name, part in parts.items()}
    if len({column.shape for column in columns.values()}) != 1:
        raise ValueError(f"expected columns of one length, got {[column.shape for column in columns.values()]}")
    for name, column in columns.items():
        if name != "times" and column.dtype != object and len(column) and column.min() < 0:
            raise ValueError(f"expected numbers from 0 in {name}, got {column.min()}")
    if (labels := columns.get("labels")) is not None and len(labels) and labels.max() > 2:
        raise ValueError(f"expected labels 0, 1, 2, got {labels.max()}")
    return Table(
        Form(path, form["separator"]),
        columns["users"],
        columns["items"],
        columns.get("labels"),
        columns.get("times"),
        form["note"],
    )


def _unpacked(part: Tensor) -> np.ndarray:
    if part.dtype == torch.uint8:
        return np.array(part.numpy().tobytes().decode().split("\n")[:-1], dtype=object)
    return part.long().numpy() if part.dtype == torch.int32 else part.numpy()
