"""Message passing of a tree of the MMRec kind under the patch, against PyTorch Geometric itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT, load, tree
from torch import Tensor

from smore_ext.compat import mmrec
from smore_ext.compat.mmrec.edges import KnownEdges

pytest.importorskip("torch_geometric", reason="torch-geometric is in the extra [test]")

USERS, ITEMS, WIDTH = 12, 20, 6
N = USERS + ITEMS


@pytest.fixture(autouse=True)
def tiny_tree() -> Iterator[None]:
    with tree():
        yield
        mmrec.undo()


def edges(both_ways: bool = True) -> Tensor:
    pair = torch.randperm(USERS * ITEMS, generator=torch.Generator().manual_seed(0))[:70]
    one_way = torch.stack([pair // ITEMS, pair % ITEMS + USERS])
    return torch.cat([one_way, one_way.flip(0)], dim=1) if both_ways else one_way


def outcome(layer: Any, edge_index: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """What a layer gives, what it keeps, and the gradients of all that it reads."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.rand(edge_index.shape[1], 1, generator=generator, dtype=dtype).requires_grad_()
    weighted = type(layer).__name__ == "Weighted"
    y = layer(x, edge_index, weight) if weighted else layer(x, edge_index)
    alpha = getattr(layer, "alpha", y.new_zeros(1))
    grads = torch.autograd.grad(y.sin().sum() + alpha.square().sum(), [x, weight] if weighted else [x])
    return [y.detach(), alpha.detach(), *grads]


LAYERS = [
    ("Neighbours", "sum"),
    ("Neighbours", "mean"),
    ("Weighted", "add"),
    ("Weighted", "mean"),
    ("Attention", "add"),
    ("Attention", "mean"),
    ("Normalised", "add"),
    ("Bent", "add"),
    ("Bent", "mean"),
]


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("name,aggr", LAYERS)
def test_values_and_gradients_are_the_same(name: str, aggr: str, both_ways: bool, flow: str) -> None:
    cls = getattr(load("models.passing"), name)
    theirs = outcome(cls(aggr=aggr, flow=flow), edges(both_ways))
    with mmrec.patch("messages", ROOT) as report:
        ours = outcome(cls(aggr=aggr, flow=flow), edges(both_ways))
    assert report.replaced == [f"{name}.propagate"]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    again = outcome(cls(aggr=aggr, flow=flow), edges(both_ways))
    assert all(torch.equal(a, b) for a, b in zip(again, theirs, strict=True)), "not undone"


@pytest.mark.parametrize("name,aggr", LAYERS)
def test_float64(name: str, aggr: str) -> None:
    cls = getattr(load("models.passing"), name)
    theirs = outcome(cls(aggr=aggr), edges(), torch.float64)
    with mmrec.patch("messages", ROOT) as report:
        ours = outcome(cls(aggr=aggr), edges(), torch.float64)
    assert report.replaced
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["Neighbours", "Weighted", "Attention"])
def test_no_array_of_one_row_an_edge(name: str) -> None:
    cls = getattr(load("models.passing"), name)
    with mmrec.patch("messages", ROOT):
        layer = cls(aggr="add")
        outcome(layer, edges())
        with torch.profiler.profile(record_shapes=True) as profile:
            outcome(layer, edges())
    wide = [e.name for e in profile.events() if [edges().shape[1], WIDTH] in e.input_shapes]
    assert not wide


def test_layers_made_before_the_patch_and_after_it() -> None:
    made_before = load("models.passing").Neighbours(aggr="add")
    theirs = outcome(made_before, edges())
    with mmrec.patch("messages", ROOT) as report:
        torch.testing.assert_close(outcome(made_before, edges()), theirs, rtol=1e-5, atol=1e-6)
        made_inside = load("models.passing").Neighbours(aggr="add")
        assert report.replaced
    assert all(torch.equal(a, b) for a, b in zip(outcome(made_before, edges()), theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(outcome(made_inside, edges()), theirs, strict=True))


@pytest.mark.parametrize(
    "name,aggr,why",
    [("Widest", "add", "its own aggregate"), ("Growing", "add", "differs"), ("Neighbours", "max", None)],
)
def test_what_is_left_to_the_library(name: str, aggr: str, why: str | None) -> None:
    cls = getattr(load("models.passing"), name)
    theirs = outcome(cls(aggr=aggr), edges())
    with mmrec.patch("messages", ROOT) as report:
        layer = cls(aggr=aggr)
        ours = outcome(layer, edges())
    left = report.left.get(f"{name}.propagate")
    assert (left is None) if why is None else why in str(left)
    if name != "Growing":
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_an_edge_that_occurs_twice_counts_twice() -> None:
    cls = load("models.passing").Neighbours
    doubled = torch.cat([edges(), edges()[:, :3]], dim=1)
    theirs = outcome(cls(aggr="add"), doubled)
    with mmrec.patch("messages", ROOT):
        outcome(cls(aggr="add"), edges())
        ours = outcome(cls(aggr="add"), doubled)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_node_that_is_not_there_is_the_librarys_error() -> None:
    layer_of = load("models.passing").Neighbours
    wrong = edges().clone()
    wrong[0, 5] = N
    with mmrec.patch("messages", ROOT):
        outcome(layer_of(aggr="add"), edges())
        with pytest.raises(IndexError, match="larger"):
            outcome(layer_of(aggr="add"), wrong)


def test_hooks_are_called() -> None:
    layer, seen = load("models.passing").Neighbours(aggr="add"), []
    with mmrec.patch("messages", ROOT):
        outcome(layer, edges())
        layer.register_message_forward_hook(lambda module, inputs, output: seen.append(type(output)))
        outcome(layer, edges())
    assert seen == [Tensor]


def test_edges_changed_in_place_are_seen() -> None:
    layer_of, changed = load("models.passing").Neighbours, edges()
    with mmrec.patch("messages", ROOT):
        layer = layer_of(aggr="add")
        outcome(layer, changed)
        changed[:, :10] = changed[:, 60:70].flip(0)
        ours = outcome(layer, changed)
    torch.testing.assert_close(ours, outcome(layer_of(aggr="add"), changed), rtol=1e-5, atol=1e-6)


def test_few_lists_of_edges_are_kept() -> None:
    known = KnownEdges()
    for n in range(N, N + 40):
        assert known.of(*edges(), n) is known.of(*edges(), n)
    assert len(known._known) <= 8
