"""What a run carries from step to step and from epoch to epoch besides tensors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Progress:
    """What the loop carries from epoch to epoch besides tensors; JSON in the checkpoint's metadata."""

    next_epoch: int = 0
    steps: int = 0
    best_epoch: int = -1
    best_value: float = -1.0
    bad_epochs: int = 0
    validation: dict[str, float] = field(default_factory=dict)  # of the best epoch
    seconds_training: float = 0.0
    seconds_evaluating: float = 0.0
    early_bpr: float = 0.0  # sum of the BPR term over the steps at which it is watched
    warnings: list[str] = field(default_factory=list)

    def observe(self, epoch: int, metrics: dict[str, float], key: str) -> bool:
        """Early stopping: rounded to 4 decimals, strictly greater. True for a new best epoch."""
        value = round(metrics[key], 4)
        if not value > self.best_value:
            self.bad_epochs += 1
            return False
        self.best_value, self.best_epoch, self.bad_epochs = value, epoch, 0
        self.validation = metrics
        return True


class LossWindow:
    """Losses of the steps of an epoch; they stay on the device until they are read, many at a time."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._pending: list[Tensor] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, losses: dict[str, Tensor]) -> None:
        """Scalars of one step, detached, by name."""
        self._names = list(losses)
        self._pending.append(torch.stack(list(losses.values())))

    def read(self) -> list[dict[str, float]]:
        """Losses of each step since the last call: one transfer."""
        rows = [dict(zip(self._names, row, strict=True)) for row in torch.stack(self._pending).tolist()]
        self._pending.clear()
        self._count += len(rows)
        for row in rows:
            for name, value in row.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        return rows

    def means(self) -> dict[str, float]:
        return {name: total / self._count for name, total in self._sums.items()}
