"""Tables as others publish them: Amazon reviews of 2014, 2018 and 2023, RecBole's atomic files, MicroLens, any other.

They differ in packing and in what columns are called, so a table is known by its columns: the first name of each list
below that it has, whatever the case, underscores, and a type behind a colon. A table without a header (MovieLens,
Amazon's ratings alone) has the columns that it is told to have. DuckDB reads them, streamed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import cut, listed
from smore_ext.prepare.database import Database, Unreadable, literal
from smore_ext.prepare.files import opened
from smore_ext.prepare.json_lines import json_lines
from smore_ext.registry import did_you_mean

# The first of these that a table has; as texts are compared, so `user_id:token` is `userid`.
USER = ("user_id", "reviewerID", "user", "uid", "userid")
ITEM = ("parent_asin", "item_id", "asin", "item", "iid", "itemid", "movie_id", "product_id", "business_id")
RATING = ("rating", "overall", "stars", "score")
TIME = ("timestamp", "unixReviewTime", "time", "unix_time", "datetime")
TEXTS = (
    ("title", "movie_title", "name"),
    ("brand", "store"),
    ("categories", "category", "class", "genre", "genres"),
    ("features", "feature"),
    ("description", "text"),
)
JSON_LINES = (".json", ".jsonl", ".ndjson")
SEPARATED = {
    ".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t", ".txt": "\t", ".dat": "::", ".data": "\t",
}  # fmt: skip
SEPARATORS = ("\t", ",", ";", "|", "::")
QUOTED = ",;"  # separators of tables with quotes; between tabs, as RecBole writes, a quote belongs to the text
PARQUET = (".parquet", ".pq")
IGNORED = ("", "_")  # in the place of a name: a column that is of no use, or none
NO_HEADER = "; a table without a header needs --columns, as --columns user,item,rating,time"


@dataclass(frozen=True)
class Source:
    """A table in a file: its path, what DuckDB selects from, its columns, what may be why one is not found, and for
    JSON lines what it selects the objects from, whose values have types."""

    path: Path
    relation: str
    columns: list[str]
    hint: str = ""
    objects: str | None = None

    def column(self, names: Sequence[str], chosen: str | None, what: str) -> str | None:
        """The table's column of a purpose: `chosen` by the user, with its type or without where one has that name, else
        the first of `names` that it has, else None, as where the user wants none."""
        if chosen in IGNORED:
            return None
        if chosen is not None:
            if chosen not in self.columns:
                named = [column for column in self.columns if column.partition(":")[0] == chosen]
                if len(named) == 1:
                    return named[0]
                hint = did_you_mean(chosen, self.columns)
                raise DatasetError(
                    f"{self.path}: expected a column {chosen!r} of {what}{hint}; there are {listed(self.columns)}"
                )
            return chosen
        by_name = {plain(column): column for column in reversed(self.columns)}
        return next((by_name[plain(name)] for name in names if plain(name) in by_name), None)


def plain(column: str) -> str:
    """A column's name without type, case and underscores."""
    return column.partition(":")[0].replace("_", "").lower()


