"""Negative samplers by name: what a model's `sampler` asks for.

A sampler is made with (dataset, device, seed, n) and called with (users, epoch) once an epoch. What it draws depends on
seed, epoch and position alone, and is never one of the user's train items. Others come by an entry point of the group
`smore_ext.samplers`, or as `package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.data import Dataset
from smore_ext.registry import Registry

POPULARITY_EXPONENT = 0.75  # as for the negatives of word2vec (Mikolov et al., 2013)
ROUNDS = 16  # draws for a position before its user's unseen items are listed
BLOCK_WEIGHTS = 1 << 22  # user x item weights held at once


class Sampler(Protocol):
    """What draws negatives; see the module's docstring."""

    def __call__(self, users: Tensor, epoch: int) -> Tensor | None:
        """Negatives of the positions `users` [E] int64: [E] int64, or [E, n] for n > 1; None for no negatives."""
        ...


class NoSampler:
    """For losses without negatives."""

    def __init__(self, dataset: Dataset, device: torch.device, seed: int, n: int) -> None:
        pass

    def __call__(self, users: Tensor, epoch: int) -> None:
        return None


class UniformSampler:
    """Each of the items that occur in train and that the user has not seen is as likely (`ops.sample_negatives`)."""

    def __init__(self, dataset: Dataset, device: torch.device, seed: int, n: int) -> None:
        self.seen, self.candidates = dataset.seen.to(device), dataset.candidates.to(device)
        self.seed, self.n = seed, n

    def __call__(self, users: Tensor, epoch: int) -> Tensor:
        n = None if self.n == 1 else self.n
        return ops.sample_negatives(users, self.seen, self.candidates, seed=self.seed, offset=epoch, n=n)


class PopularitySampler:
    """An item that the user has not seen is as likely as its number of train interactions to the power 0.75.

    Drawn on the CPU: the same on any device. Positions whose item the user has seen are drawn again; after `ROUNDS`
    draws the remaining ones are drawn from the user's unseen items, so no user is too active.
    """

    def __init__(self, dataset: Dataset, device: torch.device, seed: int, n: int) -> None:
        self.device, self.seed, self.n = device, seed, n
        self.seen, self.candidates, self.n_items = dataset.seen, dataset.candidates, dataset.n_items
        counts = torch.bincount(dataset.train.items, minlength=dataset.n_items)[self.candidates]
        self.weight = counts.double() ** POPULARITY_EXPONENT  # [C]
        # Ascending: a graph's columns ascend within its rows.
        self.known = self.seen.row.long() * self.n_items + self.seen.col.long()

    def __call__(self, users: Tensor, epoch: int) -> Tensor:
        """Raises `ValueError` for a user who has seen every item."""
        generator = torch.Generator().manual_seed(stream_seed(self.seed, epoch, stream=2))
        positions = users.cpu().repeat_interleave(self.n)
        drawn = torch.empty_like(positions)
        left = torch.arange(len(positions))
        bounds = self.weight.cumsum(0)
        for _ in range(ROUNDS):
            drawn[left] = self.candidates[_draw(bounds, len(left), generator)]
            left = left[self._has_seen(positions[left], drawn[left])]
            if not len(left):
                break
        for block in left.split(max(1, BLOCK_WEIGHTS // len(self.candidates))):
            drawn[block] = self._among_unseen(positions[block], generator)
        drawn = drawn.to(self.device)
        return drawn if self.n == 1 else drawn.view(-1, self.n)

    def _has_seen(self, users: Tensor, items: Tensor) -> Tensor:
        wanted = users * self.n_items + items
        place = torch.searchsorted(self.known, wanted).clamp_(max=len(self.known) - 1)
        return self.known[place] == wanted

    def _among_unseen(self, users: Tensor, generator: torch.Generator) -> Tensor:
        """One item for each of `users` [b], from the weights of what it has not seen."""
        rows = self.seen.rows(users)
        weight = self.weight.repeat(len(users), 1)  # [b, C]
        weight[rows.row.long(), torch.searchsorted(self.candidates, rows.col.long())] = 0
        if not bool((total := weight.sum(1)).all()):
            user = int(users[(total == 0).nonzero()[0, 0]])
            raise ValueError(f"popularity sampler: user {user} has seen every item that occurs in train")
        return self.candidates[_draw(weight.cumsum(1), 1, generator)[:, 0]]


def _draw(bounds: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` draws from 0..C-1 for each row of cumulated weights, [..., C] to [..., count]; never one of weight 0."""
    total = bounds[..., -1:]
    target = torch.rand(*bounds.shape[:-1], count, generator=generator, dtype=torch.float64) * total
    below = torch.nextafter(total, torch.zeros_like(total))  # the product may round up to the total
    return torch.searchsorted(bounds, target.minimum(below), right=True)


def stream_seed(seed: int, epoch: int, stream: int = 0) -> int:
    """Seed of an epoch's stream of random numbers: 32 mixed bits, since torch's CPU generator looks at no more.

    Streams: 0 the order of the batches, 1 the model's `begin_epoch`, 2 samplers.
    """
    entropy = [seed, epoch, stream] if stream else [seed, epoch]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _wrong(loaded: Any) -> str | None:
    return None if callable(loaded) else f"must be a class made with (dataset, device, seed, n), got {loaded!r}"


Maker: TypeAlias = Callable[[Dataset, torch.device, int, int], Sampler]

SAMPLERS: Registry[Maker] = Registry(
    "sampler",
    "smore_ext.samplers",
    {"uniform": UniformSampler, "popularity": PopularitySampler, "none": NoSampler},
    _wrong,
)


def make_sampler(name: str, dataset: Dataset, device: torch.device, seed: int, n: int) -> Sampler:
    """The sampler of that name for `n` negatives a positive. Raises `UnknownName`, and `ValueError` for n below 1."""
    if n < 1:
        raise ValueError(f"n_negatives must be at least 1, got {n}")
    return SAMPLERS[name](dataset, device, seed, n)
