"""The similarities x x^T of all rows, of which foreign code mostly wants the largest of each row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.compat.mmrec.lazy_sparse import LazySparse
from smore_ext.compat.mmrec.proof import difference
from smore_ext.compat.mmrec.report import Report
from smore_ext.graph import Graph

_ROWS = 16  # of the sample that a topk is tried on
_NORM = 1e-4  # how far from 1 the norm of a normalised row may be


class LazyGram(Lazy):
    """x x^T for rows x [N, D]. Its `topk` is `ops.knn` where rows are normalised, else `ops.masked_topk`."""

    rows: Tensor
    report: Report

    @classmethod
    def of(cls, rows: Tensor, report: Report) -> LazyGram:
        gram = cls._of((rows.shape[0], rows.shape[0]), rows, rows.requires_grad and torch.is_grad_enabled(), rows)
        gram.rows, gram.report = rows, report
        return gram

    def _make(self) -> Tensor:
        self.report.add("knn", f"x x^T of {self.shape[0]} rows", False, "it is used whole")
        return torch.einsum("nd,md->nm", self.rows, self.rows)

    def _nearest(self, k: int) -> tuple[Tensor, Tensor] | None:
        """(similarity, index), or None where the sample differs from torch."""
        rows = self.rows.detach()
        norms = rows.norm(dim=1)
        if not bool(torch.isfinite(norms).all()):
            return None
        normalised = bool(((norms - 1).abs() < _NORM).all())
        value, index = ops.knn(rows, k) if normalised else ops.masked_topk(rows, rows, k)
        expected = torch.einsum("nd,md->nm", rows[:_ROWS], rows).topk(k, dim=-1).values
        why = difference("similarity", expected, value[:_ROWS])
        self.report.add("knn", f"topk of x x^T, {self.shape[0]} rows", why is None, why or "")
        return (value, index) if why is None else None


def _topk(gram: LazyGram, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, **more: Any) -> Any:
    if more or dim not in (-1, 1) or not largest or not 1 <= k <= gram.shape[0]:
        return NotImplemented
    nearest = gram._nearest(k)
    if nearest is None:
        return NotImplemented
    value, index = nearest
    if gram.requires_grad and torch.is_grad_enabled():
        n = gram.shape[0]
        columns, order = index.sort(dim=1)
        rowptr = torch.arange(0, n * k + 1, k, device=index.device)
        graph = Graph(rowptr, columns.flatten(), torch.ones(n * k, device=index.device), (n, n))
        value = ops.edge_dot(graph, gram.rows, gram.rows).view(n, k).gather(1, order.argsort(dim=1))
    return torch.return_types.topk((value, index))


class _LazyZeros(Lazy):
    """Zeros like a lazy matrix, into which neighbours are scattered."""

    @classmethod
    def of(cls, like: Tensor) -> _LazyZeros:
        return cls._of(tuple(like.shape), like, False)

    def become(self, other: Lazy) -> Lazy:
        """In place, as scatter_ is."""
        self.__class__ = type(other)  # type: ignore[assignment]
        vars(self).clear()
        vars(self).update(vars(other))
        return self

    def _make(self) -> Tensor:
        return torch.zeros(tuple(self.shape), dtype=self.dtype, device=self.device)


def _zeros_like(matrix: Lazy, **more: Any) -> Any:
    return NotImplemented if more else _LazyZeros.of(matrix)


def _scatter(zeros: _LazyZeros, dim: int, index: Tensor, src: Any, **more: Any) -> Any:
    if more or dim not in (-1, 1) or type(src) is not Tensor or index.shape != src.shape or zeros._dense is not None:
        return NotImplemented
    if index.shape[0] != zeros.shape[0] or bool((index.sort(dim=1).values.diff(dim=1) == 0).any()):
        return NotImplemented
    sparse = LazySparse.from_neighbours(index, src, (zeros.shape[0], zeros.shape[1]))
    return zeros.become(sparse)


LazyGram.rules = {
    "topk": _topk,
    "zeros_like": _zeros_like,
    "detach": lambda gram: LazyGram.of(gram.rows.detach(), gram.report),
}
_LazyZeros.rules = {"scatter_": _scatter, "zeros_like": _zeros_like}
