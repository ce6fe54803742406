"""What is measured of a trained model beside its quality.

A probe is a function of a `Trained` that returns figures and arrays by name; a cell names it as module:function. Where
the truth is needed, as for a ratio of signal to noise, it is that of the built-in data set.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smore_ext.data import Dataset, SyntheticTruth
from smore_ext.data.rows import mean_cosine
from smore_ext.evaluation.protocol import rows_of
from smore_ext.evaluation.ranking import Ranker, evaluating
from smore_ext.models import Batch, Recommender
from smore_ext.settings.config import RunConfig

Figures = dict[str, float | NDArray[Any]]
STEPS = 12  # that are timed


@dataclass(frozen=True)
class Trained:
    """A model with the weights of its best epoch, and what it was trained on."""

    model: Recommender
    dataset: Dataset
    truth: SyntheticTruth | None
    config: RunConfig


def signal_to_noise(first: Tensor, second: Tensor) -> float:
    """Ratio of signal to noise in dB of what a row-wise map makes of two measurements, [I, d] each.

    Both have the same signal and noise of their own, so half the mean square of their difference is noise, and what
    they vary together over items beyond that is signal (the intraclass correlation of test and retest).
    """
    first, second = first.double(), second.double()
    noise = 0.5 * float((first - second).square().sum())
    both = 0.5 * float(sum((x - x.mean(dim=0)).square().sum() for x in (first, second)))
    return 10.0 * float(np.log10(max(both - noise, 1e-30) / max(noise, 1e-30)))


def first_batch(trained: Trained) -> Batch:
    """As many pairs as a step has, each with the next one's item as its negative."""
    size = min(trained.config.train.batch_size, len(trained.dataset.train.users))
    users, items = (column[:size] for column in trained.dataset.train)
    return Batch(users, items, items.roll(1))


def seconds_of_step(model: Recommender, batch: Batch) -> float:
    """Of a training step without its optimizer."""
    begin = time.perf_counter()
    model.loss(batch).backward()
    taken = time.perf_counter() - begin
    model.zero_grad()
    return taken


def step_of(trained: Trained) -> Figures:
    """Median seconds of a training step without its optimizer, and bytes that its forward pass keeps for backward."""
    model, batch = trained.model.train(), first_batch(trained)
    kept: dict[tuple[int, int], int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(batch)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seconds = [seconds_of_step(model, batch) for _ in range(STEPS)]
    own = sum(bytes_ for (place, _), bytes_ in kept.items() if place not in weights)
    return {"step_seconds": statistics.median(seconds), "step_bytes": float(own)}


def cosines(trained: Trained) -> Figures:
    """Over-smoothing: the mean cosine of pairs of users, and of items, by their final embeddings."""
    with evaluating(trained.model):
        tables = trained.model.embeddings()
    return {f"cosine_{name}": mean_cosine(table) for name, table in zip(("users", "items"), tables, strict=True)}


def lists_of(model: Recommender, dataset: Dataset, k: int = 20) -> tuple[Tensor, Tensor]:
    """Users with test items [V] and the k unseen items that the model ranks first for each, [V, k]."""
    users = torch.unique(dataset.test.users)
    seen = rows_of(users, [dataset.train], dataset.n_items)
    return users, Ranker(model).topk(users, min(k, dataset.n_items), seen)[1]
