"""What a patch replaced, what it left as it was, and why."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    piece: str
    name: str  # of what was replaced or left
    replaced: bool
    why: str = ""


class Report:
    """Grows while a tree runs: some proofs need the tree's own data. `print(report)` shows it as it is now."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, piece: str, name: str, replaced: bool, why: str = "") -> None:
        """An entry once: what is proved for each matrix or model anew is told once."""
        entry = Entry(piece, name, replaced, why)
        if entry not in self.entries:
            self.entries.append(entry)

    @property
    def replaced(self) -> list[str]:
        return [entry.name for entry in self.entries if entry.replaced]

    @property
    def left(self) -> dict[str, str]:
        """{what was left as it was: why}."""
        return {entry.name: entry.why for entry in self.entries if not entry.replaced}

    def __str__(self) -> str:
        lines = ["smore_ext.compat.mmrec"]
        for entry in self.entries:
            outcome = "replaced" if entry.replaced else "left    "
            lines.append(f"  {outcome}  {entry.piece:<10} {entry.name}{': ' if entry.why else ''}{entry.why}")
        return "\n".join(lines if len(lines) > 1 else [*lines, "  nothing met so far"])
