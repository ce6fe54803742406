"""Lines and records of a table as an editor counts them: a record with quoted fields may run over several lines.

Tables are read by pandas; what is here finds the line of a fault, and quotes that swallow rows.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from smore_ext.data.dataset import DatasetError

QUOTED = ",;"  # tables of these separators may have quoted fields


class Form(NamedTuple):
    """How a table is written."""

    path: Path
    separator: str

    @property
    def quoting(self) -> Literal[0, 3]:
        return csv.QUOTE_MINIMAL if self.separator in QUOTED else csv.QUOTE_NONE


class Record(NamedTuple):
    """A row of a table: the number of its first line (from 1), its lines, and its fields."""

    number: int
    lines: list[str]
    fields: list[str]

    def place(self, index: int, separator: str) -> int:
        """The number of the line on which a field begins."""
        number, field, inside = self.number, 0, False
        for character in "".join(self.lines) if len(self.lines) > 1 else "":
            if field == index:
                break
            inside ^= character == '"'
            number += character == "\n"
            field += character == separator and not inside
        return number


def open_text(path: Path) -> IO[str]:
    """A table for reading; `.gz` is unpacked. Lines keep their ends."""
    opened = gzip.open if path.suffix == ".gz" else open
    return cast(IO[str], opened(path, "rt", encoding="utf-8-sig", newline=""))  # the caller closes it


def header(form: Form) -> list[str]:
    """The fields of the first filled line; none in an empty file. Raises `DatasetError` for one over several lines."""
    first = next(records(form), Record(1, [], []))
    if len(first.lines) > 1:
        raise DatasetError(
            f"{form.path}, line {first.number}: expected a header on one line, got a quote that opens and is not "
            f"closed up to line {first.number + len(first.lines) - 1}"
        )
    return first.fields


def records(form: Form) -> Iterator[Record]:
    """The records of a table, the header first, without blank lines: pandas does not count them either."""
    blank = " \r\n\t".replace(form.separator, "")
    taken: list[str] = []

    def kept(lines: IO[str]) -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    with open_text(form.path) as file, _fields_of_any_size():
        reader, number = csv.reader(kept(file), delimiter=form.separator, quoting=form.quoting), 1
        for fields in reader:
            if len(taken) > 1 or taken[0].strip(blank):
                yield Record(number, taken[:], fields)
            number += len(taken)
            taken.clear()


def find(form: Form, row: int, place: int) -> tuple[int, str]:
    """The line on which the field `place` of the table's row `row` (from 0) begins, and the field, "" for none."""
    for index, record in enumerate(records(form)):
        if index == row + 1:
            text = record.fields[place].strip() if place < len(record.fields) else ""
            return record.place(place, form.separator), text
    return row + 2, ""


def too_long(form: Form) -> tuple[int, int, int] | None:
    """Line, number of fields, and number expected of the first record with more fields than the header."""
    width = None
    for record in records(form):
        width = width or len(record.fields)
        if len(record.fields) > width:
            return record.number, len(record.fields), width
    return None


def check_quotes(form: Form, n_rows: int | None, is_row: Callable[[Sequence[str]], bool]) -> None:
    """Raises `DatasetError` that names the line where a quote opens that ends at another row's.

    Args:
        n_rows: rows that were read, None where reading failed.
        is_row: whether fields could be a row of the table.
    """
    count, last = 0, None
    for record in records(form):
        count, last = count + 1, record
        if len(record.lines) > 1:
            _check_record(form, record, is_row)
    if last is not None:
        _check_record(form, last, is_row)
    if n_rows is not None and count != n_rows + 1:
        raise DatasetError(f"{form.path}: expected a row a line, got {n_rows} rows of {count - 1} records")


def _check_record(form: Form, record: Record, is_row: Callable[[Sequence[str]], bool]) -> None:
    def fail(why: str) -> None:
        opened = record.number + next((n for n, line in enumerate(record.lines) if '"' in line), 0)
        raise DatasetError(
            f"{form.path}, line {opened}: expected quotes that enclose a field, got one that opens {why}; "
            f'a quote within a text is written twice, in a quoted field: "5"" tube"'
        )

    with _fields_of_any_size():
        try:
            list(csv.reader(record.lines, delimiter=form.separator, strict=True))
        except csv.Error as error:
            ends = record.number + len(record.lines) - 1
            fail(f"and is not closed rightly up to line {ends} ({error})")
        if len(record.lines) == 1:
            return
        first, *inner, last = ([*csv.reader([line], delimiter=form.separator)][0] for line in record.lines)
        # what stands after the opening quote is one field: as the writer may have meant it, without that quote
        rest = [*csv.reader([first[-1]], delimiter=form.separator, quoting=csv.QUOTE_NONE)] or [[""]]
        if any(map(is_row, inner)) or (is_row([*first[:-1], *rest[0]]) and is_row(last)):
            fail(f"and swallows rows up to line {record.number + len(record.lines) - 1}")


@contextmanager
def _fields_of_any_size() -> Iterator[None]:
    """Within, a long review is a field like any other for the csv module."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)
