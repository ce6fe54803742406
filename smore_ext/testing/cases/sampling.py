"""Cases and errors of sample_negatives and dropout."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.testing.case import Args, OpCase, OpError, rand, randint, random_graph

__all__ = ["dropout_case", "epoch_case", "sample_case", "unordered_case"]


def sample_case(
    users: int, items: int, edges: int, size: int, step: int = 1, first: int = 0, n: int | None = None
) -> OpCase:
    """Candidates are every step-th item; users who have seen them all are left out of the batch."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        seen = random_graph(g, users, items, edges)
        ids, candidates = randint(g, users, size), torch.arange(0, items, step)
        known = torch.bincount(seen.row[seen.col % step == 0], minlength=users)
        return [ids[known[ids] < candidates.shape[0]], seen, candidates, 2**40 + 5, 2**33 + 1, first, n]

    part = "" if (first, n) == (0, None) else f"-from-{first}x{n}"
    return OpCase("sample_negatives", f"{users}x{items}-{size}{part}", make)


def epoch_case(name: str, users: Tensor, seen: Graph, candidates: Tensor) -> OpCase:
    """One negative for each of these users, on a graph of one's own."""
    return OpCase("sample_negatives", name, lambda dtype, g: [users, seen, candidates, 1, 0])


def unordered_case(size: int) -> OpCase:
    """Candidates in no order, some of them more than once."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [randint(g, 9, size), random_graph(g, 9, 30, 40), randint(g, 30, 25), 7, 0, 2**32 - 100]

    return OpCase("sample_negatives", f"unordered-{size}", make)


def dropout_case(*shape: int, p: float = 0.3, by_tensor: bool = False) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, dtype, *shape), p, 2**40 + 7, torch.tensor(2**33 + 3) if by_tensor else 2**33 + 3]

    name = "x".join(map(str, shape)) + f"-{p}" + ("-tensor" if by_tensor else "")
    small = math.prod(shape) <= 20
    return OpCase("dropout", name, make, (0,), small=small, twice=True)


CASES = [
    dropout_case(4, 5, p=0.5),
    dropout_case(3, 0),
    dropout_case(70, 33, by_tensor=True),
    dropout_case(2, 3, 67, p=0.0),
    dropout_case(130, 64, p=0.9),
    sample_case(20, 40, 100, 500, step=2),
    sample_case(5, 12, 70, 3000),
    sample_case(1, 3, 0, 0),
    sample_case(20, 40, 100, 300, first=77, n=3),
    unordered_case(400),
]

SEEN = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))
IDS = torch.tensor([0, 1])

ERRORS = [
    OpError("dropout", "p", lambda: [IDS.float(), 1.0, 1], ValueError, "p must be at least 0 and less than 1, got 1"),
    OpError("dropout", "seed", lambda: [IDS.float(), 0.5, -1], ValueError, "seed must be at least 0, got -1"),
    OpError("dropout", "offset", lambda: [IDS.float(), 0.5, 1, -2], ValueError, "offset must be at least 0, got -2"),
    OpError("dropout", "dtype", lambda: [IDS, 0.5, 1], TypeError, "x must be float32, float64 or bfloat16, got Long"),
    OpError(
        "dropout", "offsets", lambda: [IDS.float(), 0.5, 1, IDS], ValueError, r"offset must have one element, got shape"
    ),
    OpError(
        "sample_negatives",
        "user",
        lambda: [torch.tensor([0, 4]), SEEN, torch.arange(4), 1],
        IndexError,
        "users must be in 0..3, got 4 at position 1",
    ),
    OpError(
        "sample_negatives",
        "full",
        lambda: [torch.tensor([2, 0]), SEEN, torch.tensor([1]), 1],
        ValueError,
        "got user 0 who has seen all 1",
    ),
    OpError(
        "sample_negatives", "none", lambda: [IDS, SEEN, IDS[:0], 1], ValueError, "candidates must hold between 1 and"
    ),
    OpError(
        "sample_negatives",
        "candidate",
        lambda: [IDS, SEEN, -IDS, 1],
        IndexError,
        "candidates must be at least 0, got -1 at position 1",
    ),
    OpError("sample_negatives", "seed", lambda: [IDS, SEEN, IDS, -1], ValueError, "seed must be at least 0, got -1"),
    OpError("sample_negatives", "n", lambda: [IDS, SEEN, IDS, 1, 0, 0, 0], ValueError, "n must be at least 1, got 0"),
    OpError(
        "sample_negatives", "scalar-n", lambda: [IDS[0], SEEN, IDS, 1, 0, 0, 2**31], ValueError, "users must be 1-d"
    ),
    OpError(
        "sample_negatives", "first", lambda: [IDS, SEEN, IDS, 1, 0, -1], ValueError, "minus the number of users, got -1"
    ),
    OpError(
        "sample_negatives",
        "last",
        lambda: [IDS, SEEN, IDS, 1, 0, 2**48 - 1],
        ValueError,
        "first must be in 0..281474976710656 minus the number of users, got 281474976710655",
    ),
    OpError("sample_negatives", "dtype", lambda: [IDS.int(), SEEN, IDS, 1], TypeError, "users must be int64, got Int"),
]
