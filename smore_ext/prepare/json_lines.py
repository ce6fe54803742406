"""Lines of JSON: their keys, all of them, and the lines that are none. Python literals are rewritten before."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import cut
from smore_ext.prepare.database import Database, Unreadable
from smore_ext.prepare.files import opened

FIRST = 100  # lines that Python reads: whether they are JSON, and in which order keys come
MOST_KEYS = 10_000  # of a table: more are values in the place of keys
_NOT_JSON = re.compile(r"^\s*\{\s*u?'")


def json_lines(database: Database, path: Path, packed: bool, pattern: str, temporary: Path) -> tuple[Path, list[str]]:
    """The file to read, and its keys: those of the first lines in their order, then those of all others in theirs.

    DuckDB looks for the latter, in a pass of its own: a key that few lines have may be the one that is wanted.
    """
    keys: dict[str, None] = {}
    for number, line in _lines(path, packed):
        if _NOT_JSON.match(line):
            return _rewritten(path, packed, temporary)
        keys |= dict.fromkeys(json_object(path, number, line))
        if number >= FIRST:
            break
    found: set[str | None] = set()
    try:
        for block in database.blocks(
            "SELECT DISTINCT unnest(CASE json_type(json) WHEN 'OBJECT' THEN json_keys(json) ELSE [NULL] END) "
            f"FROM read_json_objects({pattern}, format='newline_delimited')",
            MOST_KEYS,
            path,
        ):
            found |= {key for (key,) in block}
            if len(found) > MOST_KEYS:
                raise DatasetError(f"{path}: expected a table, got objects with more than {MOST_KEYS:,} different keys")
    except Unreadable:
        _refuse(path, packed)
        raise
    if None in found:
        _refuse(path, packed)
    keys |= dict.fromkeys(sorted(key for key in found if key is not None))
    if not keys:
        raise DatasetError(f"{path}: expected a JSON object a line, got an empty file")
    return path, list(keys)


def json_object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    """The object of a line. Raises `DatasetError` with file and line where it is none."""
    got, why = cut(line.strip()), ""
    try:
        value = json.loads(line)
    except ValueError as error:
        value, why = None, f" ({error})"
    except RecursionError:
        value, why = None, " (lists or objects within each other beyond all use)"
    if not isinstance(value, Mapping):
        raise DatasetError(f"{path}:{number}: expected a JSON object a line, got {got!r}{why}")
    return value


def _lines(path: Path, packed: bool) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, and their numbers."""
    with opened(path, packed) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _refuse(path: Path, packed: bool) -> None:
    """Raises `DatasetError` for the first line that is no object: DuckDB counts lines otherwise."""
    for number, line in _lines(path, packed):
        json_object(path, number, line)


def _rewritten(path: Path, packed: bool, temporary: Path) -> tuple[Path, list[str]]:
    """A copy of Python literals as JSON lines. Literals are parsed, not run."""
    keys: dict[str, None] = {}
    try:
        with NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl", dir=temporary, delete=False) as file:
            for number, line in _lines(path, packed):
                value, spelled = _literal(path, number, line)
                keys |= dict.fromkeys(value)
                file.write(spelled + "\n")
    except OSError as error:
        raise DatasetError(f"{temporary}: a copy of {path.name} as JSON cannot be written: {error}") from None
    return Path(file.name), list(keys)


def _literal(path: Path, number: int, line: str) -> tuple[Mapping[str, Any], str]:
    """The dictionary of a line, and its JSON."""
    try:
        value = ast.literal_eval(line.strip())
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return value, json.dumps(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    raise DatasetError(f"{path}:{number}: expected a Python literal of a dictionary a line, got {cut(line.strip())!r}")
