"""Views of nodes put together (docs/spec.md, section 1, step 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors

__all__ = ["modality_preference"]

_ops = torch.ops.smore_ext


@takes_tensors
def modality_preference(
    gates: Tensor, attention: Tensor, views: Tensor, p: float = 0.0, seed: int = 0, offset: int | Tensor = 0
) -> Tensor:
    """Side information of R nodes from the views of M modalities and of their fusion, which is the last:

        (sum_m D(sigmoid(g_m)) * softmax(a_m) * v_m + D(sigmoid(g_M)) * v_M) / (M + 1)

    in one pass forward and one backward, which keeps nothing but the arguments. D is `dropout` of all sigmoids with
    (p, seed, offset), element by element the same but for NaN, which stays NaN where it is dropped.

    Args:
        gates: [R, (M + 1) d] preference of each view, before the sigmoid; float32 or float64.
        attention: [M, R, d] of each modality, before the softmax over d; same dtype.
        views: [R, (M + 1) d], same dtype.
        p: at least 0, less than 1; 0 drops nothing, and seed and offset do not matter.
        seed, offset: as in `dropout`.

    Returns:
        [R, d]. Differentiable once in gates, attention and views. Under autocast it computes in float32.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device; p, seed or offset out of range.
    """
    if isinstance(offset, Tensor):
        return _ops.modality_preference(gates, attention, views, p, seed, 0, offset)
    return _ops.modality_preference(gates, attention, views, p, seed, offset)


@fake("modality_preference")
def _(
    gates: Tensor,
    attention: Tensor,
    views: Tensor,
    p: float = 0.0,
    seed: int = 0,
    offset: int = 0,
    step: Tensor | None = None,
) -> Tensor:
    return gates.new_empty(attention.shape[1:])


@fake("modality_preference_backward")
def _(
    grad: Tensor,
    gates: Tensor,
    attention: Tensor,
    views: Tensor,
    p: float = 0.0,
    seed: int = 0,
    offset: int = 0,
    step: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return gates.new_empty(gates.shape), attention.new_empty(attention.shape), views.new_empty(views.shape)


autocast_float32("modality_preference")
