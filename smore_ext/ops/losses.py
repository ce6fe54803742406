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
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    positives: Tensor | None = None,
    negatives: Tensor | None = None,
    gamma: float = 0.0,
    norms: bool = False,
) -> tuple[Tensor, Tensor]:
    """BPR and L2 terms of a batch of (user, positive, negative).

    With ids, gathers and the scatters of their gradients are fused:

        bpr, l2 = ops.bpr_loss(user_embeddings, item_embeddings, users, positives, negatives)

    Rows that are gathered already come without ids:

        bpr, l2 = ops.bpr_loss(user_rows, positive_rows, negative_rows)

    Args:
        user_embeddings: [U, d], float32 or float64. Without ids: the users' rows [B, d].
        item_embeddings: [I, d], same dtype. Without ids: the positives' rows [B, d].
        users, positives: [B] int64 row numbers. Without ids, the third argument is the negatives' rows, [B, d] or
            [B, n, d], and the next two are left out.
        negatives: [B] or [B, n] int64.
        gamma: at least 0. bpr is -mean(log(gamma + sigmoid(m))); with 0 it does not overflow for any margin.
        norms: whether the sums of squares are returned apart.

    Returns:
        (bpr, l2), scalars: bpr = -mean(log sigmoid(u.p - u.n)) over all pairs of a positive and a negative, l2 =
        sum over the batch of (|u|^2 + |p|^2 + |n|^2) / 2. With `norms`, l2 is instead [3]: the sums of |u|^2, |p|^2
        and |n|^2, whose roots are the norms of EmbLoss. All are 0 for an empty batch. Differentiable once in the
        embeddings; gradients add in batch order.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape or device; an id out of range (named with its position).
    """
    if positives is None or negatives is None:
        if positives is not None or negatives is not None:
            raise TypeError("smore_ext::bpr_loss: positives and negatives must be given both or not at all, got one")
        user_embeddings, item_embeddings, users, positives, negatives = _gathered(
            user_embeddings, item_embeddings, users
        )
    elif negatives.ndim == 1 and gamma == 0 and not norms:
        bpr, l2, _ = _ops.bpr_loss(user_embeddings, item_embeddings, users, positives, negatives)
        return bpr, l2
    n = 1
    if negatives.ndim == 2:
        # repeat_interleave would take ids of any shape.
        if users.ndim != 1 or positives.shape != users.shape:
            raise ValueError(
                f"smore_ext::bpr_loss: users and positives must have shape [B], got {list(users.shape)} and "
                f"{list(positives.shape)}"
            )
        if negatives.shape[0] != users.shape[0] or negatives.shape[1] == 0:
            raise ValueError(
                f"smore_ext::bpr_loss: negatives must have shape [{users.shape[0]}] or [{users.shape[0]}, n], got "
                f"{list(negatives.shape)}"
            )
        n = negatives.shape[1]
        users, positives = users.repeat_interleave(n), positives.repeat_interleave(n)
        negatives = negatives.reshape(-1)
    bpr, squares, _ = _ops.bpr_loss.apart(user_embeddings, item_embeddings, users, positives, negatives, gamma)
    if n > 1:  # users and positives were counted once for each of their negatives
        squares = torch.cat([squares[:2] / n, squares[2:]])
    return bpr, squares if norms else squares.sum() / 2


