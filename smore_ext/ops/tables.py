"""Training of feature tables: large parameters that a model reads only through a narrow linear layer."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import fake

_ops = torch.ops.smore_ext


def factored_adam_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad_rows: Tensor,
    factor: Tensor,
    step: Tensor,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Tensor:
    """One step of Adam, in place, for a parameter whose gradient is grad_rows @ factor; the product is never formed.

    For X = T W^T the gradient of the table T is dL/dX @ W: rank d, while T is [N, D]. T and its two moments are read
    and written once, nothing else of that size exists. The formula is that of `torch.optim.Adam` without weight decay.

    Args:
        param, exp_avg, exp_avg_sq: [N, D], float32 or float64, contiguous; changed in place.
        grad_rows: [N, d], same dtype; dL/dX.
        factor: [d, D], same dtype; the weight W that X was computed with.
        step: one element, float32 or float64; number of this step, 1 at the first.
        lr, beta1, beta2, eps: as in `torch.optim.Adam`.

    Returns:
        param. Not differentiable; autocast does not apply.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device, layout or setting (named), before anything is changed.
    """
    _ops.factored_adam_(param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr, beta1, beta2, eps)
    return param


@fake("factored_adam_")
def _(param, exp_avg, exp_avg_sq, grad_rows, factor, step, lr, beta1=0.9, beta2=0.999, eps=1e-8) -> None:
    return None
