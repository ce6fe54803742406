"""Weights of edges that change or learn: `Graph.with_weight`, `drop_edges`, and gradients that reach them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from smore_ext import Graph, ops, reference
from smore_ext.testing import random_graph


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rectangle() -> Graph:
    return random_graph(seeded(), 9, 7, 40)


def square() -> Graph:
    return random_graph(seeded(), 8, 8, 40)


def bipartite() -> Graph:
    """Its own transpose, with nodes of degree 0."""
    users, items = torch.randint(5, (30,), generator=seeded()), torch.randint(4, (30,), generator=seeded(4))
    return Graph.bipartite(users, items, 6, 5)


GRAPHS = pytest.mark.parametrize("build", [rectangle, square, bipartite])


def dense(graph: Graph) -> Tensor:
    return graph.to_sparse("coo").to_dense()


def values(graph: Graph, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(graph.n_edges, generator=seeded(5), dtype=dtype, device=graph.col.device)


def matrix_of(graph: Graph, weight: Tensor) -> Tensor:
    """Dense [R, C], differentiable in weight."""
    empty = torch.zeros(graph.shape, dtype=weight.dtype, device=weight.device)
    return empty.index_put((graph.row.long(), graph.col.long()), weight)


@GRAPHS
def test_with_weight_shares_everything_but_the_weights(build: Callable[[], Graph], device: torch.device) -> None:
    graph = build().to(device)
    weight = values(graph)
    other = graph.with_weight(weight)
    torch.testing.assert_close(dense(other), matrix_of(graph, weight), rtol=0, atol=0)
    torch.testing.assert_close(dense(other.t), matrix_of(graph, weight).T, rtol=0, atol=0)
    assert other.t.t is other and other.weight.equal(weight) and other.scale is None
    assert other.structure is graph.structure and other.t.structure is graph.with_weight(weight).t.structure
    assert torch.equal(other.t.weight, weight[graph.t_order.long()])
    assert torch.equal(graph.t.t_order.long()[graph.t_order.long()], torch.arange(graph.n_edges, device=device))
    Graph(other.t.rowptr, other.t.col, other.t.weight, other.t.shape)  # passes its own checks


def test_nothing_is_sorted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for graph in (rectangle(), bipartite()):
        calls = []
        sort = torch.sort

        def counted(*args, calls=calls, sort=sort, **kwargs):
            calls.append(args)
            return sort(*args, **kwargs)

        monkeypatch.setattr(torch, "sort", counted)
        x = torch.randn(graph.n_cols, 3)
        for seed in range(3):
            keep = torch.rand(graph.n_edges, generator=seeded(seed)) > 0.3
            weight = torch.rand(graph.n_edges, requires_grad=True)
            ops.spmm(graph.with_weight(weight), x).sum().backward()
            ops.spmm(graph.with_weight(weight.detach()), x)
            part = graph.drop_edges(keep)
            ops.spmm(part.with_weight(weight[keep]).t, ops.spmm(part, x)).sum().backward()
            ops.edge_dot(part.t.to(torch.float64), x.double(), torch.zeros(graph.n_rows, 3).double())
        monkeypatch.undo()
        assert len(calls) == 1


@GRAPHS
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_reach_the_weights_of_a_graph(
    build: Callable[[], Graph], transposed: bool, device: torch.device
) -> None:
    graph = build().to(device)
    weight = values(graph).requires_grad_()
    a = matrix_of(graph, weight)
    live, a = (graph.with_weight(weight).t, a.T) if transposed else (graph.with_weight(weight), a)
    x = torch.randn(a.shape[1], 4, dtype=torch.float64, device=device, requires_grad=True)
    y = torch.randn(a.shape[0], 4, dtype=torch.float64, device=device)
    for ours, exact in (
        (ops.spmm(live, x), a @ x),
        (ops.spmm(live, x, x), a @ (x * x)),
        (ops.spmm(live.t, y), a.T @ y),
        (ops.spmm(live.to(torch.float32), x.float()).double(), a @ x),
        (reference.spmm(live, x), a @ x),
    ):
        near = (
            {"rtol": 1e-12, "atol": 1e-12} if ours.grad_fn.name() != "ToCopyBackward0" else {"rtol": 1e-4, "atol": 1e-4}
        )
        torch.testing.assert_close(ours, exact, **near)
        for got, wanted in zip(
            torch.autograd.grad(ours.square().sum(), (x, weight), allow_unused=True, retain_graph=True),
            torch.autograd.grad(exact.square().sum(), (x, weight), allow_unused=True, retain_graph=True),
            strict=True,
        ):
            assert (got is None) == (wanted is None)
            if got is not None:
                torch.testing.assert_close(got, wanted, **near)


@pytest.mark.parametrize("build", [square, bipartite])
@pytest.mark.parametrize("reduce", ["mean", "last"])
def test_propagate_sends_gradients_of_all_layers(build: Callable[[], Graph], reduce: str, device: torch.device) -> None:
    graph = build().to(device)
    weight = values(graph).requires_grad_()
    a, live = matrix_of(graph, weight), graph.with_weight(weight)
    x = torch.randn(graph.n_cols, 4, dtype=torch.float64, device=device, requires_grad=True)
    layers = [x, a @ x, a @ (a @ x), a @ (a @ (a @ x))]
    exact = torch.stack(layers).mean(0) if reduce == "mean" else layers[-1]
    wanted = torch.autograd.grad(exact.square().sum(), (x, weight), retain_graph=True)
    for ours in (ops.propagate(live, x, 3, reduce), ops.propagate(graph, x, 3, reduce, weight=weight)):
        torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)
        for got, exact_grad in zip(torch.autograd.grad(ours.square().sum(), (x, weight)), wanted, strict=True):
            torch.testing.assert_close(got, exact_grad, rtol=1e-11, atol=1e-11)
    with torch.no_grad():
        torch.testing.assert_close(ops.propagate(live, x, 3, reduce), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["sym", "rw"])
def test_normalized_shares_edges_and_sends_gradients(norm: str, device: torch.device) -> None:
    graph = square().to(device)
    weight = values(graph).exp().requires_grad_()
    ours = graph.with_weight(weight).normalized(norm, eps=0.5)
    assert ours.structure is graph.structure
    a = matrix_of(graph, weight)
    power = (a.sum(1) + 0.5) ** (-0.5 if norm == "sym" else -1.0)
    exact = power[:, None] * a * power if norm == "sym" else power[:, None] * a
    x = torch.randn(8, 3, dtype=torch.float64, device=device)
    for y, wanted in ((ops.spmm(ours, x), exact @ x), (ops.spmm(ours.t, x), exact.T @ x)):
        torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
        grads = [torch.autograd.grad(z.square().sum(), weight, retain_graph=True)[0] for z in (y, wanted)]
        torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)
    assert bipartite().normalized("sym").t_order.dtype == torch.int32


def test_only_what_is_asked_for_is_computed(device: torch.device) -> None:
    graph = rectangle().to(device)
    weight = values(graph).requires_grad_()
    x = torch.randn(graph.n_cols, 4, dtype=torch.float64, device=device)
    got = torch.autograd.grad(ops.spmm(graph, x, weight=weight).square().sum(), weight)[0]
    exact = torch.autograd.grad((matrix_of(graph, weight) @ x).square().sum(), weight)[0]
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
    u = torch.randn(graph.n_rows, 4, dtype=torch.float64, device=device, requires_grad=True)
    got = torch.autograd.grad(ops.edge_dot(graph, u, x).square().sum(), u)[0]
    exact = torch.autograd.grad((u[graph.row.long()] * x[graph.col.long()]).sum(1).square().sum(), u)[0]
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)


def test_weights_that_learn_are_read_anew_each_time(device: torch.device) -> None:
    graph = square().to(device)
    weight = torch.nn.Parameter(values(graph, torch.float32))
    live = graph.with_weight(weight)
    x = torch.randn(graph.n_cols, 4, dtype=torch.float64, device=device)
    for _ in range(2):
        with torch.no_grad():  # what is looked at without a gradient must not be remembered
            assert not ops.spmm(live.t, x).requires_grad and not live.t.weight.requires_grad
            assert not live.weight_as(torch.float64).requires_grad and not live.to_sparse("csr").requires_grad
        for y, a in ((ops.spmm(live, x), matrix_of(graph, weight)), (ops.spmm(live.t, x), matrix_of(graph, weight).T)):
            torch.testing.assert_close(y, a.double() @ x, rtol=1e-6, atol=1e-6)
            y.sum().backward()
            torch.testing.assert_close(weight.grad, torch.autograd.grad((a.double() @ x).sum(), weight)[0])
            weight.grad = None
        with torch.no_grad():
            weight += 1


@GRAPHS
def test_drop_edges(build: Callable[[], Graph], device: torch.device) -> None:
    graph = build().to(device)
    keep = torch.rand(graph.n_edges, generator=seeded()).to(device) > 0.4
    numbers = keep.nonzero()[:, 0].flip(0).repeat(2)
    expected = dense(graph.with_weight(torch.where(keep, graph.weight, 0)))
    for part in (graph.drop_edges(keep), graph.drop_edges(numbers), graph.drop_edges(keep).drop_edges(keep[keep])):
        torch.testing.assert_close(dense(part), expected, rtol=0, atol=0)
        torch.testing.assert_close(dense(part.t), expected.T, rtol=0, atol=0)
        assert part.n_edges == int(keep.sum()) and part.t.t is part and part.col.dtype == graph.col.dtype
        assert torch.equal(part.t.weight, part.weight[part.t_order.long()])
        for matrix in (part, part.t):
            Graph(matrix.rowptr, matrix.col, matrix.weight, matrix.shape)  # passes its own checks
        x = torch.randn(graph.n_cols, 3, device=device, requires_grad=True)
        torch.testing.assert_close(ops.spmm(part, x), expected @ x)
        torch.testing.assert_close(
            *(torch.autograd.grad(y.square().sum(), x)[0] for y in (ops.spmm(part, x), expected @ x))
        )
    nothing = graph.drop_edges(numbers[:0])
    assert nothing.n_edges == 0 and nothing.t.shape == graph.t.shape and not dense(nothing).any()


def test_a_symmetric_graph_without_both_directions_of_an_edge_stays_symmetric(device: torch.device) -> None:
    graph = bipartite().to(device)
    keep = torch.rand(graph.n_edges, generator=seeded()).to(device) > 0.3
    part = graph.drop_edges(keep & keep[graph.t_order.long()])
    assert part.t is part and 0 < part.n_edges < graph.n_edges and torch.equal(dense(part), dense(part).T)
    weight = values(part).requires_grad_()
    x = torch.randn(part.n_cols, 3, dtype=torch.float64, device=device)
    torch.testing.assert_close(ops.spmm(part.with_weight(weight).t, x), matrix_of(part, weight).T @ x)
    assert part.with_weight(weight.detach()).t is not part


def test_separable_weights_stay_separable_without_some_edges(device: torch.device) -> None:
    graph = bipartite().to(device)
    part = graph.drop_edges(torch.arange(0, graph.n_edges, 2, device=device))
    x = torch.randn(part.n_cols, 3, device=device, requires_grad=True)
    ours, plain = ops.propagate(part, x, 3), reference.propagate(part, x, 3)
    assert part.scale is graph.scale and part.t.scale is graph.scale and part.t is not part
    torch.testing.assert_close(ours, plain)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, plain)))


@pytest.mark.parametrize(
    "change",
    [
        lambda graph, keep: graph.drop_edges(keep),
        lambda graph, keep: graph.drop_edges(keep).t,
        lambda graph, keep: graph.t.drop_edges(keep),
        lambda graph, keep: graph.rows(torch.tensor([3, 0, 0, 5, 3], device=keep.device)),
        lambda graph, keep: graph.t.rows(torch.tensor([1, 1, 0], device=keep.device)),
        lambda graph, keep: graph.to(torch.float64),
        lambda graph, keep: Graph(graph.rowptr, graph.col, graph.weight, graph.shape),
        lambda graph, keep: Graph.maximum([graph, graph.with_weight(-graph.weight)]),
        lambda graph, keep: graph.block(slice(1, 7), slice(2, None)),
        lambda graph, keep: (graph.t, graph.block((0, 6), (1, 8)))[1].t,
        lambda graph, keep: (graph.t, graph.t.block((2, 8), (0, 8)))[1],
        lambda graph, keep: Graph.weighted_sum([graph, graph.drop_edges(keep)], [0.5, 2.0]).t,
    ],
)
def test_gradients_through_other_graphs(change: Callable[[Graph, Tensor], Graph], device: torch.device) -> None:
    graph = square().to(device)
    keep = torch.rand(graph.n_edges, generator=seeded()).to(device) > 0.4
    weight = values(graph, torch.float32).requires_grad_()
    changed = change(graph.with_weight(weight), keep)
    x = torch.randn(changed.n_cols, 4, dtype=changed.weight.dtype, device=device)
    y = torch.randn(changed.n_rows, 4, dtype=changed.weight.dtype, device=device)
    grad = torch.autograd.grad((ops.spmm(changed, x) * y).sum(), weight)[0]
    small = graph.with_weight(weight.detach())
    for e in range(0, graph.n_edges, 5):  # the product is linear in the weights, but for the maximum's choice
        step = torch.zeros_like(weight.detach()).index_fill_(0, torch.tensor([e], device=device), 2**-10)
        ends = [(ops.spmm(change(small.with_weight(small.weight + d), keep), x) * y).sum() for d in (step, -step)]
        torch.testing.assert_close(grad[e], ((ends[0] - ends[1]) * 2**9).float(), rtol=1e-2, atol=2e-2)


def test_from_edges_sends_gradients_through_sorting_and_summing(device: torch.device) -> None:
    row, col = (torch.randint(n, (50,), generator=seeded(n)).to(device) for n in (6, 4))
    weight = torch.randn(50, generator=seeded(), dtype=torch.float64).to(device).requires_grad_()
    graph = Graph.from_edges(row, col, weight, (6, 4))
    a = torch.zeros(6, 4, dtype=torch.float64, device=device).index_put((row, col), weight, accumulate=True)
    assert graph.n_edges < 50 and graph.requires_grad
    torch.testing.assert_close(dense(graph), a)
    x = torch.randn(4, 3, dtype=torch.float64, device=device)
    ours, exact = (torch.autograd.grad(y.square().sum(), weight)[0] for y in (ops.spmm(graph, x), a @ x))
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)
    assert graph.to_scipy().nnz == graph.n_edges
    unique = Graph.from_edges(row[:1], col[:1], weight[:1], (6, 4))
    assert torch.autograd.grad(ops.spmm(unique, x).sum(), weight)[0].count_nonzero() == 1


def test_attention_over_neighbours_trains_its_queries(device: torch.device) -> None:
    """What a graph attention layer is made of, against dense arithmetic."""
    graph = square().to(device)
    x = torch.randn(8, 5, dtype=torch.float64, device=device, requires_grad=True)
    query = torch.randn(5, 5, dtype=torch.float64, device=device, requires_grad=True)
    attention = ops.edge_softmax(graph, ops.edge_dot(graph, x @ query, x))
    ours = ops.spmm(graph, x, weight=attention)
    there = matrix_of(graph, torch.ones(graph.n_edges, dtype=torch.float64, device=device)) > 0
    scores = (x @ query @ x.T).masked_fill(~there, -torch.inf)
    exact = torch.where(there.any(1, keepdim=True), scores.softmax(1).nan_to_num(), 0) @ x
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)
    for got, wanted in zip(
        torch.autograd.grad(ours.square().sum(), (x, query)),
        torch.autograd.grad(exact.square().sum(), (x, query)),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    by_column = ops.edge_softmax(graph.t, attention[graph.t_order.long()])
    sums = torch.zeros(8, dtype=torch.float64, device=device).index_add(0, graph.t.row.long(), by_column)
    torch.testing.assert_close(sums, (graph.t.rowptr.diff() > 0).double())


def test_autocast_takes_weights_in_half_precision_as_float32(device: torch.device) -> None:
    graph = square().to(device)
    x, weight = torch.randn(8, 4, device=device), values(graph, torch.bfloat16).requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = ops.spmm(graph, x, weight=weight)
    assert torch.equal(y, ops.spmm(graph, x.bfloat16(), weight=weight.float()))
    assert torch.autograd.grad(y.sum(), weight)[0].dtype == torch.bfloat16


@GRAPHS
def test_graphs_with_weights_compile_without_a_break(build: Callable[[], Graph], device: torch.device) -> None:
    graph = build().to(device)
    x = torch.randn(graph.n_cols, 4, device=device, requires_grad=True)
    weight = values(graph, torch.float32).requires_grad_()

    def run(x: Tensor, weight: Tensor) -> Tensor:
        live = graph.with_weight(ops.edge_softmax(graph, weight))
        y = ops.spmm(live, x)
        return ops.spmm(live.t, y) + ops.spmm(graph.t, y, weight=graph.t.weight * 2)

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    ours, eager = compiled(x, weight), run(x, weight)
    torch.testing.assert_close(ours, eager, rtol=0, atol=0)
    for got, wanted in zip(
        torch.autograd.grad(ours.sum(), (x, weight)), torch.autograd.grad(eager.sum(), (x, weight)), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_moving_keeps_the_transpose(device: torch.device) -> None:
    for graph in (rectangle(), rectangle().t, bipartite(), rectangle().drop_edges(torch.arange(5)).t):
        graph.t_order  # noqa: B018  (known from here on)
        moved, unknown = graph.to("meta"), Graph(graph.rowptr, graph.col, graph.weight, graph.shape).to("meta")
        assert moved.structure.t.col.device.type == moved.t_order.device.type == "meta"
        assert (moved.t is moved) == (graph.t is graph) and moved.t.shape == graph.t.shape
        assert unknown.structure._t is None
        back = graph.to(device)
        torch.testing.assert_close(dense(back.t).cpu(), dense(graph).T, rtol=0, atol=0)
        assert torch.equal(back.t_order.cpu(), graph.t_order)
