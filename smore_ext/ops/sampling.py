"""Negative sampling and dropout: random numbers that a counter makes."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import fake
from smore_ext.ops._types import takes_tensors
from smore_ext.ops.converted import as_csr
from smore_ext.ops.csr import CsrMatrix

__all__ = ["dropout", "sample_negatives"]

_ops = torch.ops.smore_ext


@takes_tensors
def dropout(x: Tensor, p: float, seed: int, offset: int | Tensor = 0) -> Tensor:
    """x / (1 - p) where an element is kept, with probability 1 - p, and 0 elsewhere.

    Whether an element is kept depends on (seed, offset, its index) alone (Philox4x32-10, counter based): not on the
    dtype, the device or the number of threads, and backward finds it again, so no mask is kept.

    Args:
        x: one dimension or more, float32, float64 or bfloat16.
        p: at least 0, less than 1.
        seed: at least 0.
        offset: at least 0, another one for each call: the step, for example. As a tensor (int64, one element, on the
            device of x) it is read when the op runs, at each replay of a CUDA graph as well, and a compiled step is not
            compiled anew for another one; it must not change before backward. Its value is not looked at.

    Returns:
        The shape and dtype of x. Differentiable any number of times; autocast does not apply.

    Raises:
        TypeError, ValueError: wrong dtype or device, p, seed or offset out of range.
    """
    if isinstance(offset, Tensor):
        return _ops.dropout(x, p, seed, 0, offset)
    return _ops.dropout(x, p, seed, offset)


@fake("dropout")
def _(x: Tensor, p: float, seed: int, offset: int = 0, step: Tensor | None = None) -> Tensor:
    return x.new_empty(x.shape)


@takes_tensors
def sample_negatives(
    users: Tensor,
    seen: CsrMatrix | Tensor,
    candidates: Tensor,
    seed: int,
    offset: int = 0,
    first: int = 0,
    n: int | None = None,
) -> Tensor:
    """For each position a uniformly drawn candidate that its user has not seen.

    The draw at a position depends on (seed, offset, position) alone (Philox4x32-10, counter based), whatever the number
    of threads. Positions are those of an epoch: `users` may be all of it, or a batch, whose place `first` says:

        sample_negatives(epoch_users, seen, candidates, seed, offset=epoch)  # once an epoch, or, the same bits,
        sample_negatives(batch_users, seen, candidates, seed, offset=epoch, first=start)  # for each of its batches

    Without its `first` each batch of an epoch would get the draws of the first one.

    Args:
        users: [B] int64.
        seen: `Graph` [U, I] (or torch sparse tensor): row u lists what user u has interacted with.
        candidates: [C] int64 item ids to draw from, C >= 1, in any order; one that is listed twice is twice as likely.
        seed: at least 0.
        offset: at least 0: the epoch.
        first: at least 0: position of users[0] in the epoch.
        n: draws for each user, independent of each other. The same bits as for each user n times in a row.

    Returns:
        [B] int64, or [B, n].

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape or range; a user who has seen every candidate.
    """
    graph = as_csr(seen)
    if n is None:
        return _ops.sample_negatives(users, graph.rowptr, graph.col, candidates, seed, offset, first)
    if n < 1:
        raise ValueError(f"smore_ext::sample_negatives: n must be at least 1, got {n}")
    if users.ndim != 1:
        raise ValueError(f"smore_ext::sample_negatives: users must be 1-d, got shape {tuple(users.shape)}")
    drawn = _ops.sample_negatives(
        users.repeat_interleave(n), graph.rowptr, graph.col, candidates, seed, offset, first * n
    )
    return drawn.view(-1, n)


@fake("sample_negatives")
def _(
    users: Tensor,
    seen_rowptr: Tensor,
    seen_col: Tensor,
    candidates: Tensor,
    seed: int,
    offset: int = 0,
    first: int = 0,
) -> Tensor:
    return users.new_empty(users.shape)
