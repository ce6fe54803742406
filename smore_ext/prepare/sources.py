"""Tables as others publish them: Amazon reviews of 2014, 2018 and 2023, RecBole's atomic files, MicroLens, any other.

They differ in packing and in what columns are called, so a table is known by its columns: the first name of each list
below that it has, whatever the case, underscores, and a type behind a colon. DuckDB reads them, streamed; the lines of
Amazon's metadata of 2014, which are Python literals and no JSON, are rewritten before.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import cut, listed
from smore_ext.registry import did_you_mean

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

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
SEPARATED = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t", ".txt": "\t"}
QUOTED = ",;"  # separators of tables with quotes; between tabs, as RecBole writes, a quote belongs to the text
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Source:
    """A table in a file: its path, what DuckDB selects from, and its columns."""

    path: Path
    relation: str
    columns: list[str]

    def column(self, names: Sequence[str], chosen: str | None, what: str) -> str | None:
        """The table's column of a purpose: `chosen` by the user, with its type or without where one has that name, else
        the first of `names` that it has, else None."""
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


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def connect(temporary: Path, memory: str = "1GB") -> DuckDBPyConnection:
    """A database in memory, which goes on in `temporary` where that is short."""
    try:
        import duckdb
    except ImportError:
        raise ImportError("prepare needs duckdb: pip install 'smore-ext[prepare]'") from None
    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"SET memory_limit={literal(memory)}")
    except duckdb.Error:
        raise DatasetError(f"memory: expected a size such as 1GB, got {memory!r}") from None
    connection.execute(f"SET temp_directory={literal(temporary)}")
    connection.execute("SET preserve_insertion_order=false; SET enable_progress_bar=false")
    return connection


def open_source(connection: DuckDBPyConnection, path: Path, temporary: Path) -> Source:
    """Finds out what kind of table a file is. Raises `DatasetError` where it is none."""
    if not path.is_file():
        raise DatasetError(f"{path}: expected a file of interactions or items, got {_kind(path)}")
    packed = path.suffix.lower() == ".gz"
    ending = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if ending in PARQUET:
        relation = f"read_parquet({pattern(path)}, hive_partitioning=false)"
    elif ending in JSON_LINES:
        path_, keys = _json_lines(path, packed, temporary)
        relation = f"read_json({pattern(path_)}, format='newline_delimited', columns={_texts(keys)})"
    elif ending in SEPARATED:
        separator, names = _header(path, packed, SEPARATED[ending])
        quote = '"' if separator in QUOTED else ""
        options = f"delim={literal(separator)}, quote={literal(quote)}, escape={literal(quote)}, header=true"
        known = f"auto_detect=false, hive_partitioning=false, columns={_texts(names)}"
        relation = f"read_csv({pattern(path)}, {options}, {known}, null_padding=false)"
    else:
        known = ", ".join((*JSON_LINES, *SEPARATED, *PARQUET))
        raise DatasetError(f"{path}: expected a file that ends with one of {known}, each also with .gz, got {ending}")
    columns_ = run(connection, path, f"SELECT * FROM {relation} LIMIT 0").description
    return Source(path, relation, [name for name, *_ in columns_])


def pattern(path: Path) -> str:
    """A path as DuckDB takes it, which would look for others where it has brackets, stars or question marks."""
    return literal(re.sub(r"([\[*?])", r"[\1]", str(path)))


def _texts(names: Sequence[str]) -> str:
    """Columns by name, all of them texts."""
    return "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names) + "}"


def run(connection: DuckDBPyConnection, path: Path, sql: str) -> DuckDBPyConnection:
    """Runs a statement that reads a file; what it says of the file becomes one line."""
    import duckdb

    try:
        return connection.execute(sql)
    except duckdb.Error as error:
        told = str(error).split("\n")
        line = next((part for part in told if part.strip()), type(error).__name__)
        raise DatasetError(f"{path}: cannot be read: {line[:300]}") from None
    except (OSError, EOFError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "nothing there" if not path.exists() else "something else"


def _opened(path: Path, packed: bool) -> TextIO:
    opened: Any = gzip.open if packed else open
    return cast(TextIO, opened(path, "rt", encoding="utf-8", newline="\n"))  # a carriage return in a text ends no line


def _header(path: Path, packed: bool, usual: str) -> tuple[str, list[str]]:
    """The separator that the header has most of, and its columns."""
    try:
        with _opened(path, packed) as file:
            head = file.readline().rstrip("\r\n").removeprefix("\ufeff")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    if not head.strip():
        raise DatasetError(f"{path}: expected a header line with the names of columns, got an empty file")
    separator = max((usual, "\t", ",", ";", "|"), key=head.count)
    names = next(csv.reader([head], delimiter=separator)) if separator in QUOTED else head.split(separator)
    if len(set(names)) < len(names):
        raise DatasetError(f"{path}: expected different names of columns, got {listed(names)}")
    return separator, names


_NOT_JSON = re.compile(r"^\s*\{\s*u?'")


def _json_lines(path: Path, packed: bool, temporary: Path) -> tuple[Path, list[str]]:
    """The file to read, and the keys of its first hundred lines."""
    keys: dict[str, None] = {}
    try:
        with _opened(path, packed) as file:
            for number, line in enumerate(file, 1):
                if _NOT_JSON.match(line):
                    return _rewritten(path, packed, temporary)
                keys |= dict.fromkeys(_object(path, number, line))
                if number == 100:
                    break
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    if not keys:
        raise DatasetError(f"{path}: expected a JSON object a line, got an empty file")
    return path, list(keys)


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DatasetError(
            f"{path}:{number}: expected a JSON object a line, got {cut(line.strip())!r} ({error})"
        ) from None
    if not isinstance(value, Mapping):
        raise DatasetError(f"{path}:{number}: expected a JSON object a line, got {cut(line.strip())!r}")
    return value


def _rewritten(path: Path, packed: bool, temporary: Path) -> tuple[Path, list[str]]:
    """A copy of Python literals as JSON lines. Literals are parsed, not run."""
    keys: dict[str, None] = {}

    def objects() -> Iterator[Mapping[str, Any]]:
        with _opened(path, packed) as file:
            for number, line in enumerate(file, 1):
                try:
                    value = ast.literal_eval(line)
                except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                    raise DatasetError(
                        f"{path}:{number}: expected a Python literal a line, got {cut(line.strip())!r}"
                    ) from error
                yield value

    out = temporary / f"{path.name}.jsonl"
    try:
        with out.open("w", encoding="utf-8") as file:
            for value in objects():
                keys |= dict.fromkeys(value)
                file.write(json.dumps(value) + "\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None
    return out, list(keys)
