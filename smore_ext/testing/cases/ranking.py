"""Cases and errors of masked_topk."""

from __future__ import annotations

import torch

from smore_ext.graph import Graph
from smore_ext.testing.case import Args, OpCase, OpError, rand, random_graph

__all__ = ["topk_case"]


def topk_case(users: int, items: int, d: int, k: int, seen: int | Graph | None) -> OpCase:
    """seen: the number of edges of a random graph, a graph of one's own, or nothing."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        graph = random_graph(g, users, items, seen) if isinstance(seen, int) else seen
        return [rand(g, dtype, users, d), rand(g, dtype, items, d), k, graph]

    return OpCase("masked_topk", f"{users}x{items}x{d}-{k}", make, autocast="float32")


CASES = [
    topk_case(3, 5, 4, 5, 9),
    topk_case(0, 5, 4, 2, 0),
    topk_case(3, 5, 0, 2, 4),
    topk_case(70, 130, 64, 20, 2000),
    topk_case(130, 501, 63, 50, None),
    topk_case(65, 90, 16, 90, 1500),
]

X = torch.arange(24.0).view(4, 6)
SEEN = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))

ERRORS = [
    OpError("masked_topk", "k", lambda: [X, X, 5], ValueError, r"k must be in 1..4 \(the number of items\), got 5"),
    OpError("masked_topk", "width", lambda: [X, X[:, :5], 2], ValueError, "same width, got 6 and 5"),
    OpError(
        "masked_topk",
        "seen",
        lambda: [X[:3], X, 2, SEEN],
        ValueError,
        r"seen must have shape \(3, 4\) \(users x items\), got \(4, 4\)",
    ),
]
