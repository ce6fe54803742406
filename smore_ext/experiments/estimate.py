"""What a run will take, before it is begun: memory, time of a step and of an epoch, size of a checkpoint.

Nobody has counted what every model allocates, least of all those of other packages. So the run itself is made, of the
same settings, on random data of the same proportions but smaller: a sixteenth, an eighth, and so on, while time and
memory last. Each is a process of three epochs with evaluation and checkpoints, of which the fastest after the first
counts. What it took is fitted by a + b x of the share x, or where that does not do by a + b x + c x^2, none negative
(work is linear in users, items and interactions, or quadratic in items), and read off at 1.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smore_ext import runs
from smore_ext.data import Dataset, Pairs
from smore_ext.experiments.jobs import Job, available_memory, run_jobs
from smore_ext.experiments.measured import peak_bytes, telling
from smore_ext.settings.config import RunConfig, without_places

FIRST, EPOCHS = 1 / 16, 3
SECONDS = 60.0  # that measuring may take
LEAST = 64  # users and items of the smallest run
NOISE = 0.03  # by which a line may miss what was measured


@dataclass(frozen=True)
class Counts:
    """What of a data set decides how long a run takes.

    Attributes:
        users, items: how many.
        train, valid, test: interactions of each split.
        widths: of the features that the model reads, by modality.
    """

    users: int
    items: int
    train: int
    valid: int
    test: int
    widths: dict[str, int]

    @classmethod
    def of(cls, data: Dataset) -> Counts:
        splits = (len(data.train.users), len(data.valid.users), len(data.test.users))
        return cls(data.n_users, data.n_items, *splits, {name: t.shape[1] for name, t in data.features.items()})


@dataclass(frozen=True)
class Point:
    """What a run of a share of the data took."""

    share: float
    memory: float
    step: float
    evaluation: float
    checkpoint: float


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        memory: bytes at the peak, of the process, on a GPU of the device.
        step: seconds of a training step; steps: of an epoch.
        evaluation: seconds of one.
        checkpoint: bytes of the larger one.
        points: what was measured.
    """

    memory: float
    step: float
    steps: int
    evaluation: float
    checkpoint: float
    points: tuple[Point, ...]

    @property
    def epoch(self) -> float:
        """Seconds of an epoch with its evaluation."""
        return self.step * self.steps + self.evaluation


def estimate(
    counts: Counts,
    config: RunConfig,
    seconds: float = SECONDS,
    largest: float = 1.0,
    reading: float = 0.0,
    tell: Callable[[Point], None] = lambda _: None,
) -> Estimate:
    """Measures runs of up to a share `largest` of the data, for about `seconds`, and says what the whole would take.

    `reading`: bytes at the peak of a process that has read the data, which a run needs too.

    Raises `ValueError` for what the smallest run raises.
    """
    begin, points, share = time.perf_counter(), list[Point](), min(largest, _first(counts))
    while True:
        before = time.perf_counter()
        try:
            points.append(_measured(counts, config, share))
        except ValueError:
            if not points:
                raise
            break  # memory ends where the smaller ones said that it would
        tell(points[-1])
        took = time.perf_counter() - before
        free = available_memory()
        if share >= largest or time.perf_counter() - begin + 2.5 * took > seconds:
            break
        if free is not None and 2.5 * points[-1].memory > free:
            break
        share = min(largest, 2 * share)
    memory, step, evaluation, checkpoint = (
        _at_one([(point.share, getattr(point, name)) for point in points], powers)
        for name, powers in (("memory", 2), ("step", 1), ("evaluation", 2), ("checkpoint", 1))
    )
    steps = max(1, math.ceil(counts.train / config.train.batch_size))
    return Estimate(max(memory, reading), step, steps, evaluation, checkpoint, tuple(points))


def _first(counts: Counts) -> float:
    """The smallest share that leaves enough users and items to be a data set."""
    return min(1.0, max(FIRST, LEAST / min(counts.users, counts.items)))