def _gathered(users: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows as the two tables that they are, and their ids."""
    for name, rows in (
        ("the users' rows", users),
        ("the positives' rows", positives),
        ("the negatives' rows", negatives),
    ):
        if not users.is_floating_point() or rows.dtype != users.dtype:
            raise TypeError(
                f"smore_ext::bpr_loss: rows must be all float32 or all float64, got {rows.dtype} for {name}"
            )
        if rows.device != users.device:
            raise ValueError(
                f"smore_ext::bpr_loss: {name} must be on the device of the users' ({users.device}), got {rows.device}"
            )
    size = users.shape[0] if users.ndim else 0
    several = negatives.ndim == 3 and negatives.shape[1] > 0
    if (
        users.ndim != 2
        or positives.shape != users.shape
        or (negatives[:, 0] if several else negatives).shape != users.shape
    ):
        raise ValueError(
            "smore_ext::bpr_loss: without ids, rows must have shapes [B, d], [B, d] and [B, d] or [B, n, d], got "
            f"{list(users.shape)}, {list(positives.shape)} and {list(negatives.shape)}"
        )
    ids = torch.arange(size, device=users.device)
    items = torch.cat([positives, negatives.flatten(0, 1) if several else negatives])
    of_negatives = torch.arange(size, items.shape[0], device=users.device)
    return users, items, ids, ids, of_negatives.view(size, negatives.shape[1]) if several else of_negatives


@takes_tensors
def info_nce(
    x: Tensor,
    y: Tensor,
    temperature: float | Tensor,
    keys: Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    counts: Tensor | None = None,
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
        counts: [B] int64, at least 1: how often the batch has each pair of rows, which x and y then hold once. The
            value is that of the rows repeated, for the work of the distinct ones. Only with `reduction="mean"`, a
            number as temperature, and no keys. On a GPU its values are not looked at.

    Returns:
        Scalar, or [B]. Differentiable once in x, y, keys and a learned temperature; neither B x B nor B x M numbers
        are held in either direction. Under autocast it computes in float32.

    Raises:
        TypeError, ValueError: wrong dtype, device, shapes that differ, temperature not positive, an unknown reduction.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'smore_ext::info_nce: reduction must be "mean", "sum" or "none", got {reduction!r}')
    learned = isinstance(temperature, Tensor) and temperature.requires_grad
    if counts is not None:
        if keys is not None or reduction != "mean" or learned:
            raise ValueError(
                'smore_ext::info_nce: counts go with reduction="mean", a temperature that is not learned, and no keys'
            )
        return _ops.info_nce.counted(x, y, counts, temperature)[0]
    if keys is None and reduction == "mean" and not learned:
        return _ops.info_nce(x, y, temperature)[0]
    if not learned:
        if not temperature > 0:
            raise ValueError(f"smore_ext::info_nce: temperature must be greater than 0, got {float(temperature)}")
        temperature = torch.full((), float(temperature), dtype=x.dtype, device=x.device)
    rows = _ops.info_nce.rows(x, y, keys, temperature)
    if reduction == "none":
        return rows
    if not torch.compiler.is_compiling():
        # In two steps, too short for torch to share out: the same bits for any number of threads.
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


@fake("bpr_loss.apart")
def _(
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
    gamma: float,
) -> tuple[Tensor, Tensor, Tensor]:
    new = user_embeddings.new_empty
    return new(()), new(3), new(users.shape)


@fake("bpr_loss_backward.apart")
def _(
    grad_bpr: Tensor,
    grad_squares: Tensor,
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    positives: Tensor,
    negatives: Tensor,
    margin: Tensor,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    return user_embeddings.new_empty(user_embeddings.shape), item_embeddings.new_empty(item_embeddings.shape)


@fake("info_nce")
def _(x: Tensor, y: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(()), x.new_empty(x.shape[0])


@fake("info_nce_backward")
def _(grad: Tensor, x: Tensor, y: Tensor, log_sum: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


@fake("info_nce.counted")
def _(x: Tensor, y: Tensor, counts: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(()), x.new_empty(x.shape[0])


@fake("info_nce_backward.counted")
def _(grad: Tensor, x: Tensor, y: Tensor, counts: Tensor, log_sum: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


@fake("row_logsumexp")
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0])


@fake("row_logsumexp_backward")
def _(grad: Tensor, a: Tensor, b: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape)


autocast_float32("bpr_loss", "bpr_loss.apart", "info_nce", "info_nce.counted", "info_nce.rows", "row_logsumexp")
