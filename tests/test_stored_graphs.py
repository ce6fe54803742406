"""`torch.save` and `torch.load` of graphs, which executes nothing, and pickles between processes."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smore_ext import Graph, ops
from smore_ext.graph import stored


def saved_and_loaded(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


EACH_WAY = pytest.mark.parametrize("again", [saved_and_loaded, pickled, copy.deepcopy])


def bipartite() -> Graph:
    return Graph.bipartite(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 3)


def directed(weight: Tensor | None = None) -> Graph:
    weight = torch.tensor([1.0, 2.0, 3.0]) if weight is None else weight
    return Graph.from_edges(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0]), None, (2, 3)).with_weight(weight)


def same(a: Graph, b: Graph) -> bool:
    parts = ((a.rowptr, b.rowptr), (a.col, b.col), (a.weight, b.weight))
    return a.shape == b.shape and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in parts)


@EACH_WAY
@pytest.mark.parametrize(
    "make",
    [bipartite, directed, lambda: directed().t, lambda: directed().double(), lambda: bipartite().rows(torch.arange(0))],
)
def test_a_graph_comes_back(again: Callable[[Any], Any], make: Callable[[], Graph]) -> None:
    graph = make()
    graph.to_sparse("csr")
    other = again(graph)
    assert same(other, graph) and same(other.t, graph.t) and other.t.t is other
    assert (other.t is other) == (graph.t is graph)
    assert (other.scale is None) == (graph.scale is None)
    if graph.scale is not None:
        assert torch.equal(other.scale, graph.scale)
        x = torch.randn(5, 4)
        assert torch.equal(ops.propagate(other, x, 3), ops.propagate(graph, x, 3))


@EACH_WAY
def test_learned_weights_come_back_with_the_parameter_that_they_are(again: Callable[[Any], Any]) -> None:
    weight = nn.Parameter(torch.rand(3))
    graph = directed(weight)
    other, transpose, own = again([graph, graph.t, weight])
    assert other.requires_grad and transpose.is_live_transpose and other.weight is own
    ops.spmm(transpose, torch.ones(2, 1)).sum().backward()
    assert torch.equal(own.grad, torch.ones(3)) and weight.grad is None


def test_a_model_that_holds_graphs_is_saved_with_its_state() -> None:
    state = {"graphs": {"item": bipartite(), "both": [directed()]}, "weight": torch.ones(2)}
    again = saved_and_loaded(state)
    assert same(again["graphs"]["item"], bipartite()) and same(again["graphs"]["both"][0], directed())
    twice = saved_and_loaded([state["graphs"]["item"]] * 2)
    assert twice[0] is twice[1]


def parts(graph: Graph) -> list[Any]:
    return list(graph.__reduce__()[1])


CHANGES: dict[str, tuple[Callable[[list[Any]], Any], type[Exception], str]] = {
    "column out of range": (lambda p: p[2].fill_(7), IndexError, r"col must be in 0\.\.4"),
    "pointers": (lambda p: p[1].fill_(1), IndexError, "rowptr must ascend from 0"),
    "weights": (lambda p: p.__setitem__(3, torch.ones(2)), ValueError, "equally long"),
    "scale": (lambda p: p[5].fill_(3.0), ValueError, "must be what its scale says: the file is damaged"),
    "shape of scale": (lambda p: p.__setitem__(5, torch.ones(2)), ValueError, "must be what its scale says"),
    "no tensor": (lambda p: p.__setitem__(5, [1.0]), TypeError, "scale must be a Tensor"),
    "not symmetric": (lambda p: p[3].mul_(torch.arange(6)), ValueError, "scale|its own transpose"),
    "not square": (
        lambda p: p.__setitem__(slice(1, 6), parts(directed())[1:6]),
        ValueError,
        "its own transpose, as it",
    ),
    "class": (lambda p: p.__setitem__(0, dict), TypeError, "must be of a class of graphs, got <class 'dict'>"),
    "of no graph": (lambda p: p.__setitem__(slice(1, 7), [torch.ones(2)]), TypeError, "must be a Graph, got"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_read_is_checked(name: str) -> None:
    change, error, message = CHANGES[name]
    given = [part.clone() if isinstance(part, Tensor) else part for part in parts(bipartite())]
    change(given)
    with pytest.raises(error, match=message):
        stored(*given)


def test_weights_that_are_not_symmetric_are_refused_without_a_scale() -> None:
    given = parts(Graph.bipartite(torch.tensor([0, 1]), torch.tensor([0, 1]), 2, 2))
    given[3], given[5] = torch.arange(4.0), None
    with pytest.raises(ValueError, match="its own transpose, as it says: the file is damaged"):
        stored(*given)


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def test_loading_beside_a_graph_executes_nothing(tmp_path: Path) -> None:
    file, mark = tmp_path / "graph.pt", tmp_path / "mark"
    torch.save({"graph": bipartite(), "other": _Bomb(mark)}, file)
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global|not an allowed global"):
        torch.load(file, weights_only=True)
    assert not mark.exists()