def open_source(database: Database, path: Path, temporary: Path, given: Sequence[str] = ()) -> Source:
    """Finds out what kind of table a file is. Raises `DatasetError` where it is none.

    Args:
        database: reads it.
        path: the file, packed with gzip or not.
        temporary: a folder for what is rewritten.
        given: the columns in order, of a separated table without a header; "" or "_" for those that are of no use.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: expected a file of interactions or items, got {_kind(path)}")
    packed = path.suffix.lower() == ".gz"
    ending = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if given and ending not in SEPARATED:
        raise DatasetError(
            f"--columns: expected a table without a header ({', '.join(SEPARATED)}), got {path.name}, which has names"
        )
    used: set[str] | None = None
    hint = ""
    objects: str | None = None
    if ending in PARQUET:
        relation = f"read_parquet({_pattern(path)}, hive_partitioning=false)"
    elif ending in JSON_LINES:
        read, keys = json_lines(database, path, packed, _pattern(path), temporary)
        _check_different(path, keys)
        form = "format='newline_delimited', records=true"
        objects = f"read_json_objects({_pattern(read)}, format='newline_delimited')"
        relation = f"read_json({_pattern(read)}, {form}, columns={_texts(keys)})"
    elif ending in SEPARATED:
        separator, fields = _first_line(path, packed, SEPARATED[ending], len(given))
        names = _given(path, given, fields) if given else fields
        hint = "" if given else NO_HEADER
        _check_different(path, names, hint)
        used = {name for name in given if name not in IGNORED} or None
        relation = _separated(path, separator, names, header=not given)
    else:
        known = ", ".join((*JSON_LINES, *SEPARATED, *PARQUET))
        raise DatasetError(f"{path}: expected a file that ends with one of {known}, each also with .gz, got {ending}")
    try:
        columns = database.columns(relation, path)
    except Unreadable as error:
        if ending in SEPARATED and separator == "::" and "delim" in str(error):
            raise DatasetError(
                f"{path}: expected a DuckDB that reads the separator '::', got version {database.version}: "
                "pip install -U duckdb, or put a tab in its place"
            ) from None
        raise
    return Source(path, relation, [name for name in columns if used is None or name in used], hint, objects)


def _pattern(path: Path) -> str:
    """A path as DuckDB takes it, which would look for others where it has brackets, stars or question marks."""
    return literal(re.sub(r"([\[*?])", r"[\1]", str(path)))


def _texts(names: Sequence[str]) -> str:
    """Columns by name, all of them texts."""
    return "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names) + "}"


def _separated(path: Path, separator: str, names: Sequence[str], header: bool) -> str:
    quote = '"' if separator in QUOTED else ""
    options = f"delim={literal(separator)}, quote={literal(quote)}, escape={literal(quote)}, header={header}"
    known = f"auto_detect=false, hive_partitioning=false, columns={_texts(names)}"
    return f"read_csv({_pattern(path)}, {options}, {known}, null_padding=false)"


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "nothing there" if not path.exists() else "something else"


def _first_line(path: Path, packed: bool, usual: str, width: int) -> tuple[str, list[str]]:
    """The separator and the fields of the first line: the separator that gives `width` of them, or any, most."""
    with opened(path, packed) as file:
        head = file.readline().rstrip("\r\n").removeprefix("\ufeff")
    if not head.strip():
        wanted = "lines of a table" if width else "a header line with the names of columns"
        raise DatasetError(f"{path}: expected {wanted}, got an empty file")
    split = {separator: _fields(head, separator) for separator in (usual, *SEPARATORS)}
    separator = max(split, key=lambda name: (len(split[name]) == width, head.count(name)))
    return separator, split[separator]


def _fields(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator)) if separator in QUOTED else line.split(separator)


def _given(path: Path, given: Sequence[str], fields: Sequence[str]) -> list[str]:
    """Names of all columns; those of no use have one that nobody gives."""
    if len(fields) != len(given):
        raise DatasetError(
            f"--columns: expected a name for each of the {len(fields)} columns of {path.name}, whose first line is "
            f"{listed(fields)}; got {', '.join(given)}"
        )
    if all(any(plain(field) in map(plain, names) for field in fields) for names in (USER, ITEM)):
        raise DatasetError(f"--columns: expected a table without a header, got {path.name} with {listed(fields)}")
    return [f"column {number} of no use" if name in IGNORED else name for number, name in enumerate(given, 1)]


def _check_different(path: Path, names: Sequence[str], hint: str = "") -> None:
    """DuckDB takes no two columns that differ by upper and lower case only."""
    first: dict[str, str] = {}
    for name in names:
        if name.lower() in first:
            both = f"{cut(first[name.lower()])} and {cut(name)}"
            raise DatasetError(f"{path}: expected different names of columns, whatever their case, got {both}{hint}")
        first[name.lower()] = name
