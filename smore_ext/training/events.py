"""What the training loop tells its listeners: it knows no terminal and no log file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunStarted:
    """The model stands and the first epoch is about to begin; on resume `first_epoch` is above 0."""

    run_dir: Path
    config: dict[str, Any]
    sources: tuple[str, ...]
    dataset: str
    protocol: str
    n_parameters: int
    first_epoch: int
    epochs: int
    n_steps: int


@dataclass(frozen=True)
class StepsDone:
    """Progress within an epoch: `step` of `n_steps` done, `loss` the newest step's loss and its parts."""

    epoch: int
    step: int
    n_steps: int
    loss: dict[str, float]
    interactions_per_second: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch and its validation are done. `record` is its line in the log."""

    record: dict[str, Any]


@dataclass(frozen=True)
class Warned:
    """Something that the reader of the results should know; it is in the `warnings` of the result too."""

    message: str


@dataclass(frozen=True)
class RunFinished:
    """`result` is what describes the whole run."""

    run_dir: Path
    result: dict[str, Any]


Event = RunStarted | StepsDone | EpochDone | Warned | RunFinished
Listener = Callable[[Event], None]
