"""Products with a sparse matrix on the left, constant or with values that are trained, by `ops.spmm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.deferred import step_for
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.matmul import LABELS, Product, is_matrix
from smore_ext.compat.mmrec.proof import differs
from smore_ext.compat.mmrec.recent import Recent
from smore_ext.compat.mmrec.report import Report
from smore_ext.graph import Graph

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
_COLUMNS = 3  # of the sample that a product is tried on


class SparseLeft:
    """Takes products whose left is sparse, after each kind of matrix (name, layout, shape) proved equal once."""

    piece = "products"

    def __init__(self, report: Report) -> None:
        self.report = report
        self._proved: dict[tuple[Any, ...], bool] = {}
        self._structures: Recent[tuple[Tensor, Graph]] = Recent()  # of matrices whose values are trained

    def __call__(self, original: Product, left: Any, right: Any) -> Any:
        if type(left) is not Tensor or left.layout not in _LAYOUTS or left.ndim != 2:
            return NotImplemented
        step = None if left.requires_grad else step_for(right)
        if step is None:
            right = formed(right)
            if not is_matrix(right):
                return NotImplemented
        if left.dtype != right.dtype or left.shape[1] != right.shape[0]:
            return NotImplemented
        if left.requires_grad:
            return self._trained(original, left, right)
        key = (id(original), left.layout, left.dtype, left.device.type, tuple(left.shape))
        if key not in self._proved:
            self._proved[key] = self._prove(original, left, right)
        if not self._proved[key]:
            return NotImplemented
        return ops.spmm(left, right) if step is None else step.spread(left, right)

    def _trained(self, original: Product, left: Tensor, right: Tensor) -> Any:
        """Where its values receive gradients: COO, whose values torch gives with their history."""
        if left.layout != torch.sparse_coo:
            self.report.add(self.piece, _named(original, left), False, "its values are trained, and it is no COO")
            return NotImplemented
        left = left.coalesce()
        index, value = left.indices(), left.values()
        if value.ndim != 1 or not index.numel():
            return NotImplemented
        graph = self._structure(index, (left.shape[0], left.shape[1]))
        key = (id(original), "trained", left.dtype, left.device.type, tuple(left.shape))
        if key not in self._proved:

            def theirs(v: Tensor, x: Tensor) -> Any:
                return original(torch.sparse_coo_tensor(index, v, left.shape, is_coalesced=True), x)

            x = _sample(left, right)
            why = differs(theirs, lambda v, x: ops.spmm(graph, x, weight=v), [value, x])
            self.report.add(self.piece, f"{_named(original, left)}, trained", why is None, why or "")
            self._proved[key] = why is None
        return ops.spmm(graph, right, weight=value) if self._proved[key] else NotImplemented

    def _structure(self, index: Tensor, shape: tuple[int, int]) -> Graph:
        """Edges [2, E] in the order of rows, then columns, each once; those that were asked for last are kept."""
        known = self._structures.find(lambda k: k[1].shape == shape and torch.equal(k[0], index))
        if known is not None:
            return known[1]
        rowptr = torch.bincount(index[0], minlength=shape[0]).cumsum(0)
        one = torch.ones(index.shape[1], dtype=torch.float64, device=index.device)
        graph = Graph(torch.cat([rowptr.new_zeros(1), rowptr]), index[1].clone(), one, shape)
        self._structures.add((index.clone(), graph))
        return graph

    def _prove(self, original: Product, left: Tensor, right: Tensor) -> bool:
        x = _sample(left, right)
        why = differs(lambda x: original(left, x), lambda x: ops.spmm(left, x), [x])
        self.report.add(self.piece, _named(original, left), why is None, why or "")
        return why is None


def _sample(left: Tensor, right: Tensor) -> Tensor:
    """Rows that a product is tried on."""
    count = left.shape[1] * _COLUMNS
    return torch.linspace(-1, 1, count, dtype=right.dtype, device=right.device).sin().view(-1, _COLUMNS)


def _named(original: Product, left: Tensor) -> str:
    layout = str(left.layout).removeprefix("torch.")
    return f"{LABELS.get(id(original), original.__name__)} of {layout} {left.shape[0]} x {left.shape[1]}"
