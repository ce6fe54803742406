"""How values are shown in errors: cut where they are long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

LONGEST = 80  # characters of a value
MOST_NAMES = 10


def shown(value: Any) -> str:
    """A value in an error."""
    return cut(repr(value[: LONGEST + 2] if isinstance(value, str | bytes) else value))


def cut(text: str, longest: int = LONGEST) -> str:
    """A text in an error."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def listed(names: Iterable[str]) -> str:
    """Names with commas between, the first ten and the number of the others; `none` where there are none."""
    names = list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(map(cut, names[:MOST_NAMES])) + (f" and {more} more" if more > 0 else "") or "none"
