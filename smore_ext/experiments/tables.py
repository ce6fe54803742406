"""Tables as text: comma-separated, and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def csv_of(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Numbers as they are, None as nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()


def markdown_of(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """`numbers`: all columns but the first are set to the right."""
    rule = ["---", *(["---:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
