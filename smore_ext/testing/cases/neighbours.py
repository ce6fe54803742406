"""Cases and errors of knn and cosine_at."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand, randint

__all__ = ["cosine_case", "knn_case"]


def knn_case(n: int, d: int, k: int, queries: int | None = None, exclude_self: bool = False) -> OpCase:
    """queries: so many rows are looked up in the n of a base."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        rows = rand(g, torch.float32, n, d).to(dtype)  # rounded, so that float64 has the same ties
        if queries is not None:
            return [rand(g, torch.float32, queries, d).to(dtype), k, rows]
        return [rows, k, None, True] if exclude_self else [rows, k]

    name = f"{n}x{d}-{k}{'-others' if exclude_self else ''}{f'-{queries}-queries' if queries is not None else ''}"
    return OpCase("knn", name, make, autocast="float32")


def cosine_case(n: int, d: int, k: int, base: int | None = None) -> OpCase:
    """base: rows of a second table. A few rows are named much more often than others, and some name themselves."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        limit = n if base is None else base
        index = randint(g, max(limit, 1), n, k)
        index[:, : k // 3] %= max(limit // 8, 1)
        return [rand(g, dtype, n, d), index, *([] if base is None else [rand(g, dtype, base, d)])]

    name = f"{n}x{d}-{k}{f'-of-{base}' if base is not None else ''}"
    differentiable = (0,) if base is None else (0, 2)
    return OpCase("cosine_at", name, make, differentiable, small=n * k <= 20, autocast="float32")


CASES = [
    *(knn_case(*size) for size in ((1, 3, 1), (6, 2, 6), (4, 0, 2), (50, 7, 10), (700, 40, 10), (1300, 20, 40))),
    *(knn_case(*size, exclude_self=True) for size in ((2, 3, 1), (6, 2, 5), (4, 0, 2), (700, 40, 10))),
    *(knn_case(*size) for size in ((5, 3, 2, 0), (1, 2, 1, 3), (4, 0, 3, 2), (700, 40, 10, 90), (90, 20, 40, 1300))),
    *(cosine_case(*size) for size in ((5, 3, 4), (4, 1, 2, 3), (0, 3, 2), (3, 0, 2), (4, 3, 0), (6, 9, 3, 2))),
    *(cosine_case(*size) for size in ((300, 64, 10), (150, 100, 7), (70, 13, 30, 200), (400, 64, 6, 20))),
]

X = torch.arange(24.0).view(4, 6)
IDS = torch.tensor([[0], [1]])
NAN = torch.tensor([[1.0], [float("nan")]])

ERRORS = [
    OpError("knn", "k", lambda: [X, 5], ValueError, r"k must be in 1..4 \(the number of rows\), got 5"),
    OpError("knn", "zero", lambda: [X, 0], ValueError, "k must be in 1..4"),
    OpError("knn", "nan", lambda: [NAN, 1], ValueError, "features must be finite .* squared norm of row 1"),
    OpError("knn", "inf", lambda: [torch.tensor([[float("inf")], [1.0]]), 1], ValueError, "squared norm of row 0"),
    OpError("knn", "dtype", lambda: [X.long(), 1], TypeError, "features must be float32 or float64, got Long"),
    OpError("knn", "others", lambda: [X, 4, None, True], ValueError, r"1..3 \(the number of other rows\), got 4"),
    OpError("knn", "base-k", lambda: [X, X[:3], 4], ValueError, r"1..3 \(the number of rows of base\), got 4"),
    OpError("knn", "base-empty", lambda: [X[:0], X[:0], 1], ValueError, r"1..0 \(the number of rows of base\), got 1"),
    OpError("knn", "base-width", lambda: [X, X[:, :5], 1], ValueError, r"base must have the width of .* \(6\), got 5"),
    OpError("knn", "base-dtype", lambda: [X, X.double(), 1], TypeError, r"the dtype of features \(Float\), got Double"),
    OpError("knn", "base-self", lambda: [X, 1, X, True], ValueError, "exclude_self must be false where a base is"),
    OpError("knn", "base-nan", lambda: [NAN[:1], NAN, 1], ValueError, "base must be finite .* squared norm of row 1"),
    OpError(
        "cosine_at",
        "id",
        lambda: [X, torch.tensor([[0], [1], [2], [4]])],
        IndexError,
        "index must be in 0..3, got 4 at position 3",
    ),
    OpError("cosine_at", "negative", lambda: [X[:2], IDS - 1], IndexError, "in 0..1, got -1 at position 0"),
    OpError("cosine_at", "base-id", lambda: [X[:2], IDS, X[:1]], IndexError, "in 0..0, got 1 at position 1"),
    OpError("cosine_at", "rows", lambda: [X, IDS], ValueError, r"one row per row of features \(4\), got 2"),
    OpError("cosine_at", "dim", lambda: [X[:2], IDS[:, 0]], ValueError, "index must have 2 dimensions, got shape"),
    OpError("cosine_at", "int", lambda: [X[:2], IDS.int()], TypeError, "index must be int64, got Int"),
    OpError(
        "cosine_at", "half", lambda: [X[:2].half(), IDS], TypeError, r"or float64, got Half: features\.float\(\) is"
    ),
    OpError("cosine_at", "width", lambda: [X[:2], IDS, X[:, :5]], ValueError, r"width of features \(6\), got 5"),
    OpError("cosine_at", "base-dtype", lambda: [X[:2], IDS, X.double()], TypeError, "the dtype of features"),
]
