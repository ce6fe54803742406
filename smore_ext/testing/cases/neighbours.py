"""Cases of knn."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, rand

__all__ = ["knn_case"]


def knn_case(n: int, d: int, k: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, torch.float32, n, d).to(dtype), k]  # rounded, so that float64 has the same ties

    return OpCase("knn", f"{n}x{d}-{k}", make, autocast="float32")


CASES = [knn_case(*size) for size in ((1, 3, 1), (6, 2, 6), (4, 0, 2), (50, 7, 10), (700, 40, 10), (1300, 20, 40))]
