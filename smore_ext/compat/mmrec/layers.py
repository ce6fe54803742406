"""The mean over layers of a propagation, without the array that holds all of them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from smore_ext.compat.mmrec.deferred import in_step
from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import differs
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps


class LazyStack(Lazy):
    """`torch.stack(parts, dim=1)` of matrices [N, d], of which mostly the mean over parts is wanted."""

    parts: list[Tensor]

    @classmethod
    def of(cls, parts: list[Tensor]) -> LazyStack:
        n, d = parts[0].shape
        live = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
        stack = cls._of((n, len(parts), d), parts[0], live, *parts)
        stack.parts = parts
        return stack

    def _make(self) -> Tensor:
        return torch.cat([part.unsqueeze(1) for part in self.parts], dim=1)


def _total(stack: LazyStack, dim: Any, keepdim: bool) -> Tensor | None:
    """The sum of the parts, or None for a sum of something else."""
    if (dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim) not in (1, -2) or keepdim:
        return None
    total = stack.parts[0] + stack.parts[1]
    for part in stack.parts[2:]:
        total += part
    return total


def _sum(stack: LazyStack, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:
    total = None if more else _total(stack, dim, keepdim)
    return NotImplemented if total is None else total


def _mean(stack: LazyStack, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:
    total = None if more else _total(stack, dim, keepdim)
    return NotImplemented if total is None else total.div_(len(stack.parts))


LazyStack.rules = {"sum": _sum, "mean": _mean}


class Layers:
    piece = "layers"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._good: bool | None = None

    def install(self) -> None:
        original = torch.stack

        @functools.wraps(original)
        def stack(*args: Any, **kwargs: Any) -> Any:
            parts = args[0] if args else None
            dim = args[1] if len(args) == 2 else kwargs.get("dim")
            if in_step():
                return original(*args, **kwargs)  # by rows, if it can be
            if dim == 1 and len(args) + len(kwargs) == 2 and _takes(parts) and not torch.compiler.is_compiling():
                if self._good is None:
                    self._good = self._prove(original)
                if self._good:
                    return LazyStack.of(list(parts))  # type: ignore[arg-type]
            return original(*args, **kwargs)

        self.swaps.replace(torch, "stack", stack)

    def _prove(self, original: Any) -> bool:
        x = torch.arange(12).view(4, 3).float().sin()
        why = differs(
            lambda x: original([x, x * 2, x.exp()], dim=1).mean(dim=1),
            lambda x: LazyStack.of([x, x * 2, x.exp()]).mean(dim=1),
            [x],
        )
        self.report.add(self.piece, "torch.stack(layers, dim=1)", why is None, why or "its mean over layers")
        return why is None


def _takes(parts: Any) -> bool:
    """Several matrices of one kind."""
    if not isinstance(parts, list | tuple) or len(parts) < 2 or not all(is_matrix(part) for part in parts):
        return False
    first = parts[0]
    kind = first.shape, first.dtype, first.device
    return all((part.shape, part.dtype, part.device) == kind for part in parts)
