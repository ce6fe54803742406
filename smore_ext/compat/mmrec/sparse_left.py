"""Products with a constant sparse matrix on the left, by `ops.spmm`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.matmul import LABELS, Product, is_matrix
from smore_ext.compat.mmrec.proof import differs
from smore_ext.compat.mmrec.report import Report

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
_COLUMNS = 3  # of the sample that a product is tried on


class SparseLeft:
    """Takes products whose left is sparse, after each kind of matrix (name, layout, shape) proved equal once."""

    piece = "products"

    def __init__(self, report: Report) -> None:
        self.report = report
        self._proved: dict[tuple[Any, ...], bool] = {}

    def __call__(self, original: Product, left: Any, right: Any) -> Any:
        if type(left) is not Tensor or left.layout not in _LAYOUTS or left.ndim != 2 or not is_matrix(right):
            return NotImplemented
        if left.requires_grad or left.dtype != right.dtype or left.shape[1] != right.shape[0]:
            if left.requires_grad:
                self.report.add(self.piece, _named(original, left), False, "its values are trained")
            return NotImplemented
        key = (id(original), left.layout, left.dtype, left.device.type, tuple(left.shape))
        if key not in self._proved:
            self._proved[key] = self._prove(original, left, right)
        return ops.spmm(left, right) if self._proved[key] else NotImplemented

    def _prove(self, original: Product, left: Tensor, right: Tensor) -> bool:
        sample = torch.linspace(-1, 1, left.shape[1] * _COLUMNS, dtype=right.dtype, device=right.device).sin()
        x = sample.view(left.shape[1], _COLUMNS)
        why = differs(lambda x: original(left, x), lambda x: ops.spmm(left, x), [x])
        self.report.add(self.piece, _named(original, left), why is None, why or "")
        return why is None


def _named(original: Product, left: Tensor) -> str:
    layout = str(left.layout).removeprefix("torch.")
    return f"{LABELS.get(id(original), original.__name__)} of {layout} {left.shape[0]} x {left.shape[1]}"
