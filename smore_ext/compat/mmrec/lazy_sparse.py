"""A lazy matrix of few edges that stands for a dense one: neighbours with learned weights, and sums of such."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.graph import Graph


class _Term(NamedTuple):
    """Edges with their values [E], in the order of the graph, which may require grad."""

    graph: Graph
    value: Tensor


class LazySparse(Lazy):
    """The sum of some terms. Products, sums over rows, scaling, addition and `detach` are done on the edges."""

    terms: list[_Term]
    _detached: LazySparse | None
    _constant: list[Graph] | None

    @classmethod
    def of(cls, terms: list[_Term]) -> LazySparse:
        live = any(term.value.requires_grad for term in terms)
        matrix = cls._of(terms[0].graph.shape, terms[0].value, live)
        matrix.terms, matrix._detached, matrix._constant = terms, None, None
        return matrix

    @classmethod
    def from_neighbours(cls, index: Tensor, value: Tensor, shape: tuple[int, int]) -> LazySparse:
        """From index [N, k] int64, different within a row, and value [N, k]."""
        n, k = index.shape
        index, order = index.sort(dim=1)
        rowptr = torch.arange(0, n * k + 1, k, device=index.device)
        graph = Graph(rowptr, index.flatten(), torch.ones(n * k, device=index.device), shape)
        return cls.of([_Term(graph, value.gather(1, order).flatten())])

    @classmethod
    def from_dense(cls, matrix: Tensor) -> LazySparse:
        """From a matrix that is there, and stays so for uses that need it whole."""
        row, col = matrix.nonzero(as_tuple=True)
        graph = Graph.from_edges(row, col, None, (matrix.shape[0], matrix.shape[1]))
        sparse = cls.of([_Term(graph, matrix[row, col])])
        sparse._keep(matrix)
        return sparse

    def _make(self) -> Tensor:
        out = torch.zeros(tuple(self.shape), dtype=self.dtype, device=self.device)
        for graph, value in self.terms:
            out = out.index_put((graph.row.long(), graph.col.long()), value, accumulate=True)
        return out

    def times(self, x: Tensor) -> Tensor:
        """Its product with rows x [C, d]."""
        if self.requires_grad:
            return _sum([ops.spmm(graph, x, weight=value) for graph, value in self.terms])
        if self._constant is None:
            self._constant = [graph.with_weight(value) for graph, value in self.terms]
        return _sum([ops.spmm(graph, x) for graph in self._constant])

    def row_sums(self) -> Tensor:
        one = torch.ones(self.shape[1], 1, dtype=self.dtype, device=self.device)
        return _sum([ops.spmm(graph, one, weight=value) for graph, value in self.terms]).squeeze(1)

    def scaled(self, left: Tensor | None, right: Tensor | None) -> LazySparse:
        """Rows times `left` [R], columns times `right` [C]."""
        terms = []
        for graph, value in self.terms:
            value = value if left is None else value * left.index_select(0, graph.row)
            terms.append(_Term(graph, value if right is None else value * right.index_select(0, graph.col)))
        return LazySparse.of(terms)

    def constant(self) -> LazySparse:
        """Without history."""
        if not self.requires_grad:
            return self
        if self._detached is None:
            self._detached = LazySparse.of([_Term(graph, value.detach()) for graph, value in self.terms])
        return self._detached


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _mm(left: Any, right: Any) -> Any:
    if type(left) is not LazySparse or isinstance(right, Lazy):
        return NotImplemented
    if right.ndim != 2 or right.layout != torch.strided or right.dtype != left.dtype:
        return NotImplemented
    return left.times(right)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) or (type(value) is Tensor and value.ndim == 0)


def _mul(a: Any, b: Any) -> Any:
    matrix, number = (a, b) if type(a) is LazySparse else (b, a)
    if not _is_number(number):
        return NotImplemented
    return LazySparse.of([_Term(graph, value * number) for graph, value in matrix.terms])


def _div(a: Any, b: Any) -> Any:
    return _mul(a, 1.0 / b) if type(a) is LazySparse and _is_number(b) else NotImplemented


def _add(a: Any, b: Any, **more: Any) -> Any:
    if more or type(a) is not LazySparse or type(b) is not LazySparse or a.shape != b.shape or a.dtype != b.dtype:
        return NotImplemented
    return LazySparse.of([*a.terms, *b.terms])


def _sum_rule(matrix: Any, dim: Any = None, **more: Any) -> Any:
    return matrix.row_sums() if dim in (-1, 1) and type(dim) is int and not more else NotImplemented


LazySparse.rules = {
    "mm": _mm,
    "spmm": _mm,
    "matmul": _mm,
    "mul": _mul,
    "rmul": _mul,
    "multiply": _mul,
    "div": _div,
    "truediv": _div,
    "add": _add,
    "sum": _sum_rule,
    "detach": lambda matrix: matrix.constant(),
    "clone": lambda matrix: LazySparse.of(matrix.terms),
}
