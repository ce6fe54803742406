"""Message passing as PyTorch Geometric spells it, by products with the graph: no array of one row an edge."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.edges import Edges, KnownEdges
from smore_ext.compat.mmrec.lazy import Lazy, formed
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import classes_of, differs
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps

_CONV, _UTILS = "torch_geometric.nn.conv.message_passing", "torch_geometric.utils"
_HOOKS = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
_Run = Callable[..., Any]
_OTHER = object()  # in place of a result: what is asked for is left to the library


class LazyRows(Lazy):
    """`x_j` or `x_i`: the rows of x at the edges' sources or destinations, [E, d], times values of the edges."""

    x: Tensor
    edges: Edges
    at_source: bool
    value: Tensor | None  # [E], in the order of the edges

    @classmethod
    def of(cls, x: Tensor, edges: Edges, at_source: bool, value: Tensor | None = None) -> LazyRows:
        live = torch.is_grad_enabled() and (x.requires_grad or (value is not None and value.requires_grad))
        rows = cls._of((edges.number, x.shape[1]), x, live, x, *(() if value is None else (value,)))
        rows.x, rows.edges, rows.at_source, rows.value = x, edges, at_source, value
        return rows

    def _make(self) -> Tensor:
        rows = self.x.index_select(0, self.edges.source if self.at_source else self.edges.destination)
        return rows if self.value is None else rows * self.value.unsqueeze(1)


class LazyPairs(Lazy):
    """`x_i * x_j`, of which mostly the sum over the width is wanted."""

    own: LazyRows  # at the destinations
    other: LazyRows

    @classmethod
    def of(cls, own: LazyRows, other: LazyRows) -> LazyPairs:
        pairs = cls._of(tuple(own.shape), own.x, own.requires_grad or other.requires_grad)
        pairs.own, pairs.other = own, other
        return pairs

    def _make(self) -> Tensor:
        return self.own.dense() * self.other.dense()


def _mul(a: Any, b: Any, **more: Any) -> Any:
    rows, by = (a, b) if type(a) is LazyRows else (b, a)
    if more or type(rows) is not LazyRows:
        return NotImplemented
    if type(by) is LazyRows:
        pair = (rows, by) if by.at_source else (by, rows)
        fits = rows.edges is by.edges and rows.at_source != by.at_source and rows.x.shape[1] == by.x.shape[1]
        plain = rows.value is None and by.value is None and rows.dtype == by.dtype
        return LazyPairs.of(*pair) if fits and plain else NotImplemented
    if not is_matrix(by) or by.shape != (rows.edges.number, 1) or by.dtype != rows.dtype:
        return NotImplemented
    value = by.squeeze(1)
    return LazyRows.of(rows.x, rows.edges, rows.at_source, value if rows.value is None else rows.value * value)


def _sum(pairs: LazyPairs, dim: Any = None, **more: Any) -> Any:
    if more or dim not in (1, -1) or type(dim) is not int:
        return NotImplemented
    edges = pairs.own.edges
    return edges.from_graph(ops.edge_dot(edges.graph, pairs.own.x, pairs.other.x))


LazyRows.rules = {"mul": _mul, "rmul": _mul, "multiply": _mul}
LazyPairs.rules = {"sum": _sum}


