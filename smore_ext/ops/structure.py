"""The edges of a sparse matrix without weights: what matrices of the same edges share."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops.modes import ordinary, outside_modes


def index_dtype(*sizes: int) -> torch.dtype:
    """int32 where every size fits, else int64."""
    return torch.int32 if max(sizes) < 2**31 else torch.int64


def compress(row: Tensor, n_rows: int, dtype: torch.dtype) -> Tensor:
    """Row pointers [n_rows + 1] from ascending row numbers [E]."""
    bounds = torch.arange(n_rows + 1, dtype=row.dtype, device=row.device)
    return torch.searchsorted(row, bounds, out_int32=dtype == torch.int32)


def _inverse(order: Tensor) -> Tensor:
    """Of a permutation."""
    edges = torch.arange(order.shape[0], dtype=order.dtype, device=order.device)
    return torch.empty_like(order).index_copy_(0, order.long(), edges)


class CsrStructure:
    """The edges of a matrix [R, C] in CSR form, with their transpose made once. Immutable.

    Attributes:
        rowptr: [R+1], int32 or int64.
        col: [E], same dtype, ascending within a row.
        shape: (R, C).
    """

    rowptr: Tensor
    col: Tensor
    shape: tuple[int, int]

    def __init__(self, rowptr: Tensor, col: Tensor, shape: tuple[int, int]) -> None:
        self.rowptr, self.col, self.shape = ordinary(rowptr), ordinary(col), shape
        self._t: CsrStructure | None = None
        self._t_order: Tensor | None = None

    @property
    def row(self) -> Tensor:
        """Row number of each edge, [E], in the dtype of `col`."""
        numbers = torch.arange(self.shape[0], dtype=self.col.dtype, device=self.col.device)
        return numbers.repeat_interleave(self.rowptr.diff().long(), output_size=self.col.shape[0])

    @property
    def t(self) -> CsrStructure:
        """The transpose; itself if it was declared to be its own."""
        return self._transpose()[0] if self._t is None else self._t

    @property
    def t_order(self) -> Tensor:
        """[E], dtype of `col`: edge e of the transpose is edge t_order[e] of this. Known once asked for."""
        if self._t_order is not None:
            return self._t_order
        if self._t is None or self._t._t_order is None:
            return self._transpose()[1]
        inverse = self._t._t_order
        order, lasting = outside_modes(lambda: _inverse(inverse), inverse)
        if lasting:
            self._t_order = order
        return order

    def _transpose(self) -> tuple[CsrStructure, Tensor]:
        (transpose, order), lasting = outside_modes(self._sorted_by_column, self.rowptr, self.col)
        if lasting:
            self._t_order = order
            if self._t is None:
                self.pair(transpose)
        return transpose, order

    def _sorted_by_column(self) -> tuple[CsrStructure, Tensor]:
        """A stable sort by column keeps rows ascending; of integers it is linear, and the quickest way to the order."""
        column, order = torch.sort(self.col, stable=True)
        if self._t is not None:
            return self._t, order.to(self.col.dtype)
        rowptr = compress(column, self.shape[1], self.rowptr.dtype)
        transpose = CsrStructure(rowptr, self.row[order], (self.shape[1], self.shape[0]))
        transpose._t = self
        return transpose, order.to(self.col.dtype)

    def pair(self, transpose: CsrStructure) -> None:
        """Declares its transpose: itself, if its rows are its columns. Nothing is sorted until `t_order` is needed."""
        self._t, transpose._t = transpose, self

    def keep(self, kept: Tensor) -> CsrStructure:
        """Those edges alone where `kept` [E] bool is true. Linear: the transpose is this one's with the gaps closed."""
        order = self.t_order
        t_kept = kept.index_select(0, order)
        child = self._keep(kept)
        place = kept.cumsum(0, dtype=order.dtype) - 1
        child._t_order = place.index_select(0, order.index_select(0, t_kept.nonzero()[:, 0]))
        child.pair(child if self._t is self and torch.equal(kept, t_kept) else self.t._keep(t_kept))
        return child

    def _keep(self, kept: Tensor) -> CsrStructure:
        before = torch.zeros(kept.shape[0] + 1, dtype=self.rowptr.dtype, device=kept.device)  # kept before each edge
        torch.cumsum(kept, 0, out=before[1:])
        col = self.col.index_select(0, kept.nonzero()[:, 0])
        return CsrStructure(before.index_select(0, self.rowptr), col, self.shape)

    def to(self, device: torch.device | str | int) -> CsrStructure:
        """On another device, with what is known of the transpose."""
        moved = CsrStructure(self.rowptr.to(device), self.col.to(device), self.shape)
        if self._t is self:
            moved.pair(moved)
            moved._t_order = None if self._t_order is None else self._t_order.to(device)
        elif self._t is not None:
            moved.pair(CsrStructure(self._t.rowptr.to(device), self._t.col.to(device), self._t.shape))
            if self._t_order is not None or self._t._t_order is not None:
                moved._t_order = self.t_order.to(device)
        return moved
