"""Cases of masked_topk."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, rand, random_graph

__all__ = ["topk_case"]


def topk_case(users: int, items: int, d: int, k: int, edges: int | None) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        seen = None if edges is None else random_graph(g, users, items, edges)
        return [rand(g, dtype, users, d), rand(g, dtype, items, d), k, seen]

    return OpCase("masked_topk", f"{users}x{items}x{d}-{k}", make, autocast="float32")


CASES = [
    topk_case(3, 5, 4, 5, 9),
    topk_case(0, 5, 4, 2, 0),
    topk_case(70, 130, 64, 20, 2000),
    topk_case(130, 501, 63, 50, None),
    topk_case(65, 90, 16, 90, 1500),
]
