"""What a graph hands out, and weights that are written to: the graph's products stay those of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import scipy.sparse
import torch
from torch import Tensor

from smore_ext import Graph, ops, reference

USERS, ITEMS = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2])
X = torch.arange(18.0).view(6, 3) + 1


def bipartite() -> Graph:
    return Graph.bipartite(USERS, ITEMS, 3, 3)


def directed() -> Graph:
    return Graph.from_edges(torch.tensor([0, 1, 5]), torch.tensor([1, 0, 2]), torch.tensor([1.0, 2.0, 3.0]), (6, 6))


def products(graph: Graph) -> list[Tensor]:
    """Forward and backward, in both dtypes, and through layers."""
    out = []
    for dtype in (torch.float32, torch.float64):
        x = X.to(dtype).requires_grad_()
        y = ops.spmm(graph, x)
        out += [y.detach(), *torch.autograd.grad(y.square().sum(), x)]
        out.append(ops.propagate(graph, X.to(dtype), 2))
    return out


def empty_scipy(graph: Graph) -> None:
    matrix = graph.to_scipy()
    matrix.data.fill(0)
    matrix.eliminate_zeros()


WRITES: dict[str, Callable[[Graph], object]] = {
    "scipy's values and structure": empty_scipy,
    "values of a sparse tensor": lambda g: g.to_sparse().values().mul_(5),
    "columns of a sparse tensor": lambda g: g.to_sparse().col_indices().zero_(),
    "values of a COO tensor": lambda g: g.to_sparse("coo")._values().mul_(5),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("build", [bipartite, directed])
def test_what_a_graph_hands_out_is_a_copy(build: Callable[[], Graph], write: Callable[[Graph], object]) -> None:
    graph, expected = build(), products(build())
    products(graph)
    write(graph)
    assert all(map(torch.equal, products(graph), expected))
    torch.testing.assert_close(reference.spmm(graph, X), products(graph)[0])
    assert torch.equal(graph.to_sparse().to_dense(), build().to_dense())


@pytest.mark.parametrize("build", [bipartite, directed])
@pytest.mark.parametrize("part", ["weight", "values"])
def test_weights_that_are_written_to_are_read_anew(build: Callable[[], Graph], part: str) -> None:
    graph = build()
    products(graph)
    weight = graph.weight if part == "weight" else graph.values()
    weight.mul_(torch.arange(1.0, graph.n_edges + 1))  # an edge and its reverse differ now
    fresh = Graph(graph.rowptr, graph.col, weight, graph.shape)
    for ours, expected in zip(products(graph), products(fresh), strict=True):
        torch.testing.assert_close(ours, expected)
    assert graph.scale is None and not graph.is_own_transpose
    torch.testing.assert_close(reference.spmm(graph, X), ops.spmm(fresh, X))


def test_weights_that_were_given_are_copied() -> None:
    graph, weight = directed(), torch.tensor([1.0, 2.0, 3.0])
    other = graph.with_weight(weight)
    expected = products(other)
    weight.data.mul_(10)
    weight.mul_(10)
    assert all(map(torch.equal, products(other), expected))


def test_a_parameter_that_was_frozen_meanwhile() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    graph = directed().with_weight(weight)
    weight.requires_grad_(False)
    products(graph)  # its transpose is remembered
    weight.mul_(10)
    for ours, expected in zip(products(graph), products(directed().with_weight(weight)), strict=True):
        torch.testing.assert_close(ours, expected)


def test_a_copy_knows_what_the_graph_knew() -> None:
    graph = bipartite()
    graph.weight.mul_(1)
    assert graph.scale is None
    graph = Graph.bipartite(USERS, ITEMS, 3, 3)
    twin = copy.deepcopy(graph)
    assert twin.is_own_transpose and twin.scale is not None and twin.scale.equal(graph.scale)


E3 = torch.tensor([0, 1, 2])
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "weight on meta": (
        lambda: Graph.from_edges(E3, E3, torch.ones(3, device="meta"), (3, 3)),
        ValueError,
        "weight must be on the device of row, cpu, got meta",
    ),
    "weight on meta, CSR": (
        lambda: Graph(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1, device="meta"), (1, 1)),
        ValueError,
        "weight must be on the device of rowptr, cpu, got meta",
    ),
    "a sparse weight": (
        lambda: Graph.from_edges(E3, E3, torch.ones(3).to_sparse(), (3, 3)),
        TypeError,
        "weight must be a dense tensor, got layout torch.sparse_coo",
    ),
    "a sparse weight by edge": (
        lambda: directed().with_weight(torch.ones(3).to_sparse()),
        TypeError,
        "with_weight: weight must be a dense tensor, got layout torch.sparse_coo",
    ),
    "a fraction of a row": (
        lambda: Graph.from_edges(E3, E3, None, (3.7, 3)),  # type: ignore[arg-type]
        TypeError,
        r"shape must be two whole numbers, rows and columns, got \(3.7, 3\)",
    ),
    "a shape in text": (lambda: Graph.from_edges(E3, E3, None, "33"), TypeError, "shape must be two whole"),  # type: ignore[arg-type]
    "three sizes": (lambda: Graph.from_edges(E3, E3, None, (3, 3, 3)), TypeError, "shape must be two whole"),  # type: ignore[arg-type]
    "half a row": (lambda: directed().rows(torch.tensor([1.7])), TypeError, "rows: index must be 1-d int64 or int32"),
    "a mask of rows": (lambda: directed().rows(torch.ones(6).bool()), TypeError, "rows: .* got torch.bool"),
    "no floor": (lambda: Graph.knn(X, 2, floor=float("nan")), ValueError, "floor must be a number, got nan"),
    "complex, of scipy": (
        lambda: Graph.from_scipy(scipy.sparse.eye_array(3).tocsr() * 1j),
        TypeError,
        "from_scipy: expected a real matrix, got complex128",
    ),
    "complex, to an op": (
        lambda: ops.spmm(scipy.sparse.eye_array(6).tocsr() * 1j, X),
        TypeError,
        "expected a real sparse matrix, got complex128",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_graph_is_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
