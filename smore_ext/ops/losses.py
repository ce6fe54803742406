"""Training losses, fused with their gathers (docs/spec.md, section 1, "Loss on a batch")."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors

__all__ = ["bpr_loss", "info_nce", "row_logsumexp"]

_ops = torch.ops.smore_ext
_STEP = 128


@takes_tensors
def bpr_loss(
    user_embeddings: Tensor, item_embeddings: Tensor, users: Tensor, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """BPR and L2 terms of a batch of (user, positive, negative).

    Args:
        user_embeddings: [U, d], float32 or float64.
        item_embeddings: [I, d], same dtype.
        users, positives, negatives: [B] int64 row numbers.

    Returns:
        (bpr, l2), scalars: bpr = -mean(log sigmoid(u.p - u.n)), l2 = sum over the batch of (|u|^2 + |p|^2 + |n|^2) / 2.
        Both are 0 for an empty batch. Differentiable once in the embeddings; gradients add in batch order.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape or device; an id out of range (named with its position).
    """
    bpr, l2, _ = _ops.bpr_loss(user_embeddings, item_embeddings, users, positives, negatives)
    return bpr, l2


@takes_tensors
def info_nce(
    x: Tensor,
    y: Tensor,
    temperature: float | Tensor,
    keys: Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """InfoNCE between rows of the same index, against all rows of the batch or against `keys`.

    log sum_j exp(u_i.w_j / t) - u_i.v_i / t for each row i, with u, v, w the rows of x, y, keys divided by
    max(norm, 1e-12); w = v without keys. A row's own positive counts in the sum only where it is among the keys: with
    all items as keys (LGMRec) it is, with queues of earlier batches it is not.

    Args:
        x, y: [B, d], float32 or float64.
        temperature: t > 0. A tensor of one element that requires grad is learned; its value is not looked at.
        keys: [M, d], same dtype, M >= 1. Duplicate rows count as often as they occur.
        reduction: "mean" (0 for an empty batch), "sum", or "none" for the rows' losses [B].

    Returns:
        Scalar, or [B]. Differentiable once in x, y, keys and a learned temperature; neither B x B nor B x M numbers
        are held in either direction. Under autocast it computes in float32.

    Raises:
        TypeError, ValueError: wrong dtype, device, shapes that differ, temperature not positive, an unknown reduction.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'smore_ext::info_nce: reduction must be "mean", "sum" or "none", got {reduction!r}')
    learned = isinstance(temperature, Tensor) and temperature.requires_grad
    if keys is None and reduction == "mean" and not learned:
        return _ops.info_nce(x, y, temperature)[0]
    if not learned:
        if not temperature > 0:
            raise ValueError(f"smore_ext::info_nce: temperature must be greater than 0, got {float(temperature)}")
        temperature = torch.full((), float(temperature), dtype=x.dtype, device=x.device)
    rows = _ops.info_nce.rows(x, y, keys, temperature)
    if reduction == "none":
        return rows
    if (
        not torch.compiler.is_compiling()
    ):  # in two steps, too short for torch to share out: the same bits for any threads
        total = torch.nn.functional.pad(rows, (0, -rows.shape[0] % _STEP)).view(-1, _STEP).sum(1).sum()
    else:
        total = rows.sum()
    return total if reduction == "sum" or rows.shape[0] == 0 else total / rows.shape[0]


@takes_tensors
def row_logsumexp(a: Tensor, b: Tensor) -> Tensor:
    """log sum_j exp(a_i.b_j) for each row of a: logsumexp of a @ b^T over its columns, which is never held.

    The general form of contrastive losses, and the normaliser of a softmax over all items (full cross entropy):
    `ops.row_logsumexp(users, items) - (users * items[positives]).sum(1)`.

    Args:
        a: [N, d], float32 or float64, finite.
        b: [M, d], same dtype.

    Returns:
        [N]; -infinity for M = 0. Differentiable once in both, in memory of a few times a and b. Under autocast it
        computes in float32.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device.
    """
    return _ops.row_logsumexp(a, b)


@fake("bpr_loss")
def _(
    user_embeddings: Tensor, item_embeddings: Tensor, users: Tensor, positives: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    scalar = user_embeddings.new_empty(())
    return scalar, user_embeddings.new_empty(()), user_embeddings.new_empty(users.shape)


@fake("bpr_loss_backward")
def _(
    grad_bpr: Tensor,
    grad_l2: Tensor,
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
    margin: Tensor,
) -> tuple[Tensor, Tensor]:
    return user_embeddings.new_empty(user_embeddings.shape), item_embeddings.new_empty(item_embeddings.shape)


@fake("info_nce")
def _(x: Tensor, y: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(()), x.new_empty(x.shape[0])


@fake("info_nce_backward")
def _(grad: Tensor, x: Tensor, y: Tensor, log_sum: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


@fake("row_logsumexp")
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0])


@fake("row_logsumexp_backward")
def _(grad: Tensor, a: Tensor, b: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape)


autocast_float32("bpr_loss", "info_nce", "info_nce.rows", "row_logsumexp")