def _at_one(points: Sequence[tuple[float, float]], powers: int) -> float:
    """The fitted value at the whole; relative errors count alike, and larger shares more. The square is used only where
    a line is off by more than noise: read off far away, a little of it is much."""
    from scipy.optimize import nnls

    if points[-1][0] >= 1:
        return points[-1][1]
    if len(points) == 1:  # of a large set: what does not grow with it is little beside
        return points[0][1] / points[0][0]
    share, value = np.array(points).T
    value = np.maximum(value, 1e-12)
    weight = share / share.max() / value
    for power in range(1, powers + 1):
        terms = np.stack([share**n for n in range(power + 1)], axis=1)
        fitted, _ = nnls(weight[:, None] * terms, weight * value)
        if np.abs(terms @ fitted / value - 1).max() <= NOISE:
            break
    return float(fitted.sum())


def _measured(counts: Counts, config: RunConfig, share: float) -> Point:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "point.json"
        arguments = (config.to_dict(), counts, share, Path(place) / "run", file)
        for _, wrong in run_jobs([Job(share, run_share, arguments)], 1, lambda _: 0, lambda: None, alone=True):
            if wrong is not None:
                raise ValueError(f"a run of {share:.1%} of the data: {wrong}")
        return Point(**json.loads(file.read_text()))


def run_share(
    config: Mapping[str, Any], counts: Counts, share: float, folder: Path, file: Path, told: Connection
) -> None:
    """The target of the process."""
    with telling(told):
        settings = RunConfig.from_dict(config)
        if settings.train.data_path is not None and settings.train.table_cache is None:
            import pandas  # noqa: F401  what parses tables stays in memory
        data = random_data(counts, share, settings.train.dataset)
        file.write_text(json.dumps(dataclasses.asdict(run_point(settings, data, folder, share))))


def run_point(settings: RunConfig, data: Dataset, folder: Path, share: float) -> Point:
    """What a short run takes, in this process."""
    changed = settings.replace(epochs=EPOCHS, output_dir=None, seeds=(), checkpoint_seconds=0)
    runs.train(without_places(changed), data, folder)
    written = runs.RunFolder(folder)
    epochs = [json.loads(line)["seconds"] for line in written.metrics.read_text().splitlines()]
    later = epochs[1:] or epochs  # the first one warms up; a closed form has one
    steps = len(data.train.users) / changed.train.batch_size  # whole ones, and a part of the last
    return Point(
        share,
        peak_bytes(changed.train.device),
        min(epoch["training"] for epoch in later) / steps,
        min(epoch["evaluating"] for epoch in later),
        max(path.stat().st_size for path in (written.last, written.best) if path.exists()),
    )


def random_data(counts: Counts, share: float, name: str = "random") -> Dataset:
    """Random interactions and features of a share of the counts; a few items have most of the interactions."""
    generator = torch.Generator().manual_seed(0)
    users, items = (max(2, round(share * count)) for count in (counts.users, counts.items))
    sizes = [max(1, round(share * count)) for count in (counts.train, counts.valid, counts.test)]
    popular = 1 / (torch.arange(items, dtype=torch.float64) + 10) ** 0.8
    wanted = min(sum(sizes), users * items)
    code = torch.empty(0, dtype=torch.int64)
    while len(code) < wanted:  # each pair once
        user = torch.randint(users, (wanted,), generator=generator)
        item = torch.multinomial(popular, wanted, replacement=True, generator=generator)
        popular = popular.sqrt()  # in a dense set the popular ones are soon used up
        code = torch.unique(torch.cat([code, user * items + item]))
    code = code[torch.randperm(len(code), generator=generator)[:wanted]]
    train, valid, test = (Pairs(part // items, part % items) for part in code.split(_within(sizes, wanted)))
    features = {m: torch.randn(items, width, generator=generator) for m, width in counts.widths.items()}
    return Dataset.from_pairs(name, users, items, train, valid, test, features=features)


def _within(sizes: Sequence[int], total: int) -> list[int]:
    """Sizes that add up to the total, the first giving way."""
    return [total - sum(sizes[1:]), *sizes[1:]]
