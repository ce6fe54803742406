"""Cases and errors of bpr_loss and info_nce."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand, randint

__all__ = ["bpr_case", "nce_case"]


def bpr_case(users: int, items: int, d: int, size: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        ids = [randint(g, users, size), randint(g, items, size), randint(g, items, size)]
        return [rand(g, dtype, users, d), rand(g, dtype, items, d), *ids]

    return OpCase("bpr_loss", f"{users}x{items}x{d}-{size}", make, (0, 1), small=size <= 7, autocast="float32")


def nce_case(size: int, d: int, temperature: float) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, dtype, size, d), rand(g, dtype, size, d), temperature]

    return OpCase("info_nce", f"{size}x{d}-{temperature}", make, (0, 1), small=size <= 5, autocast="float32")


CASES = [
    *(bpr_case(*size) for size in ((4, 5, 3, 7), (3, 3, 2, 0), (60, 90, 64, 600), (60, 90, 65, 90))),
    *(nce_case(*size) for size in ((5, 3, 0.2), (2, 2, 0.5), (0, 3, 0.2), (300, 64, 0.2), (65, 63, 0.01))),
    nce_case(130, 100, 1.0),
]

X = torch.arange(24.0).view(4, 6)
IDS = torch.tensor([0, 1])

ERRORS = [
    OpError(
        "bpr_loss",
        "id",
        lambda: [X, X, IDS, IDS, IDS + 3],
        IndexError,
        "negatives must be in 0..3, got 4 at position 1",
    ),
    OpError(
        "bpr_loss",
        "dtype",
        lambda: [X, X, IDS.int(), IDS, IDS],
        TypeError,
        r"users must be int64, got Int: users\.long\(\) is",
    ),
    OpError(
        "bpr_loss",
        "length",
        lambda: [X, X, IDS, IDS[:1], IDS],
        ValueError,
        r"positives must have shape \[2\], got \[1\]",
    ),
    OpError("bpr_loss", "width", lambda: [X, X[:, :5], IDS, IDS, IDS], ValueError, "same width, got 6 and 5"),
    OpError("info_nce", "temperature", lambda: [X, X, 0.0], ValueError, "temperature must be greater than 0, got 0"),
    OpError("info_nce", "shape", lambda: [X, X[:3], 0.2], ValueError, r"y must have shape \[4, 6\], got \[3, 6\]"),
    OpError(
        "info_nce",
        "dtype",
        lambda: [X, X.double(), 0.2],
        TypeError,
        r"y must have the dtype of x \(Float\), got Double",
    ),
]
