"""torch.func over the ops that are linear in their rows: grad, vjp, jvp, vmap, nested; against torch.autograd."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from smore_ext import Graph, ops, reference

GRAPH = Graph.from_edges(
    torch.tensor([0, 0, 1, 2, 4, 4]), torch.tensor([1, 3, 0, 2, 4, 1]), torch.arange(1.0, 7.0).double(), (5, 5)
)
X, GATE = (torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
FILTER = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
BATCH = torch.stack([X, GATE, X * GATE])
TWICE = 2 * GRAPH.weight
WEIGHT, BIAS = GATE[:3].clone(), GATE[0, :3].clone()

Op = Callable[[Tensor], Tensor]
LINEAR: dict[str, Op] = {
    "spmm": lambda x: ops.spmm(GRAPH, x),
    "spmm of the transpose": lambda x: ops.spmm(GRAPH.t, x),
    "spmm with a gate": lambda x: ops.spmm(GRAPH, x, GATE),
    "spmm with weights": lambda x: ops.spmm(GRAPH, x, weight=TWICE),
    "of a torch sparse tensor": lambda x: ops.spmm(GRAPH.to_sparse("coo"), x),
    "@": lambda x: GRAPH @ x,
    "propagate": lambda x: ops.propagate(GRAPH, x, 3),
    "propagate, last": lambda x: ops.propagate(GRAPH, x, 2, "last", GATE),
    "poly_filter": lambda x: ops.poly_filter(GRAPH, x, [0.5, -1.0, 2.0]),
    "spectral_filter": lambda x: ops.spectral_filter(x, FILTER),
    "dropout": lambda x: ops.dropout(x, 0.4, 3, 5),
    "edge_dot": lambda x: ops.edge_dot(GRAPH, x, GATE),
    "edge_dot, second": lambda x: ops.edge_dot(GRAPH, GATE, x),
    "spectral_filter, complex": lambda x: ops.spectral_filter(x, torch.view_as_complex(FILTER)),
    "spectral_filter, keep": lambda x: ops.spectral_filter(x, FILTER[None], 2),
    "table_linear": lambda x: ops.table_linear(x, WEIGHT, BIAS),
}
EACH = pytest.mark.parametrize("name", LINEAR)


@pytest.fixture(autouse=True)
def no_warnings_of_slow_batches() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*batching rule.*")
        yield


def cubes(f: Op) -> Op:
    """A scalar whose second derivative is not constant."""
    return lambda x: f(x).pow(3).sum()


def by_autograd(f: Op, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


@EACH
def test_first_derivatives(name: str) -> None:
    f = LINEAR[name]
    torch.testing.assert_close(grad(cubes(f))(X), by_autograd(cubes(f), X))
    y, back = vjp(f, X)
    torch.testing.assert_close(y, f(X))
    torch.testing.assert_close(back(y)[0], by_autograd(lambda x: (f(x) * y).sum(), X))
    constant = f(torch.zeros_like(X))
    torch.testing.assert_close(jvp(f, (X,), (GATE,)), (y, f(GATE) - constant))
    assert not grad(cubes(f))(X).requires_grad


@EACH
def test_whole_jacobians_and_second_derivatives(name: str) -> None:
    f = LINEAR[name]
    forward, backward = jacfwd(f)(X), jacrev(f)(X)
    torch.testing.assert_close(forward, torch.autograd.functional.jacobian(f, X))
    torch.testing.assert_close(backward, forward)
    jacobian = forward.reshape(-1, X.numel())
    wanted = jacobian.T @ torch.diag(6 * f(X).flatten()) @ jacobian
    torch.testing.assert_close(hessian(cubes(f))(X).reshape(30, 30), wanted)


@EACH
def test_batches(name: str) -> None:
    f = LINEAR[name]
    wanted = torch.stack([f(x) for x in BATCH])
    torch.testing.assert_close(vmap(f)(BATCH), wanted)
    torch.testing.assert_close(vmap(f, in_dims=2, out_dims=1)(BATCH.movedim(0, 2)), wanted.movedim(0, 1))
    of_each = torch.stack([by_autograd(cubes(f), x) for x in BATCH])
    torch.testing.assert_close(vmap(grad(cubes(f)))(BATCH), of_each)
    torch.testing.assert_close(grad(lambda batch: cubes(vmap(f))(batch))(BATCH), of_each)
    leaf = BATCH.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(cubes(vmap(f))(leaf), leaf)[0], of_each)
    torch.testing.assert_close(vmap(vmap(f))(BATCH[None]), wanted[None])


def test_gates_and_filters() -> None:
    """They are linear too."""
    torch.testing.assert_close(
        grad(cubes(lambda g: ops.spmm(GRAPH, X, g)))(GATE), by_autograd(cubes(lambda g: ops.spmm(GRAPH, X, g)), GATE)
    )
    for x, w in ((X, FILTER), (BATCH, FILTER), (X, torch.view_as_complex(FILTER))):
        ours = grad(lambda w, x=x: ops.spectral_filter(x, w).pow(3).sum())(w)
        torch.testing.assert_close(ours, by_autograd(lambda w, x=x: ops.spectral_filter(x, w).pow(3).sum(), w))
    filters = torch.stack([FILTER, 2 * FILTER])
    wanted = torch.stack([ops.spectral_filter(X, w) for w in filters])
    torch.testing.assert_close(vmap(ops.spectral_filter, (None, 0))(X, filters), wanted)
    both = vmap(lambda x, w: jvp(ops.spectral_filter, (x, w), (x, w))[1])(BATCH[:2], filters)
    torch.testing.assert_close(
        both, 2 * torch.stack([ops.spectral_filter(x, w) for x, w in zip(BATCH[:2], filters, strict=True)])
    )


def test_batches_of_gates_go_one_by_one() -> None:
    ours = vmap(lambda x, g: ops.spmm(GRAPH, x, g))(BATCH, BATCH.flip(0))
    wanted = torch.stack([ops.spmm(GRAPH, x, g) for x, g in zip(BATCH, BATCH.flip(0), strict=True)])
    torch.testing.assert_close(ours, wanted)
    torch.testing.assert_close(
        vmap(lambda g: ops.propagate(GRAPH, X, 2, gate=g))(BATCH)[1], ops.propagate(GRAPH, X, 2, gate=GATE)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    def f(x: Tensor) -> Tensor:
        return ops.propagate(GRAPH, x, 2).float().pow(3).sum()

    assert torch.equal(grad(f)(X.to(dtype)), by_autograd(f, X.to(dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grad(f)(X.float()), by_autograd(f, X.float())) and grad(f)(X.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda w: ops.spmm(GRAPH, X, weight=w), "spmm: torch.func's transforms reach it through x and gate, not"),
        (lambda w: ops.propagate(GRAPH.with_weight(w), X, 2), "propagate: torch.func's transforms reach it through x"),
        (lambda w: ops.poly_filter(GRAPH, X, w), "poly_filter: .* not through coefficients: use torch.autograd.grad"),
        (lambda w: ops.poly_filter(GRAPH, X, w.unbind()), "poly_filter: .* not through coefficients"),
    ],
)
def test_weights_and_coefficients_are_refused(f: Op, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        grad(cubes(f))(GRAPH.weight)
    assert reference.spmm(GRAPH, X).shape == X.shape


def test_gathered_rows_are_batched_and_differentiated() -> None:
    index = torch.tensor([2, 0, 2])
    tables, others = torch.randn(4, 3, 5, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    first, second = vmap(lambda t: ops.gather_rows([t, others], index), out_dims=(0, None))(tables)
    assert torch.equal(first, tables[:, index]) and torch.equal(second, others[index])
    assert torch.equal(vmap(lambda t: ops.gather_rows(t, index), in_dims=2)(tables.movedim(0, 2)), tables[:, index])
    each = torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0]])
    wanted = torch.stack([t[i] for t, i in zip(tables, each, strict=True)])
    assert torch.equal(vmap(ops.gather_rows)(tables, each), wanted)
    assert torch.equal(vmap(lambda i: ops.gather_rows(others, i))(each), others[each])
    one = grad(lambda t: ops.gather_rows(t, index).pow(3).sum())(tables[0])
    leaf = tables[0].clone().requires_grad_()
    torch.testing.assert_close(one, torch.autograd.grad(ops.gather_rows(leaf, index).pow(3).sum(), leaf)[0])
