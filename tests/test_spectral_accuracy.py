"""Spectral filters in float64 against sums in extended precision: torch's own FFT is no judge of the last digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from smore_ext import ops

Extended = np.longdouble
pytestmark = pytest.mark.skipif(
    np.finfo(Extended).nmant < 63, reason="numpy's longdouble is no wider than float64 here"
)


def filtered(x: Tensor, weight: Tensor) -> np.ndarray:
    """irfft(rfft(x) * weight) by its definition."""
    n, bins = x.shape[1], weight.shape[0]
    turns = np.outer(np.arange(bins), np.arange(n)) % n
    angle = 2 * np.arccos(Extended(-1)) * turns.astype(Extended) / n
    rows, (re, im) = x.numpy().astype(Extended), weight.numpy().astype(Extended).T
    real, imaginary = rows @ np.cos(angle).T, -(rows @ np.sin(angle).T)
    real, imaginary = real * re - imaginary * im, real * im + imaginary * re
    twice = np.where((np.arange(bins) == 0) | (2 * np.arange(bins) == n), 1, 2)
    return (real * twice @ np.cos(angle) - imaginary * twice @ np.sin(angle)) / n


@pytest.mark.parametrize("width", [1, 2, 22, 34, 62, 64, 74, 94, 100, 127, 202, 206, 251, 254, 256, 262, 512])
def test_rows_and_gradients_err_by_a_few_units(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    x, cotangent = torch.randn(2, 5, width, dtype=torch.float64, generator=generator)
    weight = torch.randn(width // 2 + 1, 2, dtype=torch.float64, generator=generator)
    leaf = x.clone().requires_grad_()
    y = ops.spectral_filter(leaf, weight)
    (grad,) = torch.autograd.grad(y, leaf, cotangent)
    conjugate = weight * torch.tensor([1.0, -1.0])
    for ours, exact in ((y.detach(), filtered(x, weight)), (grad, filtered(cotangent, conjugate))):
        error = float(np.abs(ours.numpy() - exact).max() / np.abs(exact).max())
        assert error <= 8 * np.finfo(np.float64).eps
