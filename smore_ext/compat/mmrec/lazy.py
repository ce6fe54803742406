"""Matrices that are not formed until somebody needs all of them.

Each stands for a tensor and knows some of torch's functions, for which it has a shorter way. Any other use makes it
dense, once, and goes on with the tensor: results are those of torch then, gradients too. (A `torch.autograd.Function`
that is given one alone sees its values without its history.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Rule = Callable[..., Any]

# What changes the tensor or what becomes of its gradient, or lets others do so.
_WRITES = ("iadd", "isub", "imul", "itruediv", "setitem", "numpy", "register_hook", "retain_grad")
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
    _version_made: int  # of `_dense`, when it was made: its views may be written to
    _written: bool  # the tensor was changed in place: from then on it alone counts
    _sources: tuple[tuple[Tensor, int], ...]  # what it is made of, and their versions

    @classmethod
    def _of(cls, shape: tuple[int, ...], like: Tensor, live: bool, *sources: Tensor) -> Self:
        """live: whether the tensor requires grad. sources: what it is made of when it is, unless they change before."""
        lazy = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        lazy._live, lazy._dense, lazy._written, lazy._version_made = live, None, False, 0
        lazy._sources = tuple((source, version_of(source)) for source in sources)
        return lazy

    @property
    def requires_grad(self) -> bool:  # type: ignore[override]
        return self._live

    def _make(self) -> Tensor:
        raise NotImplementedError

    def dense(self) -> Tensor:
        """The tensor that it stands for."""
        if self._dense is None:
            if self._stale():
                raise RuntimeError(
                    f"{type(self).__name__}: what it is made of was changed in place before it was needed; "
                    f"change a copy, or leave the piece that puts it off out of patch(pieces=...)"
                )
            self._keep(self._make())
        assert self._dense is not None
        return self._dense

    def _keep(self, dense: Tensor) -> None:
        self._dense, self._version_made = dense, version_of(dense)

    def _stale(self) -> bool:
        return any(version_of(source) != version for source, version in self._sources)

    def _alone(self) -> bool:
        """Whether the tensor alone counts: it was written to, or what it was made of."""
        if self._dense is None:
            return False
        return self._written or version_of(self._dense) != self._version_made or self._stale()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        name = getattr(func, "__name__", "").removeprefix("__").removesuffix("__")
        for value in args:
            if isinstance(value, Lazy) and name in value.rules and not value._alone():
                if value._stale():
                    value.dense()  # which tells
                rule = value.rules[name]
                try:
                    found = rule(*args, **kwargs)
                except TypeError:
                    if _fits(rule, args, kwargs):
                        raise
                    continue  # a way of calling that the rule does not know
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
        """Itself where nothing changes, unless a copy is asked for."""
        if kwargs.get("copy") or sum(isinstance(a, bool) for a in args) == 2 and args[-1]:
            return self.dense().to(*args, **kwargs)
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


def version_of(tensor: Tensor) -> int:
    """How often it was written to; tensors of inference mode do not count."""
    return 0 if isinstance(tensor, Lazy) or tensor.is_inference() else tensor._version


def _fits(rule: Rule, args: Any, kwargs: Any) -> bool:
    try:
        inspect.signature(rule).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def formed(value: Any) -> Any:
    """The tensor, of what was only put off; anything else as it is."""
    return value.dense() if isinstance(value, Lazy) and value.is_put_off else value


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, Lazy) else value
