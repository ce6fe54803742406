"""Raw ids, texts of any kind, and the numbers 0, 1, 2, ... that tables of features and embeddings have as rows.

The numbers are those of a map (`u_id_mapping.csv`, `i_id_mapping.csv`: a raw id and its number a line, as MMRec writes
them), or else the order in which the ids occur first in the tables.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from smore_ext.data import files, lines
from smore_ext.data.dataset import DatasetError
from smore_ext.data.lines import Form
from smore_ext.data.messages import cut, shown


class UnmappedId(DatasetError):
    """A raw id that the map lacks; `position` is where it occurs."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def read_map(path: Path) -> tuple[str, ...]:
    """Raw ids by number: the second column says 0 to n-1, each once. Raises `DatasetError` with file and line."""
    numbers: dict[str, int] = {}
    files.check_readable(path)
    try:
        separator = next((s for s in "\t," if len(lines.header(Form(path, s))) > 1), "\t")
        for record in list(lines.records(Form(path, separator)))[1:]:
            if len(record.fields) != 2 or not record.fields[1].strip().isdecimal() or not record.fields[0].strip():
                raise DatasetError(
                    f"{path}, line {record.number}: expected a raw id and its number, got "
                    f"{shown(separator.join(record.fields))}"
                )
            raw, number = _unquoted(record.fields[0]), int(record.fields[1][:20])
            if raw in numbers:
                raise DatasetError(f"{path}, line {record.number}: expected each raw id once, got {shown(raw)} again")
            numbers[raw] = number
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: expected UTF-8 text, got: {cut(str(error), 200)}") from None
    ids = sorted(numbers, key=numbers.__getitem__)
    if [numbers[raw] for raw in ids] != list(range(len(ids))) or not ids:
        raise DatasetError(f"{path}: expected the numbers from 0 to {max(len(ids) - 1, 0)}, each once")
    return tuple(ids)


def _unquoted(field: str) -> str:
    """A field that a writer of csv put in quotes, as pandas and `smore_ext.prepare` do where the id has one in it."""
    inner = field[1:-1].replace('""', "")
    return field[1:-1].replace('""', '"') if re.fullmatch(r'".*"', field, re.DOTALL) and '"' not in inner else field


def first_seen(columns: Iterable[np.ndarray]) -> tuple[str, ...]:
    """The different texts of some columns in the order in which they occur first."""
    return tuple(dict.fromkeys(text for column in columns for text in column.tolist()))


def numbered(column: np.ndarray, ids: Sequence[str], where: str) -> np.ndarray:
    """The number of each text, [E] int64. Raises `UnmappedId` for one that `ids` lacks."""
    import pandas as pd

    out = pd.Index(ids, dtype=object).get_indexer(pd.Index(column, dtype=object))
    missing = np.flatnonzero(out < 0)
    if len(missing):
        raise UnmappedId(f"expected an id of {where}, got {shown(column[missing[0]])}", int(missing[0]))
    return out.astype(np.int64)
