"""Interaction tables: columns found by their header, values checked, faults named by file and line.

tab-separated (`.inter`) or with commas (`inter.csv`), packed (`.gz`) or not; another separator is seen in the header
or given. Read by pandas; `lines.py` finds the line of a fault.
"""

from __future__ import annotations

import csv
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smore_ext.data import files, lines
from smore_ext.data.dataset import MAX_ID, DatasetError
from smore_ext.data.lines import Form
from smore_ext.data.messages import LONGEST, cut, listed, shown
from smore_ext.data.options import ReadOptions

if TYPE_CHECKING:
    import pandas as pd  # else loaded where it is used: whoever imports a model does not wait for it

USER, ITEM, LABEL, TIME = "userID", "itemID", "x_label", "timestamp"
_KEYS = {"user": USER, "item": ITEM, "label": LABEL, "time": TIME}  # as `ReadOptions.column_names` calls them
# header names after dropping the type (`user_id:token`), case and underscores
_COLUMN_NAMES = {"userid": USER, "user": USER, "itemid": ITEM, "item": ITEM, "xlabel": LABEL, "timestamp": TIME}
_EXPECTED = {
    USER: (MAX_ID, f"a user id (integer from 0 to {MAX_ID})"),
    ITEM: (MAX_ID, f"an item id (integer from 0 to {MAX_ID})"),
    LABEL: (2, "a split label 0 (train), 1 (validation) or 2 (test)"),
}
_RAW_WAY = "; texts and other numbers are read with --ids raw"


@dataclass(frozen=True)
class Table:
    """The columns of one table in file order, [E] each: ids int64, or texts where ids are raw."""

    form: Form
    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray | None
    times: np.ndarray | None
    note: str  # what was found out of the file, "" where it is as it is said to be

    def line(self, row: int) -> int:
        """The line of a row (from 0)."""
        return lines.find(self.form, row, 0)[0]


def read_table(path: Path, options: ReadOptions, wanted: Sequence[str]) -> Table:
    """Reads a table with the columns `wanted`, of `USER`, `ITEM`, `LABEL` and `TIME`; a split by time reads that too.

    Raises `DatasetError`: names file, what was expected, what came and, for a value, the line.
    """
    files.check_readable(path)
    try:
        form, places, note = _form(path, options, wanted)
        table = _parsed(form, places, options)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from None

    columns: dict[str, np.ndarray | None] = {LABEL: None, TIME: None}
    for column, place in places.items():
        if column == TIME:
            columns[column] = _times(form, table, place)
        elif column in (USER, ITEM) and options.ids == "raw":
            columns[column] = _texts(form, table, place)
        else:
            columns[column] = _integers(form, table, place, *_EXPECTED[column])
    return Table(form, columns[USER], columns[ITEM], columns[LABEL], columns[TIME], note)  # type: ignore[arg-type]


def reads_times(options: ReadOptions, wanted: Sequence[str]) -> bool:
    """Whether a column of times is read, where there is one."""
    return TIME in wanted or options.split in ("user_time", "time", "leave_one_out")


def _unreadable(path: Path, error: Exception) -> DatasetError:
    reason = cut(str(error).strip().removeprefix("Error tokenizing data. C error: "), 200)
    return DatasetError(f"{path}: expected a UTF-8 table with a header line, got: {reason}")


def _form(path: Path, options: ReadOptions, wanted: Sequence[str]) -> tuple[Form, dict[str, int], str]:
    """How the table is separated, the places of its columns, and a note where the separator is an unusual one."""
    usual = "," if path.name.removesuffix(files.PACKED) == files.CSV_TABLE else "\t"
    tried: list[tuple[int, DatasetError]] = []
    for separator in dict.fromkeys([options.field_separator] if options.field_separator else [usual, *"\t,;| "]):
        form = Form(path, separator)
        header = lines.header(form)
        if not header:
            raise DatasetError(f"{path}: expected a header line and interactions, got an empty file")
        try:
            places = _places(path, header, options, wanted)
        except DatasetError as error:
            tried.append((len(header), error))
            continue
        found = separator != usual and not options.field_separator
        return form, places, f"{path.name}: columns separated by {separator!r}, as its header" if found else ""
    width, error = max(tried, key=lambda entry: entry[0])  # that of the most columns; the usual one among equals
    if width == 1 and options.field_separator:
        raise DatasetError(f"{error}; no {options.field_separator!r}, the separator that was given, is in the header")
    raise error


