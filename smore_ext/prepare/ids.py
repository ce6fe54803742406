"""How a raw id is spelled, whatever the file it comes from: as its text, and a whole number without a fraction."""

from __future__ import annotations

import re

# pandas writes integers of a column with gaps as 7.0; a text with a zero in front, as 007.0, is no number's.
_WHOLE = r"^(0|-?[1-9][0-9]*)\.0+$"


def spelled(text: str) -> str:
    """An id from a file's name or a line."""
    return re.sub(_WHOLE, r"\1", text)


def spelled_sql(column: str) -> str:
    """SQL for the ids of a column, itself in SQL."""
    text = f"CAST({column} AS VARCHAR)"
    return f"CASE WHEN contains({text}, '.0') THEN regexp_replace({text}, '{_WHOLE}', '\\1') ELSE {text} END"
