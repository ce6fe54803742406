"""Arguments that make no sense, from those of a valid call."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.testing.case import Args

NUMBERS = (-1, 0, 1, 2, 5, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf"))
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64)
DTYPES = (*FLOATING, torch.int32, torch.int64, torch.bool, torch.uint8)
OTHERS: tuple[Any, ...] = (None, "x", [], [1.0], 1, 2.5, True, (), {})


def _longer(rng: random.Random, t: Tensor) -> Tensor:
    dim = rng.randrange(t.ndim) if t.ndim else None
    return torch.cat([t, t.narrow(dim, 0, min(1, t.shape[dim]))], dim) if dim is not None else t[None]


def _shorter(rng: random.Random, t: Tensor) -> Tensor:
    dim = rng.randrange(t.ndim) if t.ndim else None
    return t.narrow(dim, 0, max(t.shape[dim] - 1, 0)) if dim is not None else t[None]


def _entries(rng: random.Random, t: Tensor) -> Tensor:
    """Some entries are others."""
    t = t.clone()
    for _ in range(rng.randint(1, 3) if t.numel() else 0):
        if t.is_floating_point():
            t.view(-1)[rng.randrange(t.numel())] = rng.choice(FLOATS)
        elif t.dtype in (torch.int32, torch.int64):
            limits = torch.iinfo(t.dtype)
            near = (-1, 0, 1, t.numel(), t.numel() + 1, int(t.max()) + 1, int(t.min()) - 1, limits.max, limits.min)
            value = min(max(rng.choice(near), limits.min), limits.max)
            t.view(-1)[rng.randrange(t.numel())] = value
    return t


def _sparse(rng: random.Random, t: Tensor) -> Tensor:
    return t.to_sparse() if t.ndim else t


TENSORS: dict[str, Callable[[random.Random, Tensor], Any]] = {
    "another dtype": lambda rng, t: t.to(rng.choice(DTYPES)),
    "on meta": lambda rng, t: t.to("meta"),
    "a dimension more": lambda rng, t: t[None],
    "a dimension less": lambda rng, t: t[0] if t.ndim and t.shape[0] else t.reshape(-1),
    "longer": _longer,
    "shorter": _shorter,
    "empty": lambda rng, t: t.new_empty([0] * t.ndim),
    "a scalar": lambda rng, t: t.new_zeros(()),
    "transposed": lambda rng, t: t.transpose(0, -1) if t.ndim > 1 else t,
    "other entries": _entries,
    "no values": lambda rng, t: t.new_empty(t.shape).fill_(float("nan")) if t.is_floating_point() else t - 1,
    "sparse": _sparse,
    "no tensor": lambda rng, t: rng.choice(OTHERS),
    "a list": lambda rng, t: [t],
    "negated": lambda rng, t: torch._neg_view(t) if t.is_floating_point() else -t,
    "zero tensor": lambda rng, t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
}


def _spoil(rng: random.Random, value: Any, others: list[Tensor]) -> tuple[Any, str]:
    if isinstance(value, list | tuple) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        part, what = _spoil(rng, value[at], others)
        return [*value[:at], part, *value[at + 1 :]], f"[{at}] {what}"
    if isinstance(value, Tensor):
        if others and rng.random() < 0.1:
            return rng.choice(others), "another argument"
        what = rng.choice(sorted(TENSORS))
        try:
            return TENSORS[what](rng, value), what
        except (RuntimeError, NotImplementedError):  # torch itself does not do it
            return None, "none"
    if isinstance(value, bool):
        return rng.choice((not value, None, 7)), "another flag"
    if isinstance(value, int):
        return rng.choice(NUMBERS), "another number"
    if isinstance(value, float):
        return rng.choice(FLOATS), "another number"
    if isinstance(value, Graph):
        if rng.random() < 0.3:
            return value.to("meta"), "on meta"
        return rng.choice((value.t, value.to_sparse("coo"), value.weight, None, "graph")), "another graph"
    return rng.choice(OTHERS), "another value"


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, list | tuple) else []


def spoiled(rng: random.Random, args: Args) -> tuple[Args, str]:
    """With one or two arguments changed, and what was done."""
    args, done = list(args), []
    for _ in range(rng.choice((1, 1, 1, 2))):
        at = rng.randrange(len(args))
        args[at], what = _spoil(rng, args[at], _tensors(args))
        done.append(f"argument {at}: {what}")
    return args, ", ".join(done)
