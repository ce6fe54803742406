"""Filtering and fusion in the frequency domain (SMORE, arXiv 2412.14978, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors

__all__ = ["spectral_filter", "spectrum_fusion"]

_ops = torch.ops.smore_ext


@takes_tensors
def spectral_filter(x: Tensor, weight: Tensor, keep: int | None = None) -> Tensor:
    """Filters the rows of `x` in the frequency domain: irfft(rfft(x) * weight), both orthonormal.

    Args:
        x: [..., d], float32 or float64, any leading dimensions (none too) and d >= 1.
        weight: [d//2+1, 2], the real view of a complex filter, in the dtype of `x`; or complex, [d//2+1]. Either may
            have a leading dimension of 1, as published filters have.
        keep: n in 1..d//2+1: only the n lowest frequencies pass, and the filter counts as zero from bin n on. A small
            n costs less time, forward and backward; None keeps all.

    Returns:
        Like `x`. Differentiable in both arguments, once. The imaginary parts of bin 0, and of bin d/2 for even d, have
        no effect and a gradient of exactly zero; so do all bins that are not kept. Under autocast it computes in
        float32.

    Raises:
        TypeError, ValueError: wrong dtype, or shape or device that does not fit, or `keep` out of range; the message
            names what must hold and what came.
    """
    return _ops.spectral_filter(x, weight, keep)


@takes_tensors
def spectrum_fusion(
    xs: Sequence[Tensor], weights: Sequence[Tensor], fusion_weight: Tensor, keep: int | None = None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Spectrum modality fusion: each modality filtered, and the product of their spectra filtered.

    With S_m = rfft(x_m): filtered_m = irfft(S_m * w_m), fused = irfft(prod_m(S_m) * w_f), all orthonormal.

    Args:
        xs: M >= 1 tensors [..., d] of one shape, float32 or float64, one a modality.
        weights: M filters, as in `spectral_filter`; or none at all, where only the fused array is wanted.
        fusion_weight: the filter of the product.
        keep: as in `spectral_filter`, for all filters.

    Returns:
        (a tensor like xs[0] for each of `weights`, fused like xs[0]). Differentiable once; only the inputs are kept for
        backward.

    Raises:
        TypeError, ValueError: as in `spectral_filter`, or numbers of tensors that differ.
    """
    filtered, fused = _ops.spectrum_fusion(list(xs), list(weights), fusion_weight, keep)
    return tuple(filtered), fused


@fake("spectral_filter")
def _(x: Tensor, weight: Tensor, keep: int | None = None) -> Tensor:
    return x.new_empty(x.shape)


@fake("spectral_filter_backward")
def _(grad: Tensor, x: Tensor, weight: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape)


@fake("spectrum_fusion")
def _(
    xs: list[Tensor], weights: list[Tensor], fusion_weight: Tensor, keep: int | None = None
) -> tuple[list[Tensor], Tensor]:
    return [xs[0].new_empty(xs[0].shape) for _ in weights], xs[0].new_empty(xs[0].shape)


@fake("spectrum_fusion_backward")
def _(
    grads: list[Tensor],
    grad_fused: Tensor,
    xs: list[Tensor],
    weights: list[Tensor],
    fusion_weight: Tensor,
    keep: int | None = None,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    return (
        [x.new_empty(x.shape) for x in xs],
        [w.new_empty(w.shape) for w in weights],
        fusion_weight.new_empty(fusion_weight.shape),
    )


autocast_float32("spectral_filter", "spectrum_fusion")
