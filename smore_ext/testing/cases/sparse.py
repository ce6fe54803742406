"""Cases and errors of spmm, propagate, poly_filter, edge_dot and edge_softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch

from smore_ext.graph import Graph
from smore_ext.testing.case import Args, OpCase, OpError, bipartite_graph, rand, random_graph

__all__ = ["edge_dot_case", "edge_softmax_case", "graph_case", "poly_case", "propagate_case", "spmm_case"]


def _rows(
    dtype: torch.dtype, g: torch.Generator, graph: Graph, d: int, middle: Args, gated: bool, weighted: bool
) -> Args:
    """The graph and x, the arguments between, and gate and weight as far as they are wanted."""
    x = rand(g, dtype, graph.n_cols, d)
    gate = [rand(g, dtype, *x.shape)] if gated else [None] * weighted
    return [graph, x, *middle, *gate, *(rand(g, dtype, graph.n_edges) for _ in range(weighted))]


def _name(size: str, **kinds: bool) -> str:
    return size + "".join(f"-{kind}" for kind, is_so in kinds.items() if is_so)


def _positions(after: int, gated: bool, weighted: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What is differentiable, and what is of the type of sums, with gate and weight from `after` on."""
    weight = (after + 1,) * weighted
    return (1, *(after,) * gated, *weight), weight


def spmm_case(
    n_rows: int,
    n_cols: int,
    edges: int,
    d: int,
    wide: bool = False,
    gated: bool = False,
    weighted: bool = False,
    bipartite: bool = False,
) -> OpCase:
    """bipartite: on a graph that is its own transpose."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        graph = (bipartite_graph if bipartite else random_graph)(g, n_rows, n_cols, edges, wide)
        return _rows(dtype, g, graph, d, [], gated, weighted)

    name = _name(f"{n_rows}x{n_cols}x{d}", int64=wide, gated=gated, weighted=weighted, bipartite=bipartite)
    gradients, sums = _positions(2, gated, weighted)
    return OpCase("spmm", name, make, gradients, small=edges <= 14, twice=True, autocast="storage", sums=sums)


def propagate_case(
    n: int,
    edges: int,
    d: int,
    layers: int,
    reduce: str,
    gated: bool = False,
    bipartite: bool = False,
    weighted: bool = False,
) -> OpCase:
    """bipartite: its weights are separable; two fifths of the nodes are users, and some nodes have no edge."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        users = 2 * n // 5
        graph = bipartite_graph(g, users, n - users, edges) if bipartite else random_graph(g, n, n, edges)
        return _rows(dtype, g, graph, d, [layers, reduce], gated, weighted)

    name = _name(f"{n}x{d}-{layers}-{reduce}", gated=gated, bipartite=bipartite, weighted=weighted)
    gradients, sums = _positions(4, gated, weighted)
    if layers == 0:
        gradients = tuple(i for i in gradients if i not in sums)
    return OpCase("propagate", name, make, gradients, small=edges <= 12, twice=True, autocast="storage", sums=sums)


def poly_case(
    n: int, edges: int, d: int, terms: int, bipartite: bool = False, weighted: bool = False, wide: bool = False
) -> OpCase:
    """As propagate_case, with random coefficients."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        users = 2 * n // 5
        graph = bipartite_graph(g, users, n - users, edges) if bipartite else random_graph(g, n, n, edges, wide)
        weight = [rand(g, dtype, graph.n_edges)] * weighted
        return [graph, rand(g, dtype, n, d), rand(g, dtype, terms), *weight]

    name = _name(f"{n}x{d}-{terms}", bipartite=bipartite, weighted=weighted, int64=wide)
    sums = (2, *(3,) * weighted)
    gradients = (1, *sums[: 1 + (terms > 1)])  # without a product, weights have none
    return OpCase("poly_filter", name, make, gradients, small=edges <= 12, twice=True, autocast="storage", sums=sums)


def edge_dot_case(n_rows: int, n_cols: int, edges: int, d: int, wide: bool = False) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [random_graph(g, n_rows, n_cols, edges, wide), rand(g, dtype, n_rows, d), rand(g, dtype, n_cols, d)]

    name = _name(f"{n_rows}x{n_cols}x{d}", int64=wide)
    return OpCase("edge_dot", name, make, (1, 2), small=edges <= 14, twice=True, autocast="storage")


def edge_softmax_case(n_rows: int, n_cols: int, edges: int, wide: bool = False) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        graph = random_graph(g, n_rows, n_cols, edges, wide)
        return [graph, 3 * rand(g, dtype, graph.n_edges)]

    name = _name(f"{n_rows}x{n_cols}", int64=wide)
    return OpCase("edge_softmax", name, make, (1,), small=edges <= 14, autocast="float32")


def graph_case(
    name: str,
    graph: Callable[[], Graph],
    d: int,
    layers: int | None = None,
    gated: bool = False,
    weighted: bool = False,
) -> OpCase:
    """spmm, with a gate and weights or not (or propagate, with `layers`) on a graph of one's own."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return _rows(dtype, g, graph(), d, [] if layers is None else [layers, "mean"], gated, weighted)

    op, (gradients, sums) = ("spmm", _positions(2, gated, weighted)) if layers is None else ("propagate", ((1,), ()))
    return OpCase(op, name, make, gradients, twice=True, autocast="storage", sums=sums)


