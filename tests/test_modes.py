"""What graphs remember serves whoever comes next, whatever mode of torch was on when it was made."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from smore_ext import Graph, ops
from smore_ext.data import Dataset, builtin_dataset
from smore_ext.models import MODELS

EDGES = torch.tensor([0, 1, 1]), torch.tensor([1, 0, 2])


def small() -> Graph:
    return Graph.from_edges(*EDGES, torch.tensor([1.0, 2.0, 3.0]), (3, 3))


def products(graph: Graph, x: Tensor) -> Tensor:
    return ops.spmm(graph, x) + ops.propagate(graph, x, 2) + ops.spmm(graph.t, x) + ops.spmm(graph, x.double()).float()


def everything(graph: Graph) -> None:
    for part in (graph.t.t_order, graph.to_sparse("csr"), graph.to_sparse("coo"), graph.weight_as(torch.float64)):
        assert part is not None
    graph.rows(torch.arange(2)).t.weight_as(torch.float64)
    graph.to(torch.float64).t.weight_as(torch.float32)


class Layer(nn.Module):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        return products(self.graph, x)


def in_inference_mode(graph: Graph) -> None:
    with torch.inference_mode():
        products(graph, torch.ones(3, 2))
        everything(graph)


def in_fake_mode(graph: Graph) -> None:
    index = torch.arange(2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert type(products(graph, mode.from_tensor(torch.ones(3, 2)))) is not Tensor
        assert type(graph.rows(index).weight) is Tensor and type(graph.to(torch.float64).weight) is Tensor
        for part in (graph.t.t_order, graph.to_sparse("csr"), graph.to_sparse("coo"), graph.weight_as(torch.float64)):
            assert type(part) is Tensor


def exported(graph: Graph) -> None:
    program = torch.export.export(Layer(graph), (torch.ones(3, 2),))
    assert not any(
        "inference" in str(node.target) or "grad_enabled" in str(node.target) for node in program.graph.nodes
    )
    torch.testing.assert_close(program.module()(torch.ones(3, 2)), products(small(), torch.ones(3, 2)))


def exported_strictly(graph: Graph) -> None:
    torch.export.export(Layer(graph), (torch.ones(3, 2),), strict=True)


def in_vmap(graph: Graph) -> None:
    def each(x: Tensor) -> Tensor:
        everything(graph)
        return x

    torch.func.vmap(each)(torch.ones(2, 3, 2))


def in_grad(graph: Graph) -> None:
    def total(x: Tensor) -> Tensor:
        everything(graph)
        return x.sum()

    torch.func.grad(total)(torch.ones(3, 2))


def functionalized(graph: Graph) -> None:
    torch.func.functionalize(lambda x: products(graph, x))(torch.ones(3, 2))


def compiled_in_inference_mode(graph: Graph) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: products(graph, x), fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        compiled(torch.ones(3, 2))
    with torch.no_grad():
        compiled(torch.ones(3, 2))
    compiled(torch.ones(3, 2, requires_grad=True)).sum().backward()


MODES = [
    in_inference_mode,
    in_fake_mode,
    exported,
    exported_strictly,
    in_vmap,
    in_grad,
    functionalized,
    compiled_in_inference_mode,
]


@pytest.mark.parametrize("use", MODES)
def test_a_graph_trains_after_use_in_a_mode(use: Callable[[Graph], None]) -> None:
    graph, fresh = small(), small()
    use(graph)
    x = torch.ones(3, 2, requires_grad=True)
    uses: list[Callable[[Graph], Tensor]] = [
        lambda g: products(g, x),
        lambda g: ops.poly_filter(g, x, [1.0, 2.0]),
        lambda g: ops.edge_dot(g, x, x),
        lambda g: ops.spmm(g.rows(torch.tensor([1, 0])), x),
        lambda g: ops.spmm(g.to(torch.float64), x.double()),
        lambda g: ops.spmm(g.drop_edges(torch.tensor([0, 2])), x),
        lambda g: ops.spmm(g.with_weight(x.flatten()[:3]), x),
    ]
    for run in uses:
        ours, wanted = run(graph), run(fresh)
        assert type(ours) is Tensor
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
        gradients = (torch.autograd.grad(y.sum(), x)[0] for y in (ours, wanted))
        torch.testing.assert_close(next(gradients), next(gradients), rtol=0, atol=0)
    for layout in ("csr", "coo"):
        sparse = graph.to_sparse(layout)
        assert type(sparse) is Tensor and not sparse.is_inference()
        torch.testing.assert_close(sparse.to_dense(), fresh.to_sparse(layout).to_dense())


BUILDERS: dict[str, Callable[[Graph], Graph]] = {
    "from_edges": lambda g: Graph.from_edges(*(e.clone() for e in EDGES), None, (3, 3)),
    "Graph": lambda g: Graph(g.rowptr.clone(), g.col.clone(), g.weight.clone(), g.shape),
    "bipartite": lambda g: Graph.bipartite(torch.arange(2), torch.arange(2), 2, 2),
    "knn": lambda g: Graph.knn(torch.randn(3, 4), 2),
    "maximum": lambda g: Graph.maximum([g, g]),
    "weighted_sum": lambda g: Graph.weighted_sum([g, g], [1.0, 2.0]),
    "normalized": lambda g: g.normalized(),
    "rows": lambda g: g.rows(torch.arange(3).flip(0)),
    "to": lambda g: g.to(torch.float64),
    "block": lambda g: g.block(slice(1, 3), slice(0, 2)),
    "with_weight": lambda g: g.with_weight(g.weight * 2),
    "drop_edges": lambda g: g.drop_edges(torch.tensor([1])),
    "from_sparse": lambda g: Graph.from_sparse(g.to_sparse("coo").clone()),
    "t": lambda g: g.t,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_graph_made_in_inference_mode_trains(name: str) -> None:
    with torch.inference_mode():
        graph = BUILDERS[name](small())
    for n_rows, op in ((graph.n_cols, ops.spmm), (graph.n_rows, lambda g, x: ops.propagate(g, x, 2))):
        if op is not ops.spmm and graph.n_rows != graph.n_cols:
            continue
        x = torch.ones(n_rows, 2, dtype=graph.weight.dtype, requires_grad=True)
        op(graph, x).sum().backward()
        assert x.grad is not None and not x.grad.is_inference()


@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda graph: pickle.loads(pickle.dumps(graph))])
def test_a_graph_is_copied_with_what_it_remembers(layout: str, again: Callable[[Graph], Graph]) -> None:
    graph = small()
    everything(graph)
    graph.to_sparse(layout)
    other = again(graph)
    assert other.t.t is other and other.t is not graph.t
    torch.testing.assert_close(other.to_sparse(layout).to_dense(), graph.to_sparse(layout).to_dense())
    symmetric = again(Graph.bipartite(torch.arange(2), torch.arange(2), 2, 2))
    assert symmetric.t is symmetric


def dataset() -> Dataset:
    return builtin_dataset("synthetic", n_users=50, n_items=40, n_interactions=400)


def test_a_dataset_remembers_what_serves_everyone() -> None:
    data = dataset()
    with torch.inference_mode(), FakeTensorMode():
        found = [data.candidates, data.seen.rowptr, data.seen.col]
    assert all(type(part) is Tensor and not part.is_inference() for part in found)
    assert found[0] is data.candidates


@pytest.mark.parametrize("name", ["SMORE", "LightGCN", "LATTICE"])
def test_a_model_trains_after_validation_in_inference_mode(name: str) -> None:
    model = MODELS[name](dataset())
    ids = torch.arange(5)
    with torch.inference_mode():
        model.embeddings()
    model.loss(ids, ids, ids + 1).backward()
    with torch.inference_mode():
        model.begin_epoch(1, torch.Generator())
        model.embeddings()
    model.loss(ids, ids, ids + 1).backward()
    copy.deepcopy(model).loss(ids, ids, ids + 1).backward()


def test_a_model_lives_on_after_its_export() -> None:
    class Embeddings(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, scale: Tensor) -> tuple[Tensor, ...]:
            return tuple(part * scale for part in self.model.embeddings())

    model = MODELS["SMORE"](dataset())
    program = torch.export.export(Embeddings(model), (torch.ones(()),))
    live = model.embeddings()
    assert all(type(part) is Tensor for part in live)
    for part, wanted in zip(program.module()(torch.ones(())), live, strict=True):
        torch.testing.assert_close(part, wanted)
    ids = torch.arange(5)
    model.loss(ids, ids, ids + 1).backward()
