"""Products with graphs by rows: put off, and one propagation where their mean is wanted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mmrec_tools import ROOT, tree
from test_mmrec_rows import INDEX, OWN, N, both, table
from torch import Tensor

from smore_ext.compat import mmrec
from smore_ext.compat.mmrec import deferred
from smore_ext.compat.mmrec.deferred import Step
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.row_rules import RULES


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "LEAST", 40)


GRAPH = torch.rand(N, N, generator=torch.Generator().manual_seed(2)).double().relu().sub(0.9).relu()
# functions of a graph and a matrix: calls of propagate and of spmm that each takes
SPREAD: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int, int]] = {
    "mean": (lambda g, x: torch.stack(_layers(g, x), dim=1).mean(dim=1)[INDEX], 1, 0),
    "named mean": (lambda g, x: torch.mean(torch.stack(_layers(g, x * 2)), 0)[INDEX], 1, 0),
    "a layer read": (lambda g, x: torch.stack(_layers(g, x, read=True), dim=1).mean(dim=1)[INDEX], 0, 3),
    "a sum": (lambda g, x: torch.stack(_layers(g, x), dim=1).sum(dim=1)[INDEX], 0, 3),
    "without the first": (lambda g, x: torch.stack(_layers(g, x)[1:], dim=1).mean(dim=1)[INDEX], 1, 1),
    "the last": (lambda g, x: _layers(g, x)[-1][INDEX], 0, 3),
    "some of the graph": (lambda g, x: torch.cat([torch.sparse.mm(g, x)[:20], x.exp()])[INDEX], 0, 1),
}


def _layers(graph: Tensor, x: Tensor, read: bool = False) -> list[Tensor]:
    layers = [x]
    for _ in range(3):
        layers.append(torch.sparse.mm(graph, layers[-1]))
    if read:
        layers[1].sum().item()
    return layers


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("name", SPREAD)
def test_products_with_graphs(name: str, layout: torch.layout) -> None:
    function, propagations, products = SPREAD[name]
    graph = GRAPH.to_sparse(layout=layout)
    with tree(), mmrec.patch("products", ROOT):
        both(lambda x: function(graph, x), table())
        with torch.profiler.profile() as profile, Step(RULES, set(), OWN):
            formed(function(graph, table()))
    found = [event.name for event in profile.events()]
    assert (found.count("smore_ext::propagate"), found.count("smore_ext::spmm")) == (propagations, products)


def test_a_graph_that_is_written_into_after_its_product() -> None:
    def product(x: Tensor) -> Tensor:
        graph = GRAPH.to_sparse()
        y = torch.sparse.mm(graph, x * 2)
        graph._values().mul_(3)
        return y[INDEX]

    with tree(), mmrec.patch("products", ROOT):
        both(product, table())


def test_a_gram_matrix_stays_unformed() -> None:
    from smore_ext.compat.mmrec.lazy_gram import LazyGram

    with tree(), mmrec.patch(("products", "knn"), ROOT), Step(RULES, set(), OWN):
        x = table().float().detach().requires_grad_()
        unit = x.div(torch.norm(x, p=2, dim=-1, keepdim=True))
        assert isinstance(torch.mm(unit, unit.transpose(1, 0)), LazyGram)
        assert isinstance(unit @ unit.T, LazyGram)
