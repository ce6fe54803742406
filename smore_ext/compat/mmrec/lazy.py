"""Matrices that are not formed until somebody needs all of them.

Each stands for a tensor and knows some of torch's functions, for which it has a shorter way. Any other use makes it
dense, once, and goes on with the tensor: results are those of torch then, gradients too. (A `torch.autograd.Function`
that is given one alone sees its values without its history.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Rule = Callable[..., Any]

_WRITES = ("iadd", "isub", "imul", "itruediv", "setitem", "numpy")  # what changes the tensor, or lets others do so
_ABOUT = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "is_sparse", "is_cuda")),
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "__len__", "is_floating_point", "is_complex")),
}  # answered without values


class Lazy(Tensor):
    """Base of lazy matrices: tensors without memory. Subclasses have `_make()`, and rules by the name of a function."""

    rules: ClassVar[dict[str, Rule]] = {}
    is_put_off: ClassVar[bool] = False  # a tensor like others to the pieces: they are given its values

    _live: bool
    _dense: Tensor | None
    _written: bool  # the tensor was changed in place: from then on it alone counts

    @classmethod
    def _of(cls, shape: tuple[int, ...], like: Tensor, live: bool) -> Self:
        """live: whether the tensor requires grad."""
        lazy = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        lazy._live, lazy._dense, lazy._written = live, None, False
        return lazy

    @property
    def requires_grad(self) -> bool:  # type: ignore[override]
        return self._live

    def _make(self) -> Tensor:
        raise NotImplementedError

    def dense(self) -> Tensor:
        """The tensor that it stands for."""
        if self._dense is None:
            self._dense = self._make()
        return self._dense

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        name = getattr(func, "__name__", "").removeprefix("__").removesuffix("__")
        for value in args:
            if isinstance(value, Lazy) and name in value.rules and not value._written:
                found = value.rules[name](*args, **kwargs)
                if found is not NotImplemented:
                    return found
        if args and isinstance(args[0], Lazy):
            of = getattr(getattr(func, "__self__", None), "__name__", "")
            args[0]._written |= name.endswith("_") or name in _WRITES or (name == "get" and of == "data")
        return func(*tree_map(_dense, args), **tree_map(_dense, kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return func(*tree_map(_dense, args), **tree_map(_dense, kwargs or {}))

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Itself where nothing changes."""
        moved = torch.empty(0, dtype=self.dtype, device=self.device).to(*args, **kwargs)
        return self if (moved.dtype, moved.device) == (self.dtype, self.device) else self.dense().to(*args, **kwargs)

    def cpu(self, *args: Any, **kwargs: Any) -> Any:
        return self.to("cpu")

    def cuda(self, *args: Any, **kwargs: Any) -> Any:
        here = torch.empty(0, device=self.device).cuda(*args, **kwargs)  # raises, or stays, as torch's does
        return self if here.device == self.device else self.dense().cuda(*args, **kwargs)

    def float(self, *args: Any, **kwargs: Any) -> Any:
        return self.to(torch.float32)

    def contiguous(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{type(self).__name__}{tuple(self.shape)}"


def formed(value: Any) -> Any:
    """The tensor, of what was only put off; anything else as it is."""
    return value.dense() if isinstance(value, Lazy) and value.is_put_off else value


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, Lazy) else value