def _places(path: Path, header: Sequence[str], options: ReadOptions, wanted: Sequence[str]) -> dict[str, int]:
    """Where each column is that is wanted, and that of times where the split orders by it."""
    used = {*wanted, *([TIME] if reads_times(options, wanted) else [])}
    named = {name: _KEYS[key] for key, name in options.column_names.items()}
    known = {spelling: column for spelling, column in _COLUMN_NAMES.items() if column not in named.values()}
    places: dict[str, int] = {}
    for place, text in enumerate(header):
        plain = text.split(":")[0].strip()
        column = named.get(text.strip()) or named.get(plain) or known.get(plain.lower().replace("_", ""))
        column = column if column in used else None
        if column in places:
            raise DatasetError(
                f"{path}: expected one {column} column, got {shown(header[places[column]])} and {shown(text)}"
            )
        if column is not None:
            places[column] = place
    missing = [column for column in wanted if column not in places]
    if missing:
        names = {column: name for name, column in named.items()}
        way = "; a table without labels is split with --split random" if missing == [LABEL] else ""
        raise DatasetError(
            f"{path}: expected the columns {', '.join(names.get(column, column) for column in wanted)} in the header, "
            f"got {listed(header)} (missing: {', '.join(names.get(column, column) for column in missing)}){way}"
        )
    twice = next((name for name, count in Counter(header).items() if count > 1 and name.strip()), None)
    if twice is not None:
        raise DatasetError(f"{path}: expected each column once in the header, got {shown(twice)} twice")
    return places


def _parsed(form: Form, places: dict[str, int], options: ReadOptions) -> pd.DataFrame:
    """All columns, by pandas; raw ids as the texts that they are."""
    import pandas as pd

    read = partial(
        pd.read_csv,
        form.path,
        sep=form.separator,
        engine="c",
        encoding="utf-8-sig",
        index_col=False,
        low_memory=False,
        quoting=form.quoting,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            more: dict[str, object] = {}
            if options.ids == "raw":
                names = read(nrows=0).columns
                more = {"dtype": {names[places[column]]: str for column in (USER, ITEM)}, "keep_default_na": False}
            table = read(**more)
    except pd.errors.EmptyDataError:
        raise DatasetError(f"{form.path}: expected a header line and interactions, got an empty file") from None
    except (pd.errors.ParserWarning, pd.errors.ParserError) as error:
        _check_quotes(form, None, places, options)
        if (longer := lines.too_long(form)) is not None:
            number, got, width = longer
            raise DatasetError(
                f"{form.path}, line {number}: expected as many fields as the header has, {width}, got {got}"
            ) from None
        raise _unreadable(form.path, error) from None
    _check_quotes(form, len(table), places, options)
    return table


def _check_quotes(form: Form, n_rows: int | None, places: dict[str, int], options: ReadOptions) -> None:
    if form.quoting == csv.QUOTE_NONE:
        return
    with lines.open_text(form.path) as file:
        if not any('"' in block for block in iter(partial(file.read, 1 << 20), "")):
            return
    width = len(lines.header(form))

    def is_row(fields: Sequence[str]) -> bool:
        numbers = [place for column, place in places.items() if column == LABEL or options.ids == "index"]
        return len(fields) == width and all(_is_number(fields[place]) for place in numbers)

    lines.check_quotes(form, n_rows, is_row)


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


# --- columns ---


def _integers(form: Form, table: pd.DataFrame, place: int, largest: int, expected: str) -> np.ndarray:
    """One column as int64, values in `0..largest`; integral floats such as `1.0` pass (typed files)."""
    values = _numbers(table.iloc[:, place])
    # written so that NaN fails: every comparison with it is false
    bad = np.flatnonzero(~((values >= 0) & (values <= largest) & (values == np.floor(values))))
    if len(bad):
        raise _wrong(form, table, int(bad[0]), place, expected, way=_RAW_WAY if largest == MAX_ID else "")
    return values.astype(np.int64)


def _times(form: Form, table: pd.DataFrame, place: int) -> np.ndarray:
    """Moments as finite numbers, int64 or float64."""
    values = _numbers(table.iloc[:, place])
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise _wrong(form, table, int(bad[0]), place, "a time as a number")
    return values


def _texts(form: Form, table: pd.DataFrame, place: int) -> np.ndarray:
    """Raw ids, [E] objects of type str, none of them blank or over several lines."""
    column = table.iloc[:, place]
    bad = np.flatnonzero(column.isna() | (column.str.strip() == "") | column.str.contains("[\r\n]", na=True))
    if len(bad):
        raise _wrong(form, table, int(bad[0]), place, "an id")
    return column.to_numpy(dtype=object)


def _numbers(column: pd.Series) -> np.ndarray:
    """A column as numbers, NaN for what is none."""
    import pandas as pd

    if column.dtype.kind in "iuf":
        return column.to_numpy()
    if column.dtype.kind == "b":  # a column of True and False is not one of numbers
        return np.full(len(column), np.nan)
    short = column.where(column.astype(str).str.len() <= LONGEST)  # pandas fails on integers beyond float64
    return pd.to_numeric(short, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _wrong(form: Form, table: pd.DataFrame, row: int, place: int, expected: str, way: str = "") -> DatasetError:
    number, text = lines.find(form, row, place)
    got = shown(text) if text else "nothing"
    column = cut(str(table.columns[place]))
    return DatasetError(
        f"{form.path}, line {number}: expected {expected} in column {column}, got {got}{way if text else ''}"
    )
