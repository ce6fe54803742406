"""The names under which foreign code multiplies matrices, led past those who can do it better."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.ops.modes import is_plain

Product = Callable[[Any, Any], Any]
Taker = Callable[[Product, Any, Any], Any]  # (the original function, left, right) -> the product, or NotImplemented

NAMES: tuple[tuple[Any, str], ...] = (
    (torch.sparse, "mm"),
    (torch, "mm"),
    (torch, "spmm"),
    (torch, "matmul"),
    (Tensor, "mm"),
    (Tensor, "matmul"),
    (Tensor, "__matmul__"),
)


LABELS = {
    id(getattr(owner, name)): f"{'torch.Tensor' if owner is Tensor else owner.__name__}.{name}"
    for owner, name in NAMES
    if hasattr(owner, name)
}  # of torch's own functions, for reports


class Products:
    """Products of two matrices are offered to each taker in turn; what none takes is torch's as before."""

    def __init__(self) -> None:
        self.takers: list[Taker] = []

    def install(self, swaps: Swaps) -> None:
        for owner, name in NAMES:
            if hasattr(owner, name):
                swaps.replace(owner, name, self._led(getattr(owner, name)))

    def _led(self, original: Product) -> Product:
        takers = self.takers

        @functools.wraps(original)
        def product(*args: Any, **kwargs: Any) -> Any:
            if len(args) == 2 and not kwargs and not torch.compiler.is_compiling():
                args = _given(*args)
                for taker in takers:
                    taken = taker(original, *args)
                    if taken is not NotImplemented:
                        return taken
                args = args[0], formed(args[1])  # its rows are summed over: all of them are needed
            return original(*args, **kwargs)

        return product


def _given(left: Any, right: Any) -> tuple[Any, Any]:
    """The left as values where the right may be its transpose: of x @ x.T the rows are not wanted, but their best."""
    square = isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape[::-1]
    return formed(left) if square else left, right


def is_matrix(value: Any) -> bool:
    """A dense matrix of float32 or float64 that is just that: no subclass but a parameter, nothing that a transform of
    `torch.func` made."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and value.layout == torch.strided
        and value.ndim == 2
        and value.dtype in (torch.float32, torch.float64)
        and is_plain(value)
    )
