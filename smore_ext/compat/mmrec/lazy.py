"""Matrices that are not formed until somebody needs all of them.

Each stands for a tensor and knows some of torch's functions, for which it has a shorter way. Any other use makes it
dense, once, and goes on with the tensor: results are those of torch then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

Rule = Callable[..., Any]

_WRITES = ("iadd", "isub", "imul", "itruediv", "setitem", "numpy")  # what changes the tensor, or lets others do so


def _operator(name: str) -> Any:
    """`+` and the like: as torch's own, so that it goes by `__torch_function__`."""

    def apply(self: Any, *args: Any) -> Any:
        function = getattr(Tensor, name)
        return type(self).__torch_function__(function, (), (self, *args))

    apply.__name__ = name
    return apply


class Lazy:
    """Base of lazy matrices. `isinstance(lazy, torch.Tensor)` holds, as foreign code asks that.

    Subclasses have `shape`, `dtype`, `device`, `requires_grad`, `_make()` and rules, by the name of a function.
    """

    rules: ClassVar[dict[str, Rule]] = {}
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool
    ndim = 2
    layout = torch.strided
    is_sparse = False

    _dense: Tensor | None = None
    _written = False  # the tensor was changed in place: from then on it alone counts

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return Tensor

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
        name = func.__name__.removeprefix("__").removesuffix("__")
        for value in args:
            if is_lazy(value) and name in type(value).rules and not value._written:
                found = type(value).rules[name](*args, **kwargs)
                if found is not NotImplemented:
                    return found
        if args and is_lazy(args[0]) and (name.endswith("_") or name in _WRITES):
            args[0]._written = True
        return func(*(_dense(a) for a in args), **{k: _dense(v) for k, v in kwargs.items()})

    def __getattr__(self, name: str) -> Any:
        """A method of a tensor."""
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(name)
        function = getattr(Tensor, name)
        if not callable(function):
            self._written = self._written or name == "data"
            return getattr(self.dense(), name)
        return lambda *args, **kwargs: type(self).__torch_function__(function, (), (self, *args), kwargs)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return 2

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().__reduce_ex__(protocol)  # what is saved is an ordinary tensor

    def __repr__(self) -> str:
        return f"{type(self).__name__}{tuple(self.shape)}"

    def __bool__(self) -> bool:
        return bool(self.dense())

    def __hash__(self) -> int:
        return id(self)

    def _same(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Itself where nothing changes."""
        nothing = torch.empty(0, dtype=self.dtype, device=self.device)
        moved = nothing.to(*args, **kwargs)
        return self if (moved.dtype, moved.device) == (self.dtype, self.device) else self.dense().to(*args, **kwargs)

    def cpu(self) -> Any:
        return self.to("cpu")

    def cuda(self, *args: Any, **kwargs: Any) -> Any:
        here = torch.empty(0, device=self.device).cuda(*args, **kwargs)  # raises, or stays, as torch's does
        return self if here.device == self.device else self.dense().cuda(*args, **kwargs)

    def float(self) -> Any:
        return self.to(torch.float32)

    contiguous = _same

    @property
    def T(self) -> Tensor:
        return self.dense().T

    __add__, __radd__ = _operator("__add__"), _operator("__radd__")
    __sub__, __rsub__ = _operator("__sub__"), _operator("__rsub__")
    __mul__, __rmul__ = _operator("__mul__"), _operator("__rmul__")
    __truediv__, __rtruediv__ = _operator("__truediv__"), _operator("__rtruediv__")
    __matmul__, __rmatmul__ = _operator("__matmul__"), _operator("__rmatmul__")
    __pow__, __neg__ = _operator("__pow__"), _operator("__neg__")
    __getitem__, __setitem__ = _operator("__getitem__"), _operator("__setitem__")
    __lt__, __le__, __gt__, __ge__ = (_operator(f"__{name}__") for name in ("lt", "le", "gt", "ge"))
    __eq__, __ne__ = _operator("__eq__"), _operator("__ne__")  # type: ignore[assignment]
    __iadd__, __isub__, __imul__ = _operator("__iadd__"), _operator("__isub__"), _operator("__imul__")
    __itruediv__ = _operator("__itruediv__")


def is_lazy(value: Any) -> bool:
    return issubclass(type(value), Lazy)


def _dense(value: Any) -> Any:
    if is_lazy(value):
        return value.dense()
    return type(value)(_dense(v) for v in value) if type(value) in (list, tuple) else value
