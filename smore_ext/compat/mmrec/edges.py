"""Lists of edges in any order as the graphs that products take, each sorted once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smore_ext.compat.mmrec.recent import Recent
from smore_ext.graph import Graph


class _InOrder(torch.autograd.Function):
    """value[order]; order is a permutation, so its gradient is a gather too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.orders = order, back
        return value.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, back = ctx.orders
        return _InOrder.apply(grad, back, order), None, None


class Edges:
    """E edges from `source` to `destination` among n nodes; `graph` has the destinations as rows, and weights of one.

    order: the edges' numbers in the order of the graph; back: the inverse, or both None where that is their own order.
    """

    def __init__(self, destination: Tensor, source: Tensor, n: int) -> None:
        self.destination, self.source, self.number, self.n = destination, source, destination.shape[0], n
        key = destination * n + source
        sorted_key, order = key.sort(stable=True)
        self.distinct = bool((sorted_key[1:] != sorted_key[:-1]).all())
        own = bool((key == sorted_key).all())
        self.order: Tensor | None = None if own else order
        self.back: Tensor | None = None if own else torch.argsort(order)
        degree = torch.bincount(destination, minlength=n)
        self.rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        # Of edges in means, in the graph's order.
        self.share = degree.double().reciprocal().repeat_interleave(degree)
        if self.distinct:
            one = torch.ones(self.number, dtype=torch.float64, device=key.device)
            self.graph = Graph(self.rowptr, source.index_select(0, order), one, (n, n))
            self.means = self.graph.with_weight(self.share)
        self._sums: dict[bool, Graph] = {}

    def to_graph(self, value: Tensor) -> Tensor:
        """Values [E], brought into the order of `graph.col`."""
        return value if self.order is None else _InOrder.apply(value, self.order, self.back)

    def from_graph(self, value: Tensor) -> Tensor:
        """Values [E] in the order of `graph.col`, brought into the edges' own."""
        return value if self.back is None else _InOrder.apply(value, self.back, self.order)

    def sums_of_rows(self, mean: bool) -> Graph:
        """[n, E]: sums rows [E, d] of the edges by destination."""
        if mean not in self._sums:
            column = self.destination.argsort(stable=True)
            weight = self.share if mean else torch.ones_like(self.share)
            self._sums[mean] = Graph(self.rowptr, column, weight, (self.n, self.number))
        return self._sums[mean]


class KnownEdges:
    """Those that were asked for last."""

    def __init__(self) -> None:
        self._known: Recent[Edges] = Recent()

    def of(self, destination: Tensor, source: Tensor, n: int) -> Edges | None:
        """None where an edge occurs twice or names a node that is not there: then no graph stands for the list."""

        def same(edges: Edges) -> bool:
            ends = (edges.destination, destination), (edges.source, source)
            return edges.n == n and all(torch.equal(a, b) for a, b in ends)

        edges = self._known.find(same)
        if edges is None:
            lowest, highest = (bound(torch.stack([destination, source])) for bound in (torch.min, torch.max))
            if not 0 <= int(lowest) <= int(highest) < n:
                return None
            edges = Edges(destination.clone(), source.clone(), n)
            self._known.add(edges)
        return edges if edges.distinct else None