CASES = [
    spmm_case(6, 4, 14, 3),
    spmm_case(5, 5, 12, 2, wide=True),
    spmm_case(0, 4, 0, 3),
    spmm_case(4, 0, 0, 3),
    spmm_case(6, 4, 14, 0, gated=True, weighted=True),
    spmm_case(7, 3, 0, 5),
    spmm_case(90, 70, 800, 64),
    spmm_case(90, 70, 800, 63, wide=True),
    spmm_case(300, 200, 9000, 192),
    spmm_case(50, 60, 400, 17),
    spmm_case(6, 4, 14, 3, gated=True),
    spmm_case(4, 0, 0, 3, gated=True),
    spmm_case(300, 200, 9000, 64, gated=True),
    spmm_case(90, 70, 800, 17, wide=True, gated=True),
    spmm_case(6, 4, 14, 3, weighted=True),
    spmm_case(6, 4, 14, 3, gated=True, weighted=True),
    spmm_case(3, 4, 14, 3, weighted=True, bipartite=True),
    spmm_case(0, 4, 0, 3, weighted=True),
    spmm_case(7, 3, 0, 5, gated=True, weighted=True),
    spmm_case(90, 70, 800, 63, wide=True, weighted=True),
    spmm_case(300, 200, 9000, 64, weighted=True),
    spmm_case(300, 200, 9000, 64, gated=True, weighted=True),
    spmm_case(120, 90, 3000, 17, weighted=True, bipartite=True),
    propagate_case(5, 12, 3, 3, "mean"),
    propagate_case(5, 12, 3, 2, "last"),
    propagate_case(4, 9, 2, 0, "mean"),
    propagate_case(4, 9, 2, 0, "last"),
    propagate_case(0, 0, 3, 2, "mean"),
    propagate_case(5, 12, 0, 2, "mean", gated=True, weighted=True),
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
    propagate_case(5, 12, 3, 3, "mean", weighted=True),
    propagate_case(5, 12, 3, 2, "last", gated=True, weighted=True),
    propagate_case(5, 12, 3, 0, "mean", gated=True, weighted=True),
    propagate_case(250, 4000, 33, 2, "mean", gated=True, weighted=True),
    propagate_case(250, 2000, 64, 3, "mean", bipartite=True, weighted=True),
    *(edge_dot_case(*size) for size in ((6, 4, 14, 3), (0, 4, 0, 3), (4, 3, 0, 5), (5, 5, 12, 0), (50, 60, 400, 17))),
    *(edge_dot_case(*size) for size in ((300, 200, 9000, 64), (90, 70, 800, 192))),
    poly_case(5, 12, 3, 4),
    poly_case(4, 9, 2, 1),
    poly_case(5, 12, 3, 2),
    poly_case(5, 12, 3, 3, weighted=True),
    poly_case(4, 9, 2, 1, weighted=True),
    poly_case(0, 0, 3, 3),
    poly_case(6, 12, 0, 2),
    poly_case(250, 4000, 64, 4),
    poly_case(250, 4000, 33, 3, wide=True),
    poly_case(250, 2000, 64, 5, bipartite=True),
    poly_case(250, 2000, 17, 3, bipartite=True, weighted=True),
    poly_case(1500, 9000, 8, 2, bipartite=True),
    edge_dot_case(90, 70, 800, 63, wide=True),
    *(edge_softmax_case(*size) for size in ((6, 4, 14), (0, 4, 0), (4, 3, 0), (300, 200, 9000), (900, 70, 2000))),
    edge_softmax_case(90, 7000, 9000, wide=True),
]

X = torch.arange(24.0).view(4, 6)
GRAPH = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))
WEIGHT = torch.ones(3)
WIDE = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([0, 1]), None, (2, 4))

