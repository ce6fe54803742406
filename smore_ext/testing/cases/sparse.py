"""Cases and errors of spmm and propagate."""

from __future__ import annotations

from collections.abc import Callable

import torch

from smore_ext.graph import Graph
from smore_ext.testing.case import Args, OpCase, OpError, rand, randint, random_graph

__all__ = ["graph_case", "propagate_case", "spmm_case"]


def spmm_case(n_rows: int, n_cols: int, edges: int, d: int, wide: bool = False, gated: bool = False) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        graph = random_graph(g, n_rows, n_cols, edges, wide)
        return [graph, *(rand(g, dtype, n_cols, d) for _ in range(1 + gated))]

    name = f"{n_rows}x{n_cols}x{d}{'-int64' if wide else ''}{'-gated' if gated else ''}"
    gradients = (1, 2) if gated else (1,)
    return OpCase("spmm", name, make, gradients, small=edges <= 14, twice=True, autocast="storage")


def propagate_case(
    n: int, edges: int, d: int, layers: int, reduce: str, gated: bool = False, bipartite: bool = False
) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        graph = random_graph(g, n, n, edges)
        if bipartite:  # its weights are separable; two fifths of the nodes are users, and some nodes have no edge
            users, items = randint(g, 2 * n // 5, edges // 2), randint(g, n - 2 * n // 5 - 1, edges // 2)
            users[: edges // 10] = 0
            graph = Graph.bipartite(users, items, 2 * n // 5, n - 2 * n // 5)
        return [graph, rand(g, dtype, n, d), layers, reduce, *(rand(g, dtype, n, d) for _ in range(gated))]

    name = f"{n}x{d}-{layers}-{reduce}{'-gated' if gated else ''}{'-bipartite' if bipartite else ''}"
    gradients = (1, 4) if gated else (1,)
    return OpCase("propagate", name, make, gradients, small=edges <= 12, twice=True, autocast="storage")


def graph_case(name: str, graph: Callable[[], Graph], d: int, layers: int | None = None, gated: bool = False) -> OpCase:
    """spmm, with a gate or not (or propagate, with `layers`) on a graph of one's own."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        matrix = graph()
        dense = [rand(g, dtype, matrix.n_cols, d) for _ in range(1 + gated)]
        return [matrix, *dense, *([] if layers is None else [layers, "mean"])]

    op, gradients = ("spmm", (1, 2) if gated else (1,)) if layers is None else ("propagate", (1,))
    return OpCase(op, name, make, gradients, twice=True, autocast="storage")


CASES = [
    spmm_case(6, 4, 14, 3),
    spmm_case(5, 5, 12, 2, wide=True),
    spmm_case(0, 4, 0, 3),
    spmm_case(4, 0, 0, 3),
    spmm_case(7, 3, 0, 5),
    spmm_case(90, 70, 800, 64),
    spmm_case(90, 70, 800, 63, wide=True),
    spmm_case(300, 200, 9000, 192),
    spmm_case(50, 60, 400, 17),
    spmm_case(6, 4, 14, 3, gated=True),
    spmm_case(4, 0, 0, 3, gated=True),
    spmm_case(300, 200, 9000, 64, gated=True),
    spmm_case(90, 70, 800, 17, wide=True, gated=True),
    propagate_case(5, 12, 3, 3, "mean"),
    propagate_case(5, 12, 3, 2, "last"),
    propagate_case(4, 9, 2, 0, "mean"),
    propagate_case(4, 9, 2, 0, "last"),
    propagate_case(0, 0, 3, 2, "mean"),
    propagate_case(250, 4000, 64, 4, "mean"),
    propagate_case(250, 4000, 33, 3, "last"),
    propagate_case(5, 12, 3, 3, "mean", gated=True),
    propagate_case(5, 12, 3, 2, "last", gated=True),
    propagate_case(5, 12, 3, 0, "mean", gated=True),
    propagate_case(250, 4000, 64, 1, "last", gated=True),
    propagate_case(250, 4000, 33, 2, "mean", gated=True),
    propagate_case(30, 120, 8, 3, "mean", gated=True, bipartite=True),
    propagate_case(250, 2000, 64, 4, "mean", bipartite=True),
    propagate_case(250, 2000, 33, 3, "last", bipartite=True),
    propagate_case(250, 2000, 17, 2, "mean", gated=True, bipartite=True),
    propagate_case(250, 2000, 64, 1, "mean", bipartite=True),
]

X = torch.arange(24.0).view(4, 6)
GRAPH = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))
WIDE = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([0, 1]), None, (2, 4))

ERRORS = [
    OpError("spmm", "rows", lambda: [GRAPH, X[:3]], ValueError, r"one row per column of the graph \(4\), got 3"),
    OpError("spmm", "dtype", lambda: [GRAPH, X.long()], TypeError, "x must be float32, float64 or bfloat16, got Long"),
    OpError("spmm", "half", lambda: [GRAPH, X.half()], TypeError, "x must be float32, float64 or bfloat16, got Half"),
    OpError("spmm", "gate", lambda: [GRAPH, X, X[:3]], ValueError, r"gate must have shape \[4, 6\], got \[3, 6\]"),
    OpError(
        "spmm",
        "gate-dtype",
        lambda: [GRAPH, X, X.double()],
        TypeError,
        r"gate must have the dtype of x \(Float\), got Double",
    ),
    OpError("spmm", "graph", lambda: ["graph", X], TypeError, "expected a Graph or a torch sparse tensor, got str"),
    OpError("spmm", "dense", lambda: [X, X], TypeError, "expected a 2-d sparse COO or CSR tensor"),
    OpError("spmm", "weights", lambda: [torch.eye(4).to_sparse().requires_grad_(), X], ValueError, "constants"),
    OpError(
        "propagate",
        "gate",
        lambda: [GRAPH, X, 2, "mean", X[:, :3]],
        ValueError,
        r"propagate: gate must have shape \[4, 6\], got \[4, 3\]",
    ),
    OpError("propagate", "layers", lambda: [GRAPH, X, -1], ValueError, "n_layers must be at least 0, got -1"),
    OpError("propagate", "reduce", lambda: [GRAPH, X, 1, "sum"], ValueError, "reduce must be"),
    OpError(
        "propagate", "square", lambda: [WIDE, X, 1], ValueError, "the graph must be square, got 2 rows and 4 columns"
    ),
]
