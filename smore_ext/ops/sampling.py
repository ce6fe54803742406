"""Negative sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import fake
from smore_ext.ops._types import takes_tensors
from smore_ext.ops.converted import as_csr
from smore_ext.ops.csr import CsrMatrix

__all__ = ["sample_negatives"]

_ops = torch.ops.smore_ext


@takes_tensors
def sample_negatives(users: Tensor, seen: CsrMatrix | Tensor, candidates: Tensor, seed: int, offset: int = 0) -> Tensor:
    """For each position a uniformly drawn candidate that its user has not seen.

    The draw at position b depends on (seed, offset, b) alone (Philox4x32-10, counter based): it is the same for any
    number of threads, and one (seed, epoch) pair reproduces an epoch.

    Args:
        users: [B] int64.
        seen: `Graph` [U, I] (or torch sparse tensor): row u lists what user u has interacted with.
        candidates: [C] int64, ascending item ids to draw from, C >= 1.
        seed: at least 0.
        offset: at least 0, for example the epoch.

    Returns:
        [B] int64.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, order or range; a user who has seen every candidate.
    """
    graph = as_csr(seen)
    return _ops.sample_negatives(users, graph.rowptr, graph.col, candidates, seed, offset)


@fake("sample_negatives")
def _(users: Tensor, seen_rowptr: Tensor, seen_col: Tensor, candidates: Tensor, seed: int, offset: int = 0) -> Tensor:
    return users.new_empty(users.shape)
