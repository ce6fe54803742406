"""Dropout by a counter: torch draws its masks one number after the other."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smore_ext import ops
from smore_ext.compat.mmrec.proof import undisturbed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.ops.modes import is_plain

_LEAST = 1 << 12  # elements; below, torch's takes no longer


class Dropout:
    """`F.dropout`, which `nn.Dropout` calls too. The seed of each mask is drawn from torch's generator."""

    piece = "dropout"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps

    def install(self) -> None:
        original = F.dropout

        @functools.wraps(original)
        def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            takes = training and not inplace and isinstance(p, int | float) and 0 < p < 1 and _is_wide(input)
            if not takes or torch.compiler.is_compiling():
                return original(input, p, training, inplace)
            return ops.dropout(input, p, int(torch.randint(1 << 62, ()).item()))

        why = _doubt(dropout)
        self.report.add(self.piece, "F.dropout", why is None, why or "other draws, of the same chance")
        if why is None:
            self.swaps.replace(F, "dropout", dropout)


def _is_wide(value: Any) -> bool:
    plain = type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided
    return plain and value.dtype in (torch.float32, torch.float64) and value.numel() >= _LEAST and is_plain(value)


def _doubt(ours: Any) -> str | None:
    """Kept with their chance, scaled, with the gradient of what is kept; the same draws after the same seed."""
    x, p = torch.ones(256, 256, requires_grad=True), 0.3
    with undisturbed(), torch.enable_grad():
        torch.manual_seed(0)
        y = ours(x, p)
        (grad,) = torch.autograd.grad(y.sum(), x)
        torch.manual_seed(0)
        again = ours(x, p)
    kept = y != 0
    share = float(kept.double().mean())
    if abs(share - (1 - p)) > 0.02:  # 11 standard deviations
        return f"it keeps {share:.3f} in place of {1 - p:.3f}"
    if not torch.equal(y, again) or not torch.equal(grad, y):
        return "its draws or gradients are not its own"
    return None if torch.allclose(y[kept], torch.tensor(1 / (1 - p))) else "it scales otherwise"
