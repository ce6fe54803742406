"""What the loop asks of whoever keeps a run's files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """Where the two checkpoints of a run are; `smore_ext.runs.folder.RunFolder` is one.

    Attributes:
        path: what messages call the place.
        last: file of the checkpoint that the next epoch starts from.
        best: file of the weights of the best epoch.
    """

    @property
    def path(self) -> Path: ...

    @property
    def last(self) -> Path: ...

    @property
    def best(self) -> Path: ...
