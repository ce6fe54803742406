"""The database that tables are read with: DuckDB, in memory and on the disk, whose errors become one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from smore_ext.data.dataset import DatasetError

# In what DuckDB says when it cannot write what goes to the disk.
_FULL = ("max_temp_directory_size", "no space left", "disk quota", "file too large", "could not write")


class Unreadable(DatasetError):
    """DuckDB cannot read a file."""


class Database:
    """DuckDB, which goes on in the folder `temporary` where `memory` is short. What it cannot do is a `DatasetError`.

    Statements take `reads`, the file that they read: what is wrong with it is told by its name.
    """

    def __init__(self, temporary: Path, memory: str = "1GB") -> None:
        try:
            import duckdb
        except ImportError:
            raise ImportError("prepare needs duckdb: pip install 'smore-ext[prepare]'") from None
        self.version: str = duckdb.__version__
        self._memory, self._temporary = memory, temporary
        self._connection = duckdb.connect(":memory:")
        try:
            self._connection.execute(f"SET memory_limit={literal(memory)}")
        except duckdb.Error:
            self._connection.close()
            raise DatasetError(f"memory: expected a size such as 1GB, got {memory!r}") from None
        self.run(f"SET temp_directory={literal(temporary)}")
        self.run("SET preserve_insertion_order=false; SET enable_progress_bar=false; SET TimeZone='UTC'")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        with self._told(None):
            self._connection.execute(sql, list(values))

    def create(self, name: str, select: str, reads: Path) -> None:
        """A table of what is selected from a file."""
        with self._told(reads):
            self._connection.execute(f"CREATE TABLE {name} AS {select}")

    def rows(self, sql: str, reads: Path | None = None) -> list[tuple[Any, ...]]:
        with self._told(reads):
            return self._connection.execute(sql).fetchall()

    def value(self, sql: str) -> Any:
        """The one value that is selected."""
        return self.rows(sql)[0][0]

    def blocks(self, sql: str, size: int, reads: Path) -> Iterator[list[tuple[Any, ...]]]:
        """Rows, `size` at a time."""
        with self._told(reads):
            found = self._connection.execute(sql)
        while True:
            with self._told(reads):
                block = found.fetchmany(size)
            if not block:
                return
            yield block

    def columns(self, relation: str, reads: Path) -> list[str]:
        """The names of a relation's columns."""
        with self._told(reads):
            return [name for name, *_ in self._connection.execute(f"SELECT * FROM {relation} LIMIT 0").description]

    def arrays(self, sql: str) -> dict[str, np.ndarray]:
        """Columns by name."""
        with self._told(None):
            return self._connection.execute(sql).fetchnumpy()

    @contextmanager
    def _told(self, reads: Path | None) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            text = str(error)
            if any(words in text.lower() for words in _FULL):
                raise DatasetError(
                    f"{self._temporary}: expected room on the disk for what --memory {self._memory} cannot hold, got a "
                    "full disk: make room, write the folder to another disk, or give more --memory"
                ) from None
            if isinstance(error, duckdb.OutOfMemoryException):
                raise DatasetError(
                    f"--memory: expected as much as the tables need, got {self._memory}, which is used up: give more, "
                    "as --memory 4GB"
                ) from None
            line = next((part.strip() for part in text.split("\n") if part.strip()), type(error).__name__)[:300]
            if reads is None:
                raise DatasetError(f"DuckDB: {line}") from None
            raise Unreadable(f"{reads}: cannot be read: {line}") from None


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: object) -> str:
    """A text in SQL."""
    return "'" + str(text).replace("'", "''") + "'"
