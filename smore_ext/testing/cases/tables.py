"""Cases and errors of table_linear, factored_adam_ and gather_rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smore_ext.testing.case import Args, OpCase, OpError, rand, randint

__all__ = ["adam_case", "gather_case", "table_case"]


def table_case(n: int, width: int, d: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, dtype, n, width), rand(g, dtype, d, width), rand(g, dtype, d)]

    small = n * width <= 20
    return OpCase("table_linear", f"{n}x{width}-{d}", make, (0, 1, 2), small=small, autocast="float32")


def adam_case(n: int, width: int, d: int, step: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        param, average = rand(g, dtype, n, width), rand(g, dtype, n, width)
        square = rand(g, dtype, n, width).square() if step > 1 else torch.zeros(n, width, dtype=dtype)
        factors = [rand(g, dtype, n, d), rand(g, dtype, d, width)]
        return [param, average if step > 1 else average * 0, square, *factors, torch.tensor(float(step)), 1e-2]

    return OpCase("factored_adam_", f"{n}x{width}-{d}-{step}", make, in_place=3)


def gather_case(n: int, size: int, *widths: int, popular: int = 0) -> OpCase:
    """Rows of one table, or of several; the first `popular` places name one row."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        index = randint(g, n, size)
        index[:popular] = n // 2
        tables = [rand(g, dtype, n, width) for width in widths]
        return [tables[0] if len(tables) == 1 else tables, index]

    small = n * sum(widths) <= 20
    return OpCase("gather_rows", f"{n}x{'x'.join(map(str, widths))}-{size}", make, (0,), small=small, twice=True)


CASES = [
    *(gather_case(*size) for size in ((3, 5, 4), (4, 0, 3), (5, 7, 0, 2), (70, 300, 64, 33, 1), (2100, 700, 130))),
    gather_case(60, 700, 64, popular=300),
    *(adam_case(*size) for size in ((0, 3, 2, 1), (5, 0, 2, 1), (3, 5, 0, 4), (1, 1, 1, 1), (19, 45, 7, 3))),
    *(table_case(*size) for size in ((0, 3, 2), (5, 0, 2), (4, 5, 3), (19, 45, 7), (290, 1100, 64), (40, 300, 65))),
    adam_case(70, 130, 64, 1),
    adam_case(41, 4100, 300, 1000),
]

X = torch.arange(24.0).view(4, 6)


def _adam(
    param: Tensor = X, rows: Tensor = X[:, :2] + 1, factor: Tensor = X[:2] + 1, step: float = 1.0, lr: Any = 0.1
) -> Args:
    return [param, torch.zeros(param.shape), torch.zeros(param.shape), rows, factor, torch.tensor(step), lr]


ERRORS = [
    OpError(
        "gather_rows",
        "index",
        lambda: [X, torch.tensor([0, 4])],
        IndexError,
        "index must be in 0..3, got 4 at position 1",
    ),
    OpError(
        "gather_rows", "below", lambda: [X, torch.tensor([-1])], IndexError, "index must be in 0..3, got -1 at pos"
    ),
    OpError("gather_rows", "ids", lambda: [X, X[0]], TypeError, "index must be int64, got Float"),
    OpError("gather_rows", "none", lambda: [[], torch.tensor([0])], ValueError, "tables must hold at least one tensor"),
    OpError(
        "gather_rows", "rows", lambda: [[X, X[:3]], torch.tensor([0])], ValueError, "tables must have 4 rows, got 3"
    ),
    OpError(
        "gather_rows",
        "mixed",
        lambda: [[X, X.double()], torch.tensor([0])],
        TypeError,
        "must have the dtype of the fir",
    ),
    OpError(
        "gather_rows", "dtype", lambda: [X.long(), torch.tensor([0])], TypeError, "must be float32, float64 or bfloat16"
    ),
    OpError(
        "gather_rows", "shape", lambda: [X[0], torch.tensor([0])], ValueError, "tables must have 2 dimensions, got"
    ),
    OpError(
        "table_linear",
        "weight",
        lambda: [X, X[:, :5], X[:, 0]],
        ValueError,
        r"weight must have shape \[4, 6\], got \[4, 5\]",
    ),
    OpError("table_linear", "bias", lambda: [X, X, X[0]], ValueError, r"bias must have shape \[4\], got \[6\]"),
    OpError("table_linear", "none", lambda: [X, X[:0], X[:0, 0]], ValueError, "weight must have at least 1 row"),
    OpError(
        "table_linear", "mixed", lambda: [X, X.double(), X[:, 0]], TypeError, "weight must have the dtype of table"
    ),
    OpError(
        "factored_adam_",
        "layout",
        lambda: _adam(X.T.contiguous().T),
        ValueError,
        "param must be contiguous .*, got strides",
    ),
    OpError(
        "factored_adam_", "dtype", lambda: _adam(X.half()), TypeError, "param must be float32 or float64, got Half"
    ),
    OpError(
        "factored_adam_",
        "rows",
        lambda: _adam(rows=X[:3]),
        ValueError,
        r"grad_rows must have shape \[4, 6\], got \[3, 6\]",
    ),
    OpError(
        "factored_adam_",
        "factor",
        lambda: _adam(factor=X),
        ValueError,
        r"factor must have shape \[2, 6\], got \[4, 6\]",
    ),
    OpError(
        "factored_adam_",
        "mixed",
        lambda: _adam(factor=torch.ones(2, 6).double()),
        TypeError,
        r"factor must have the dtype of param",
    ),
    OpError("factored_adam_", "step", lambda: _adam(step=0.0), ValueError, "step must be at least 1, got 0"),
    OpError(
        "factored_adam_", "lr", lambda: _adam(lr=float("nan")), ValueError, "lr must be at least 0 and finite, got nan"
    ),
    OpError(
        "factored_adam_",
        "lr-tensor",
        lambda: _adam(lr=torch.tensor(-1.0)),
        ValueError,
        "lr must be at least 0 and finite, got -1",
    ),
    OpError(
        "factored_adam_",
        "lr-shape",
        lambda: _adam(lr=torch.ones(2)),
        ValueError,
        r"lr must have one element, got shape \[2\]",
    ),
]