class Messages:
    """`propagate` of the tree's own layers. What `message` makes of `x_j` and `x_i` is watched at each call: rows, rows
    times a value for each edge, and products of both ends need no array of the edges; any other is made, and summed."""

    piece = "messages"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._known = KnownEdges()
        self._current: Edges | None = None  # of the call that runs now
        self._softmax = False

    def visit(self, module: ModuleType) -> None:
        base = getattr(sys.modules.get(_CONV), "MessagePassing", None)
        if base is None:
            return
        if not self._softmax and hasattr(sys.modules.get(_UTILS), "softmax"):
            self._softmax = True
            self.swaps.replace(sys.modules[_UTILS], "softmax", self._with_softmax(sys.modules[_UTILS].softmax))
        for cls in classes_of(module):
            if issubclass(cls, base):
                self._layer(cls, base)

    def _with_softmax(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`softmax(src, index, ..)` over the edges of each destination, where these are those of the call."""

        @functools.wraps(original)
        def softmax(src: Any, index: Any = None, *args: Any, **kwargs: Any) -> Any:
            edges = self._current
            ours = edges is not None and index is edges.destination and not args and kwargs.keys() <= {"num_nodes"}
            if edges is None or not ours or type(src) is not Tensor or src.shape != (edges.number,):
                return original(src, index, *args, **kwargs)
            return edges.from_graph(ops.edge_softmax(edges.graph, edges.to_graph(src)))

        return softmax

    def _layer(self, cls: type, base: Any) -> None:
        name = f"{cls.__name__}.propagate"
        inherited = [hook for hook in ("propagate", "aggregate") if _defined(cls, base, hook)]
        if inherited:
            self.report.add(self.piece, name, False, f"it has its own {' and '.join(inherited)}")
            return
        # The library puts a compiled form of it on each class that is used: the class's own comes before.
        original = cls.propagate if "propagate" in vars(cls) else base.propagate  # type: ignore[attr-defined]
        proved: dict[Any, bool] = {}

        @functools.wraps(base.propagate)
        def propagate(layer: Any, edge_index: Any, size: Any = None, **kwargs: Any) -> Any:
            kwargs = {name: formed(value) for name, value in kwargs.items()}
            vars(layer).update({name: formed(value) for name, value in vars(layer).items()})
            call = functools.partial(self._call, layer, edge_index, size)
            if _takes(layer, edge_index, kwargs) and not torch.compiler.is_compiling():
                kind = layer.aggr, layer.flow, tuple(kwargs)
                if kind not in proved:
                    theirs = functools.partial(original, layer, edge_index, size=size)
                    why = self._doubt(layer, theirs, call, kwargs)
                    proved[kind] = why is None
                    self.report.add(self.piece, name, why is None, why or f"aggr={layer.aggr!r}")
                outcome = call(**kwargs) if proved[kind] else _OTHER
                if outcome is not _OTHER:
                    return outcome
            return original(layer, edge_index, size=size, **kwargs)

        self.swaps.set(cls, "propagate", propagate)

    def _doubt(
        self, layer: Any, theirs: Callable[..., Any], ours: Callable[..., Any], kwargs: dict[str, Any]
    ) -> str | None:
        """Both on the call's own data, with gradients also in tensors that the layer holds for its messages."""
        held = [n for n, v in vars(layer).items() if type(v) is Tensor and v.requires_grad]
        before = dict(vars(layer))

        def run(function: _Run, *values: Any) -> Any:
            vars(layer).update(zip(held, values, strict=False))
            return function(**dict(zip(kwargs, values[len(held) :], strict=True)))

        try:
            values = [*(before[name] for name in held), *kwargs.values()]
            return differs(functools.partial(run, theirs), functools.partial(run, ours), values)
        finally:
            vars(layer).clear()
            vars(layer).update(before)

    def _call(self, layer: Any, edge_index: Tensor, size: Any, **kwargs: Any) -> Any:
        i, j = (1, 0) if layer.flow == "source_to_target" else (0, 1)
        sizes = {v.shape[0] for v in kwargs.values() if is_matrix(v)}
        if len(sizes) != 1 or any(n not in (None, *sizes) for n in size or ()):
            return _OTHER  # sources and destinations of different kinds
        n = sizes.pop()
        edges = self._known.of(edge_index[i], edge_index[j], n)
        if edges is None:
            return _OTHER
        given = {
            **kwargs,
            **{f"{k}_i": LazyRows.of(v, edges, False) for k, v in kwargs.items() if is_matrix(v)},
            **{f"{k}_j": LazyRows.of(v, edges, True) for k, v in kwargs.items() if is_matrix(v)},
            **dict.fromkeys(("size_i", "size_j", "dim_size"), n),
            "edge_index": edge_index,
            "edge_index_i": edges.destination,
            "index": edges.destination,
            "edge_index_j": edges.source,
            "size": [n, n],
            "ptr": None,
        }
        asked, last = _asked(layer.message, given, 0), _asked(layer.update, given, 1)
        if asked is None or last is None:
            return _OTHER
        before, self._current = self._current, edges
        try:
            messages = layer.message(**asked)
        finally:
            self._current = before
        if not isinstance(messages, Tensor) or messages.ndim != 2 or messages.shape[0] != edges.number:
            return _OTHER
        return layer.update(_summed(messages, edges, layer.aggr == "mean"), **last)


def _defined(cls: type, base: type, name: str) -> bool:
    """Whether a class, or one between it and `base`, writes this method itself; what was compiled for it is not."""
    between = [c for c in cls.__mro__ if issubclass(c, base) and c is not base]
    return any(getattr(vars(c).get(name), "__module__", "") == c.__module__ for c in between)


def _takes(layer: Any, edge_index: Any, kwargs: dict[str, Any]) -> bool:
    hooked = any(getattr(layer, f"_{hook}_forward{when}_hooks", None) for hook in _HOOKS for when in ("", "_pre"))
    usual = getattr(layer, "node_dim", None) == -2 and getattr(layer, "decomposed_layers", 1) == 1
    plain = type(edge_index) is Tensor and edge_index.layout == torch.strided and edge_index.dtype == torch.int64
    shaped = plain and edge_index.ndim == 2 and edge_index.shape[0] == 2 and edge_index.shape[1] > 0
    return (
        shaped and usual and not hooked and not getattr(layer, "explain", None) and layer.aggr in ("add", "sum", "mean")
    )


def _asked(method: Any, given: dict[str, Any], skip: int) -> dict[str, Any] | None:
    """The arguments that a method names, or None where one is neither given nor has a default."""
    asked = {}
    for name, parameter in list(inspect.signature(method).parameters.items())[skip:]:
        if name in given:
            asked[name] = given[name]
        elif parameter.default is inspect.Parameter.empty:
            return None
    return asked


def _summed(messages: Tensor, edges: Edges, mean: bool) -> Tensor:
    """The sum, or mean, over the edges of each destination."""
    if type(messages) is LazyRows and messages.edges is edges and messages.at_source:
        if messages.value is None:
            return ops.spmm(edges.means if mean else edges.graph, messages.x)
        value = edges.to_graph(messages.value)
        return ops.spmm(edges.graph, messages.x, weight=value * edges.share.to(value.dtype) if mean else value)
    rows = messages.dense() if isinstance(messages, Lazy) else messages
    return ops.spmm(edges.sums_of_rows(mean), rows)
