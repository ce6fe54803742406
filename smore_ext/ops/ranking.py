"""Scores and ranks of all items for each user."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors
from smore_ext.ops.converted import Matrix, as_csr

__all__ = ["masked_topk"]

_ops = torch.ops.smore_ext


@takes_tensors
def masked_topk(users: Tensor, items: Tensor, k: int, seen: Matrix | None = None) -> tuple[Tensor, Tensor]:
    """The k items of highest dot product for each user, without those already seen.

    Args:
        users: [U, d], float32 or float64.
        items: [I, d], same dtype.
        k: 1 <= k <= I.
        seen: `Graph` [U, I] (or a matrix as in `spmm`) whose row r lists what to leave out for users[r]; None: nothing.

    Returns:
        (score [U, k], index [U, k] int64): score descending, then index ascending. Places with nothing left hold -inf
        and -1; NaN scores are never chosen. No users x items matrix is formed. Not differentiable: backward raises.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, device, k out of range, `seen` of another shape.
    """
    if seen is None:
        return _ops.masked_topk(users, items, k)
    graph = as_csr(seen)
    if users.ndim == items.ndim == 2 and graph.shape != (users.shape[0], items.shape[0]):
        raise ValueError(
            f"masked_topk: seen must have shape {(users.shape[0], items.shape[0])} (users x items), got {graph.shape}"
        )
    return _ops.masked_topk(users, items, k, graph.rowptr, graph.col)


@fake("masked_topk")
def _(
    users: Tensor, items: Tensor, k: int, seen_rowptr: Tensor | None = None, seen_col: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    n = users.shape[0]
    return users.new_empty(n, k), users.new_empty(n, k, dtype=torch.int64)


autocast_float32("masked_topk")
