"""One run of a comparison in a process of its own: trained or gone on with, and what was measured of it kept in a file.

A process of its own has a peak of memory of its own, and can be side by side with others.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smore_ext import runs
from smore_ext.settings.config import RunConfig
from smore_ext.signals import terminated_as_interrupt
from smore_ext.training.device import deterministic
from smore_ext.training.files import replacing
from smore_ext.training.loop import make_evaluator


@dataclass(frozen=True)
class Measured:
    """What a run left for the comparison.

    Attributes:
        users: [V] int64, the users with test items.
        values: test metrics of each, [V]; of a metric that has one value for all lists, a scalar.
        memory: peak bytes of the process, on a GPU of the device; 0 where the run was trained by another process.
    """

    users: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    memory: int


ERRORS = (ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError, MemoryError)  # of a run


def run_measured(
    config: Mapping[str, Any], sources: tuple[str, ...], folder: Path, file: Path, told: Connection
) -> None:
    """The target of the process."""
    with telling(told):
        settings = RunConfig.from_dict(config)
        _measure(RunConfig(settings.train, settings.model, sources), folder, file)


@contextmanager
def telling(told: Connection) -> Iterator[None]:
    """Tells how the target of a `Job` ended: None when it is done, else what went wrong in one line."""
    try:
        with terminated_as_interrupt(once=True):
            yield
        told.send(None)
    except KeyboardInterrupt:  # Ctrl-C reaches all processes of a terminal; the one that waits says what is kept
        told.send("interrupted")
    except ERRORS as error:
        told.send(" ".join((str(error) or type(error).__name__).split()))


def _measure(config: RunConfig, folder: Path, file: Path) -> None:
    dataset = runs.open_dataset(config)
    trained_here = runs.finished(folder, config) is None
    runs.train(config, dataset, folder, resume=True)
    memory = peak_bytes(config.train.device) if trained_here else 0
    run = runs.load_run(folder, dataset=dataset, device=config.train.device)
    evaluator = make_evaluator(config.train, dataset, config.train.protocol)
    with runs.cpu_threads(config.train.threads), deterministic():
        users, values = evaluator.of_users(run.model, "test")
    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in values.items()}
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, _users=users.cpu().numpy(), _memory=np.int64(memory), **arrays)


def read_measured(file: Path) -> Measured:
    with np.load(file, allow_pickle=False) as stored:
        values = {name: stored[name] for name in stored.files if not name.startswith("_")}
        return Measured(stored["_users"], values, int(stored["_memory"]))


def peak_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
