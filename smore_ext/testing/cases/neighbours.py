"""Cases and errors of knn."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand

__all__ = ["knn_case"]


def knn_case(n: int, d: int, k: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, torch.float32, n, d).to(dtype), k]  # rounded, so that float64 has the same ties

    return OpCase("knn", f"{n}x{d}-{k}", make, autocast="float32")


CASES = [knn_case(*size) for size in ((1, 3, 1), (6, 2, 6), (4, 0, 2), (50, 7, 10), (700, 40, 10), (1300, 20, 40))]

X = torch.arange(24.0).view(4, 6)

ERRORS = [
    OpError("knn", "k", lambda: [X, 5], ValueError, r"k must be in 1..4 \(the number of rows\), got 5"),
    OpError("knn", "zero", lambda: [X, 0], ValueError, "k must be in 1..4"),
    OpError("knn", "nan", lambda: [torch.tensor([[1.0], [float("nan")]]), 1], ValueError, "squared norm of row 1"),
    OpError("knn", "inf", lambda: [torch.tensor([[float("inf")], [1.0]]), 1], ValueError, "squared norm of row 0"),
    OpError("knn", "dtype", lambda: [X.long(), 1], TypeError, "features must be float32 or float64, got Long"),
]