ERRORS = [
    OpError("spmm", "rows", lambda: [GRAPH, X[:3]], ValueError, r"one row per column of the graph \(4\), got 3"),
    OpError("spmm", "dtype", lambda: [GRAPH, X.long()], TypeError, "x must be float32, float64 or bfloat16, got Long"),
    OpError("spmm", "half", lambda: [GRAPH, X.half()], TypeError, r"or bfloat16, got Half: x\.float\(\) is, and x\.bf"),
    OpError("spmm", "gate", lambda: [GRAPH, X, X[:3]], ValueError, r"gate must have shape \[4, 6\], got \[3, 6\]"),
    OpError(
        "spmm",
        "gate-dtype",
        lambda: [GRAPH, X, X.double()],
        TypeError,
        r"gate must have the dtype of x \(Float\), got Double",
    ),
    OpError("spmm", "graph", lambda: ["graph", X], TypeError, "torch sparse tensor or a scipy sparse matrix, got str"),
    OpError("spmm", "dense", lambda: [X, X], TypeError, "expected a 2-d sparse COO, CSR or CSC tensor"),
    OpError(
        "spmm",
        "sparse-weights",
        lambda: [torch.eye(4).to_sparse().requires_grad_(), X],
        ValueError,
        r"constants here, got one that requires grad: .* Graph\.from_edges",
    ),
    OpError("spmm", "weight", lambda: [GRAPH, X, None, WEIGHT[:2]], ValueError, r"spmm: weight must have shape \[3\]"),
    OpError(
        "spmm",
        "weight-dtype",
        lambda: [GRAPH, X, None, WEIGHT.double()],
        TypeError,
        "spmm: weight must be Float for x of Float, got Double",
    ),
    OpError(
        "spmm",
        "weight-bfloat16",
        lambda: [GRAPH, X.bfloat16(), None, WEIGHT.bfloat16()],
        TypeError,
        "spmm: weight must be Float for x of BFloat16, got BFloat16",
    ),
    OpError(
        "propagate",
        "weight",
        lambda: [GRAPH, X, 2, "mean", None, X[0]],
        ValueError,
        r"propagate: weight must have shape \[3\], got \[6\]",
    ),
    OpError("edge_dot", "u", lambda: [GRAPH, X[:3], X], ValueError, r"u must have one row per row .*\(4\), got 3"),
    OpError("edge_dot", "v", lambda: [GRAPH, X, X[:3]], ValueError, r"v must have one row per column .*\(4\), got 3"),
    OpError("edge_dot", "width", lambda: [GRAPH, X, X[:, :5]], ValueError, "must have the same width, got 6 and 5"),
    OpError(
        "edge_dot",
        "dtype",
        lambda: [GRAPH, X.half(), X.half()],
        TypeError,
        "edge_dot: u must be float32, float64 or bfloat16, got Half",
    ),
    OpError(
        "edge_dot",
        "mixed",
        lambda: [GRAPH, X, X.double()],
        TypeError,
        r"edge_dot: v must have the dtype of u \(Float\), got Double",
    ),
    OpError(
        "edge_softmax",
        "shape",
        lambda: [GRAPH, WEIGHT[:2]],
        ValueError,
        r"edge_softmax: logits must have shape \[3\], got \[2\]",
    ),
    OpError(
        "edge_softmax",
        "dtype",
        lambda: [GRAPH, WEIGHT.bfloat16()],
        TypeError,
        "edge_softmax: logits must be float32 or float64, got BFloat16",
    ),
    OpError(
        "propagate",
        "gate",
        lambda: [GRAPH, X, 2, "mean", X[:, :3]],
        ValueError,
        r"propagate: gate must have shape \[4, 6\], got \[4, 3\]",
    ),
    OpError(
        "poly_filter",
        "none",
        lambda: [GRAPH, X, []],
        ValueError,
        "poly_filter: coefficients must hold at least one number, got none",
    ),
    OpError(
        "poly_filter",
        "dtype",
        lambda: [GRAPH, X, torch.ones(3).double()],
        TypeError,
        "poly_filter: coefficients must be Float for x of Float, got Double",
    ),
    OpError(
        "poly_filter",
        "storage",
        lambda: [GRAPH, X.bfloat16(), torch.ones(3).bfloat16()],
        TypeError,
        "poly_filter: coefficients must be Float for x of BFloat16, got BFloat16",
    ),
    OpError(
        "poly_filter",
        "shape",
        lambda: [GRAPH, X, torch.ones(3, 1)],
        ValueError,
        r"poly_filter: coefficients must have 1 dimension, got shape \[3, 1\]",
    ),
    OpError(
        "poly_filter",
        "square",
        lambda: [WIDE, X, [1.0]],
        ValueError,
        "poly_filter: the graph must be square, got 2 rows and 4 columns",
    ),
    OpError("propagate", "layers", lambda: [GRAPH, X, -1], ValueError, "n_layers must be at least 0, got -1"),
    OpError("propagate", "reduce", lambda: [GRAPH, X, 1, "sum"], ValueError, "reduce must be"),
    OpError(
        "propagate", "square", lambda: [WIDE, X, 1], ValueError, "the graph must be square, got 2 rows and 4 columns"
    ),
]
