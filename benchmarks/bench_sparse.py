"""Sparse products and their repetition over layers, at width 64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import floors
from benchmarks.inputs import PUBLISHED, WIDTH, bipartite, fused, neighbours, power_law, shrunk, size_of
from benchmarks.interleave import Case, Comparison, Contender, Setting
from benchmarks.op_contenders import arguments, both, op_comparison
from benchmarks.peers import (
    csr_product,
    csr_product_with_transpose,
    gated_before,
    layered,
    optional,
    polynomial,
    torch_sparse_product,
    weighted_bag,
    weighted_coo,
    weighted_scatter,
)
from smore_ext import Graph, ops, reference
from smore_ext.testing.cases import Args, OpCase, graph_case, rand

LAYERS = 4


def published_graph(kind: str, size: str, shrink: int) -> Graph:
    n = size_of(size, shrink)
    builders = {
        "bipartite": lambda: bipartite(n),
        "knn10": lambda: neighbours(n.items, 10),
        "knn40": lambda: neighbours(n.items, 40),
        "fused": lambda: fused(n.items),
    }
    return builders[kind]()


def power_law_graph(shrink: int) -> Graph:
    return power_law(shrunk(100_000, shrink), shrunk(1_000_000, shrink))


GRAPHS: dict[str, Callable[[int], Graph]] = {
    **{
        f"{kind} {size}": partial(published_graph, kind, size)
        for kind in ("bipartite", "knn10", "knn40", "fused")
        for size in PUBLISHED
    },
    "power law, 1M edges": power_law_graph,
}


def spmm(name: str, backward: bool) -> Case:
    def make(setting: Setting) -> Comparison:
        peers = {"torch COO": reference, "torch CSR": SimpleNamespace(spmm=csr_product)}
        if backward:
            peers["torch CSR, stored transpose"] = SimpleNamespace(spmm=csr_product_with_transpose)
        else:
            module = optional("torch_sparse")
            peers["torch_sparse"] = module and SimpleNamespace(spmm=torch_sparse_product(module))
        case = graph_case(name, lambda: GRAPHS[name](setting.shrink), WIDTH)
        floor = floors.spmm_step if backward else floors.spmm
        return op_comparison(case, peers, lambda args: floor(args[0], WIDTH), backward, setting.device)

    phase = "forward + backward" if backward else "forward"
    return Case(f"spmm, {phase}", name, make, quick=name in ("bipartite baby", "knn10 baby"))


def layers_case(size: str, setting: Setting) -> OpCase:
    return graph_case(size, lambda: published_graph("bipartite", size, setting.shrink), WIDTH, LAYERS)


def propagate(size: str) -> Case:
    def make(setting: Setting) -> Comparison:
        peers = {
            "own spmm": SimpleNamespace(propagate=layered(ops.spmm)),
            "torch COO": reference,
            "torch CSR": SimpleNamespace(propagate=layered(csr_product)),
        }
        case = layers_case(size, setting)
        floor = partial(floors.propagate_step, width=WIDTH, layers=LAYERS)
        return op_comparison(case, peers, lambda args: floor(args[0]), True, setting.device)

    return Case("propagate, forward + backward", size, make, quick=size == "baby")


def narrow_rows(size: str) -> Case:
    """propagate with x in bfloat16 against ours in float32: what --amp changes."""

    def make(setting: Setting) -> Comparison:
        case = layers_case(size, setting)
        args = arguments(case, True, setting.device)
        narrow = [args[0], args[1].detach().bfloat16().requires_grad_(), *args[2:]]
        peers = {"own float32": Contender(both(case, ops, args))}
        return Comparison(Contender(both(case, ops, narrow)), peers, floors.propagate_step(args[0], WIDTH, LAYERS, 2))

    return Case("propagate in bfloat16, forward + backward", size, make, quick=size == "baby")


def gated(name: str) -> Case:
    def make(setting: Setting) -> Comparison:
        peers = {
            "own spmm, gated before": SimpleNamespace(spmm=gated_before(ops.spmm)),
            "torch COO": reference,
            "torch CSR": SimpleNamespace(spmm=gated_before(csr_product)),
        }
        case = graph_case(name, lambda: GRAPHS[name](setting.shrink), WIDTH, gated=True)
        return op_comparison(case, peers, lambda args: floors.gated_step(args[0], WIDTH), True, setting.device)

    return Case("gated spmm, forward + backward", name, make, quick=name == "knn10 baby")


def weighted(size: str) -> Case:
    """Weights of edges that require grad. torch COO takes seconds at these sizes: a few rounds only."""

    def make(setting: Setting) -> Comparison:
        case = graph_case(size, lambda: published_graph("bipartite", size, setting.shrink), WIDTH, weighted=True)
        args = arguments(case, True, setting.device)
        constant = graph_case(size, lambda: args[0], WIDTH)
        functions = {"embedding_bag": weighted_bag, "gather, multiply, index_add": weighted_scatter}
        peers = {
            "own constant weights": Contender(both(constant, ops, args[:2])),
            **{name: Contender(both(case, SimpleNamespace(spmm=f), args)) for name, f in functions.items()},
            "torch COO": Contender(both(case, SimpleNamespace(spmm=weighted_coo), args), rounds=2),
        }
        return Comparison(Contender(both(case, ops, args)), peers, floors.weighted_step(args[0], WIDTH))

    return Case("spmm with edge weights, forward + backward", size, make, quick=size == "baby")


def poly_filter(size: str) -> Case:
    """Gradients of x and of the coefficients."""

    def make(setting: Setting) -> Comparison:
        def arguments_of(dtype: torch.dtype, g: torch.Generator) -> Args:
            graph = published_graph("bipartite", size, setting.shrink)
            return [graph, rand(g, dtype, graph.n_cols, WIDTH), rand(g, dtype, LAYERS + 1)]

        peers = {
            "own spmm": SimpleNamespace(poly_filter=polynomial(ops.spmm)),
            "torch COO": reference,
            "torch CSR": SimpleNamespace(poly_filter=polynomial(csr_product)),
            "torch CSR, stored transpose": SimpleNamespace(poly_filter=polynomial(csr_product_with_transpose)),
        }
        case = OpCase("poly_filter", size, arguments_of, (1, 2))
        floor = partial(floors.poly_step, width=WIDTH, layers=LAYERS)
        return op_comparison(case, peers, lambda args: floor(args[0]), True, setting.device)

    return Case("poly_filter, forward + backward", size, make, quick=size == "baby")


def edge_dot(size: str) -> Case:
    def make(setting: Setting) -> Comparison:
        def arguments_of(dtype: torch.dtype, g: torch.Generator) -> Args:
            graph = published_graph("bipartite", size, setting.shrink)
            return [graph, rand(g, dtype, graph.n_rows, WIDTH), rand(g, dtype, graph.n_cols, WIDTH)]

        case = OpCase("edge_dot", size, arguments_of, (1, 2))
        peers = {"gather, multiply, sum": reference}
        return op_comparison(case, peers, lambda args: floors.edge_dot_step(args[0], WIDTH), True, setting.device)

    return Case("edge_dot, forward + backward", size, make, quick=size == "baby")


def edge_softmax(size: str) -> Case:
    def make(setting: Setting) -> Comparison:
        def arguments_of(dtype: torch.dtype, g: torch.Generator) -> Args:
            graph = published_graph("bipartite", size, setting.shrink)
            return [graph, rand(g, dtype, graph.n_edges)]

        case = OpCase("edge_softmax", size, arguments_of, (1,))
        peers = {"scatter_reduce": reference}
        return op_comparison(case, peers, lambda args: floors.edge_softmax_step(args[0]), True, setting.device)

    return Case("edge_softmax, forward + backward", size, make, quick=size == "baby")


CASES = [
    *(spmm(name, backward) for backward in (False, True) for name in GRAPHS),
    *(propagate(size) for size in PUBLISHED),
    *(narrow_rows(size) for size in PUBLISHED),
    *(gated(f"knn10 {size}") for size in PUBLISHED),
    *(weighted(size) for size in PUBLISHED),
    *(poly_filter(size) for size in PUBLISHED),
    *(edge_dot(size) for size in PUBLISHED),
    *(edge_softmax(size) for size in PUBLISHED),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sparse(measure, case: Case) -> None:
    measure(case)
