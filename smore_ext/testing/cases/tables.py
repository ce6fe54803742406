"""Cases of table_linear and factored_adam_."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, rand

__all__ = ["adam_case", "table_case"]


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


CASES = [
    *(adam_case(*size) for size in ((0, 3, 2, 1), (5, 0, 2, 1), (3, 5, 0, 4), (1, 1, 1, 1), (19, 45, 7, 3))),
    *(table_case(*size) for size in ((0, 3, 2), (5, 0, 2), (4, 5, 3), (19, 45, 7), (290, 1100, 64), (40, 300, 65))),
    adam_case(70, 130, 64, 1),
    adam_case(41, 4100, 300, 1000),
]
