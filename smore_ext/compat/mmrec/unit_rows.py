"""Rows of length one, with a gradient of three passes in place of torch's eight."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smore_ext.compat.mmrec.deferred import in_step
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import differs
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps

_normalize = F.normalize


class _UnitRows(torch.autograd.Function):
    """x / max(|x|, eps); its gradient is (g - x (x g) / |x|^2) / |x|, or g / eps where eps is larger. The result is not
    kept: like torch's it may be written into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        ctx.save_for_backward(x, length)
        ctx.eps = eps
        return x / length.clamp_min(eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, length = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is wanted
            (of_x,) = torch.autograd.grad(_normalize(x, eps=ctx.eps), x, grad, create_graph=True)
            return of_x, None
        divisor = length.clamp_min(ctx.eps)
        along = (torch.linalg.vecdot(grad, x).unsqueeze(1) / divisor / divisor).masked_fill_(length < ctx.eps, 0.0)
        return torch.addcmul(grad, x, along, value=-1.0).div_(divisor), None


def unit_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    """`F.normalize(x, eps=eps)` of a matrix."""
    return _UnitRows.apply(x, eps)


def of_rows(x: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> bool:
    """Whether these arguments of `F.normalize` ask for rows of length one."""
    return p == 2 and dim in (1, -1) and type(dim) is int and out is None and x.ndim == 2 and eps > 0


class UnitRows:
    """`F.normalize` of matrices whose gradient is wanted."""

    piece = "normalize"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps

    def install(self) -> None:
        original = F.normalize

        @functools.wraps(original)
        def normalize(input: Any, *args: Any, **kwargs: Any) -> Any:
            takes = is_matrix(input) and input.requires_grad and torch.is_grad_enabled() and not in_step()
            if not takes or torch.compiler.is_compiling():
                return original(input, *args, **kwargs)
            if not of_rows(input, *args, **kwargs):
                return original(input, *args, **kwargs)
            return unit_rows(input, args[2] if len(args) > 2 else kwargs.get("eps", 1e-12))

        x = torch.cat([torch.linspace(-2, 2, 60).view(10, 6).sin(), torch.zeros(1, 6), torch.full((1, 6), 1e-13)])
        why = differs(original, normalize, [x])
        self.report.add(self.piece, "F.normalize", why is None, why or "")
        if why is None:
            self.swaps.replace(F, "normalize", normalize)
