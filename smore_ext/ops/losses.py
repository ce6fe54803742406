"""Training losses, fused with their gathers (docs/spec.md, section 1, "Loss on a batch")."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors

__all__ = ["bpr_loss", "info_nce"]

_ops = torch.ops.smore_ext


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
def info_nce(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """InfoNCE between rows of the same index, against all rows of the batch.

    mean_i(log sum_j exp(u_i.v_j / t) - u_i.v_i / t), with u, v the rows of x, y divided by max(norm, 1e-12).

    Args:
        x, y: [B, d], float32 or float64. Duplicate rows count as often as they occur.
        temperature: t > 0, a constant.

    Returns:
        Scalar, 0 for an empty batch. Differentiable once in both; no B x B matrix is formed in either direction. Under
        autocast it computes in float32.

    Raises:
        TypeError, ValueError: wrong dtype, shapes that differ, temperature not positive or one that requires grad.
    """
    if isinstance(temperature, Tensor) and temperature.requires_grad:
        raise ValueError(
            "info_nce: temperature must be a constant, got a tensor that requires grad; it receives no gradient here"
        )
    return _ops.info_nce(x, y, temperature)[0]


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


autocast_float32("bpr_loss", "info_nce")
