"""Graph beside a torch sparse tensor of the same matrix: what is done to one can be done to the other."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smore_ext import Graph, ops


def made(seed: int = 0, shape: tuple[int, int] = (7, 5), weight: Tensor | None = None) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    row, col = (torch.randint(n, (12,), generator=generator) for n in shape)
    return Graph.from_edges(row, col, torch.rand(12, generator=generator) if weight is None else weight, shape)


X, Y = torch.randn(5, 3), torch.randn(4, 7)

PRODUCTS: dict[str, Callable[[Any], Tensor]] = {
    "@": lambda a: a @ X,
    "@ vector": lambda a: a @ X[:, 0],
    "torch.mm": lambda a: torch.mm(a, X),
    "torch.sparse.mm": lambda a: torch.sparse.mm(a, X),
    "torch.spmm": lambda a: torch.spmm(a, X),
    "torch.matmul": lambda a: torch.matmul(a, X),
    "torch.mv": lambda a: torch.mv(a, X[:, 0]),
    ".mm": lambda a: a.mm(X),
    ".matmul": lambda a: a.matmul(X),
    "t()": lambda a: a.t() @ Y.T,
    "transpose": lambda a: a.transpose(0, 1) @ Y.T,
    "torch.t": lambda a: torch.t(a) @ Y.T,
    "torch.transpose": lambda a: torch.transpose(a, 0, 1) @ Y.T,
    "coalesce": lambda a: a.coalesce() @ X,
    "detach": lambda a: a.detach() @ X,
    "scaled": lambda a: (a * 0.5) @ X,
    "scaled on the left": lambda a: (2 * a) @ X,
    "by a tensor": lambda a: (torch.tensor(0.5) * a) @ X,
    "torch.mul": lambda a: torch.mul(a, 0.5) @ X,
    "/": lambda a: (a / 2.0) @ X,
    "-": lambda a: (-a) @ X,
    "+": lambda a: (a + a) @ X,
    "torch.add": lambda a: torch.add(a, a) @ X,
    "a - b": lambda a: (a - a * 0.25) @ X,
    "sum": lambda a: (a + a + a) @ X,
    "double": lambda a: (a.double() @ X.double()).float(),
    "to": lambda a: (a.to(device="cpu", dtype=torch.float64) @ X.double()).float(),
    "to both": lambda a: (a.to("cpu", torch.float64, non_blocking=True) @ X.double()).float(),
    "cpu": lambda a: a.cpu().float() @ X,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_it_is_multiplied_like_a_sparse_tensor(name: str) -> None:
    graph = made()
    torch.testing.assert_close(PRODUCTS[name](graph), PRODUCTS[name](graph.to_sparse("coo").coalesce()))


@pytest.mark.parametrize("product", [operator.matmul, torch.mm, torch.matmul, Tensor.mm, Tensor.matmul])
def test_dense_matrices_are_multiplied_from_the_left(product: Callable[[Any, Any], Tensor]) -> None:
    graph = made()
    torch.testing.assert_close(product(Y, graph), Y @ graph.to_dense())
    torch.testing.assert_close(product(torch.nn.Parameter(Y), graph), Y @ graph.to_dense())
    if product is not torch.mm and product is not Tensor.mm:
        torch.testing.assert_close(product(Y[0], graph), Y[0] @ graph.to_dense())


def test_products_are_those_of_the_op_with_its_gradients() -> None:
    graph, x = made(), X.clone().requires_grad_()
    for product in (graph @ x, torch.sparse.mm(graph, x), torch.mm(graph, x)):
        assert torch.equal(product, ops.spmm(graph, x))
        assert torch.equal(torch.autograd.grad(product.sum(), x)[0], ops.spmm(graph.t, torch.ones(7, 3)))
    y = Y.clone().requires_grad_()
    torch.testing.assert_close(
        torch.autograd.grad((y @ graph).sum(), y)[0], graph.to_dense().sum(1).expand(4, 7), check_stride=False
    )


def test_shape_and_parts_are_those_of_a_sparse_tensor() -> None:
    graph = made()
    sparse = graph.to_sparse("coo")
    assert graph.size() == sparse.size() == graph.shape and graph.size(0) == 7 and graph.size(-1) == graph.size(dim=1)
    assert graph.dim() == graph.ndim == 2 and graph.device == sparse.device and graph.dtype == sparse.dtype
    assert graph.nnz == graph._nnz() == sparse._nnz() and graph.is_sparse and not graph.is_cuda
    assert torch.equal(graph.indices(), sparse.indices()) and torch.equal(graph.values(), sparse.values())
    assert torch.equal(graph._indices(), sparse.indices()) and torch.equal(graph._values(), sparse.values())
    assert torch.equal(graph.to_dense(), sparse.to_dense()) and graph.is_coalesced()
    assert graph.crow_indices() is graph.rowptr and graph.col_indices() is graph.col
    assert graph.T is graph.t and graph.t() is graph.t and graph.t().t() is graph
    assert graph.transpose(1, -1) is graph and graph.transpose(-2, 1) is graph.t
    rebuilt = torch.sparse_coo_tensor(graph.indices(), graph.values(), graph.size(), check_invariants=True)
    assert torch.equal(rebuilt.to_dense(), graph.to_dense())
    assert graph.coalesce() is graph.detach() is graph.cpu() is graph.float() is graph.to("cpu") is graph
    assert graph.double().dtype == torch.float64 and graph.double().t.dtype == torch.float64
    assert graph.to("meta", torch.float64).device.type == "meta"


def test_what_is_symmetric_stays_so() -> None:
    graph = Graph.bipartite(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 2)
    for same in (graph * 0.5, graph / 2, -graph, graph.detach(), graph.double(), graph.cpu()):
        assert same.t is same
    x = torch.randn(4, 3)
    torch.testing.assert_close(ops.propagate(graph * 0.5, x, 3, "last"), ops.propagate(graph, x, 3, "last") / 8)


def test_learned_factors_and_weights_keep_their_gradients() -> None:
    factor, weight = torch.tensor([2.0], requires_grad=True), torch.rand(12, requires_grad=True)
    fixed, graph = made(), made(weight=weight)
    losses = [((factor * fixed) @ X).sum(), (graph @ X).sum(), (graph.t @ Y.T).sum()]
    torch.autograd.backward(losses, retain_graph=True)  # of the sum of duplicates
    torch.testing.assert_close(factor.grad, (fixed @ X).sum().reshape(1))
    assert weight.grad is not None and graph.requires_grad and graph.t.requires_grad
    for detached in (graph.detach(), graph.t.detach().t):
        assert not detached.requires_grad and torch.equal(detached.to_dense(), graph.to_dense().detach())
    torch.testing.assert_close(torch.autograd.grad(graph.to_dense().sum(), weight)[0], torch.ones(12))
    assert graph.dtype == graph.t.dtype == torch.float32 and graph.t.t is graph


def test_sums_of_graphs() -> None:
    a, b = made(0), made(1)
    torch.testing.assert_close((a + b).to_dense(), a.to_dense() + b.to_dense())
    torch.testing.assert_close((a - b).to_dense(), a.to_dense() - b.to_dense())
    torch.testing.assert_close(sum([a, b, a]).to_dense(), 2 * a.to_dense() + b.to_dense())


@pytest.mark.parametrize("name", ["op", "torch.mm", ".mm", "scaled"])
def test_products_compile_without_a_break(name: str) -> None:
    graph = made()
    graph.t  # noqa: B018
    runs: dict[str, Callable[[Tensor], Tensor]] = {
        "op": lambda x: ops.spmm(graph, x),
        "torch.mm": lambda x: torch.mm(graph, x) + torch.mm(x.T, graph.t).T,
        ".mm": lambda x: graph.mm(x),
        "scaled": lambda x: ops.spmm(0.5 * graph, x),
    }
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(runs[name], fullgraph=True, backend="aot_eager")(X), runs[name](X))


@pytest.mark.parametrize("run", [lambda g, x: g @ x + 1, lambda g, x: x.T @ g * 2, lambda g, x: torch.sparse.mm(g, x)])
def test_others_are_left_to_python_by_the_compiler(run: Callable[[Graph, Tensor], Tensor]) -> None:
    """A square matrix and square rows: what is taken for the other product has the same shape."""
    graph, x = made(shape=(5, 5)), torch.randn(5, 5)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(run, backend="aot_eager")(graph, x), run(graph, x))
    fixed = torch.compile(lambda x: run(graph, x), backend="aot_eager")
    assert torch.equal(fixed(x), run(graph, x))


def test_a_whole_graph_names_the_product_that_compiles() -> None:
    graph = made()
    torch._dynamo.reset()
    with pytest.raises(Exception, match="Observed exception|in torch.compile give ops.spmm"):
        torch.compile(lambda x: graph @ x, fullgraph=True, backend="aot_eager")(X)


REFUSED: dict[str, tuple[Callable[[Graph], object], type[Exception], str]] = {
    "graph @ graph": (lambda g: g @ g.t, TypeError, r"x must be dense, got a sparse matrix: .* a @ \(b @ x\)"),
    "sparse @ graph": (lambda g: g.t.to_sparse("coo") @ g, TypeError, "x @ graph: x must be dense"),
    "numpy": (lambda g: g @ X.numpy(), TypeError, "graph @ x: x must be a torch.Tensor, got ndarray"),
    "numpy on the left": (lambda g: Y.numpy() @ g, TypeError, "x @ graph: x must be a torch.Tensor, got ndarray"),
    "numpy * graph": (lambda g: np.ones(12) * g, TypeError, r"graph \* x: x must be a number, got ndarray"),
    "by edges": (lambda g: g * torch.ones(12), TypeError, r"of shape \(12,\): .*graph.with_weight\(graph.weight \*"),
    "by a mask": (lambda g: g * True, TypeError, "must be a number, got bool"),
    "graph + number": (lambda g: g + 1, TypeError, "graph [+] x: x must be a Graph, got int: graph.to_dense"),
    "number - graph": (lambda g: 1 - g, TypeError, "x - graph: x must be a Graph, got int"),
    "graph + sparse": (lambda g: g + g.to_sparse("coo"), TypeError, "got Tensor: .*Graph.from_sparse"),
    "half": (lambda g: g.half(), TypeError, "must be float32 or float64, got torch.float16: they serve rows of bfl"),
    "bfloat16": (lambda g: g.bfloat16(), TypeError, "got torch.bfloat16: they serve rows of bfloat16 as they are"),
    "size": (lambda g: g.size(2), IndexError, "a Graph has dimensions 0 and 1, got 2"),
    "requires_grad_": (lambda g: g.requires_grad_(), AttributeError, r"graph.with_weight\(weight.requires_grad_\(\)\)"),
    "in place": (lambda g: g.mul_(2), AttributeError, "no mul_, unlike a tensor: a Graph is not changed in place"),
    "data": (lambda g: g.data, AttributeError, "not changed in place"),
    "clone": (lambda g: g.clone(), AttributeError, "serves as it is"),
    "sum of rows": (lambda g: g.sum(1), AttributeError, r"ops.spmm\(graph, ones\)"),
    "another": (lambda g: g.softmax(1), AttributeError, r"no softmax, unlike a tensor: graph.to_sparse\(\)"),
    "places": (lambda g: g[0], TypeError, r"a Graph takes no \[...\]: graph.rows\(index\) takes rows"),
    "a power": (lambda g: g**2, TypeError, r"graph.with_weight\(graph.weight \*\* p\)"),
    "rows by list": (lambda g: g.block([0, 1], [4, 5]), TypeError, "rows must be a slice, .* got list: graph.rows"),
    "rows by tensor": (lambda g: g.block(torch.tensor([0, 1]), (0, 2)), TypeError, "pair .begin, end., got Tensor"),
    "three": (lambda g: g.block((0, 1, 2), (0, 2)), TypeError, "rows must be a slice, a range or a pair"),
    "index_select": (lambda g: g.index_select(0, X), AttributeError, "no index_select, .*graph.rows"),
    "numel": (lambda g: g.numel(), AttributeError, "graph.n_edges counts edges"),
    "other edges": (lambda g: g.copy_(g.drop_edges(g.weight > 1.5)), ValueError, "same edges"),
    "unknown": (lambda g: g.nothing, AttributeError, "'Graph' object has no attribute 'nothing'"),
    "torch function": (lambda g: torch.softmax(g, 1), TypeError, "torch's softmax does not take a Graph: graph.to_sp"),
    "torch.sparse.sum": (lambda g: torch.sparse.sum(g), TypeError, "does not take a Graph"),
    "out": (lambda g: torch.mm(g, X, out=torch.empty(7, 3)), TypeError, "torch's mm with out does not take a Graph"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_meaning_names_the_way_out(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(made())
    assert not hasattr(made(), "mul_") and not hasattr(made(), "__len__")


def test_a_module_may_hold_it_as_a_buffer(tmp_path: Path) -> None:
    class Holder(torch.nn.Module):
        def __init__(self, graph: Graph) -> None:
            super().__init__()
            self.register_buffer("adj", graph)

    module, other = Holder(made()), Holder(made() * 3)
    assert module.to("cpu").to(torch.float32).adj.dtype == torch.float32
    assert module.double().adj.dtype == torch.float64 and module.float().adj.dtype == torch.float32
    other = other.to(torch.float32)
    torch.save(other.state_dict(), tmp_path / "state.pt")
    module.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert torch.equal(module.adj.weight, other.adj.weight)
    torch.testing.assert_close(module.adj @ X.float(), (made() * 3).float() @ X.float())
    with pytest.raises(RuntimeError, match="same edges"):
        module.load_state_dict({"adj": made().drop_edges(made().weight > 1.5)})


def test_refusals_say_what_to_give_instead() -> None:
    graph = made()
    cases: list[tuple[Callable[[], object], str]] = [
        (
            lambda: Graph.weighted_sum([graph.to_sparse()], [1.0]),
            "must be a Graph, got torch.Tensor: Graph.from_sparse",
        ),
        (lambda: ops.spmm(graph, X.numpy()), r"x must be a torch.Tensor, got numpy.ndarray: torch.from_numpy\(x\) is"),
        (lambda: ops.spmm(graph, X.tolist()), r"got list: torch.tensor\(x\) is"),
        (lambda: graph.with_weight(graph.weight.half()), r"got torch.float16: weight.float\(\) is"),
        (lambda: Graph.from_edges(graph.row, graph.col, graph.weight.half(), (7, 5)), r"weight.float\(\) is"),
        (lambda: graph.drop_edges(torch.tensor([1], dtype=torch.int32)), r"keep.long\(\) is"),
        (lambda: ops.edge_softmax(graph, graph.weight.half()), r"got Half: logits.float\(\) is"),
    ]
    for call, message in cases:
        with pytest.raises(TypeError, match=message):
            call()


def test_numbers_of_numpy_and_names_of_torch() -> None:
    graph = made()
    for twice in (np.float32(2) * graph, graph * np.int64(2), graph.mul(2), torch.mul(graph, 2), graph.div(0.5)):
        assert torch.equal(twice.weight, graph.weight * 2)
    assert torch.equal(torch.div(graph, 2).weight, graph.weight / 2)
    assert torch.equal(graph.add(graph).weight, graph.weight * 2) and not graph.sub(graph).weight.any()
    assert graph.to(copy=True).contiguous() is graph and graph.to(torch.zeros(1)).dtype == torch.float32
    assert graph.to("cpu", torch.float64, True).dtype == torch.float64
