"""What a run carries from step to step and from epoch to epoch besides tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

EARLY_STEPS = (200, 300)  # the losses of the steps after the first, up to the second, are what a model is told of


@dataclass
class Progress:
    """What the loop carries from epoch to epoch besides tensors; JSON in the checkpoint's metadata."""

    next_epoch: Annotated[int, Ge(0)] = 0
    steps: Annotated[int, Ge(0)] = 0
    best_epoch: Annotated[int, Ge(-1)] = -1
    best_value: float = -1.0
    bad_epochs: Annotated[int, Ge(0)] = 0
    validation: dict[str, float] = field(default_factory=dict)  # of the best epoch
    seconds_training: float = 0.0
    seconds_evaluating: float = 0.0
    seconds_writing: float = 0.0  # that training waited for checkpoints
    seconds_starting: float = 0.0  # before the first epoch, of each process
    early: dict[str, float] = field(default_factory=dict)  # sums of the loss and its parts over the early steps
    warnings: list[str] = field(default_factory=list)

    @staticmethod
    def of_any_version(values: Mapping[str, Any]) -> dict[str, Any]:
        """Fields by name, from what a checkpoint's metadata hold; earlier versions kept the BPR term alone."""
        values = dict(values)
        if "early_bpr" in values:
            values["early"] = {"bpr": values.pop("early_bpr")}
        return values

    def observe(self, epoch: int, metrics: dict[str, float], key: str) -> bool:
        """Early stopping: rounded to 4 decimals, strictly greater. True for a new best epoch."""
        value = round(metrics[key], 4)
        if not (value > self.best_value if self.best_epoch >= 0 else value == value):  # NaN is no best epoch
            self.bad_epochs += 1
            return False
        self.best_value, self.best_epoch, self.bad_epochs = value, epoch, 0
        self.validation = metrics
        return True

    def early_means(self, losses: dict[str, float]) -> dict[str, float] | None:
        """Counts a step with these losses; after the last early one, the means over them."""
        self.steps += 1
        first, last = EARLY_STEPS
        if not first < self.steps <= last:
            return None
        for name, value in losses.items():
            self.early[name] = self.early.get(name, 0.0) + value
        return {name: total / (last - first) for name, total in self.early.items()} if self.steps == last else None


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
