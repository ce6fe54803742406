"""Arguments of another kind are refused by name: a numpy array or a list has no place in an op or a graph, nor has a
fraction where numbers are whole."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

P = ParamSpec("P")
T = TypeVar("T")

_SINGLE = {"Tensor": False, "Tensor | None": True}  # annotation -> whether None will do
_SEVERAL = ("Sequence[Tensor]", "Tensor | Sequence[Tensor]")
_OTHER = (str, list, tuple, type(None))
_NUMBERS: dict[str, tuple[tuple[type, ...], str]] = {  # annotation -> what is none, and what one is called
    "int": ((*_OTHER, float), "a whole number"),
    "int | Tensor": ((*_OTHER, float), "a whole number"),
    "Tensor | int | None": ((str, list, tuple, float), "a tensor, or a whole number behind one"),
    "float": (_OTHER, "a number"),
    "float | Tensor": (_OTHER, "a number, or a tensor of one"),
    "bool": ((*_OTHER, float), "True or False"),
}
_INSTEAD: dict[str, Callable[..., Any]] = {}  # what an op is under the transforms of torch.func


def takes_tensors(function: Callable[P, T]) -> Callable[P, T]:
    """Raises `TypeError` when what is annotated as a tensor, a sequence of them, or a number, is none. Names the
    argument, what is expected and what came. Tensors that ops take are dense."""
    kinds = {name: parameter.annotation for name, parameter in inspect.signature(function).parameters.items()}
    names = list(kinds)
    is_op = "." not in function.__qualname__ and function.__module__.startswith("smore_ext.ops.")
    place = f"smore_ext::{function.__name__}" if is_op else function.__name__.replace("__init__", "Graph")

    def check(name: str, value: Any) -> None:
        kind = kinds.get(name)
        if kind in _SINGLE:
            if not (isinstance(value, Tensor) or (value is None and _SINGLE[kind])):
                raise TypeError(f"{place}: {name} must be a torch.Tensor, got {_named(value)}{_way_out(name, value)}")
            if is_op and value is not None and value.layout != torch.strided:
                raise TypeError(f"{place}: {name} must be a dense tensor, got layout {value.layout}: to_dense() is one")
        elif kind in _NUMBERS:
            others, what = _NUMBERS[kind]
            if isinstance(value, others):
                raise TypeError(f"{place}: {name} must be {what}, got {value!r}")
            if isinstance(value, Tensor):
                if kind == "float" and value.requires_grad and torch.is_grad_enabled():
                    raise TypeError(
                        f"{place}: {name} must be {what}, got a tensor that requires grad, which would get none: give "
                        f"{name}.item(), or the twin in smore_ext.reference"
                    )
                refuse_tangents(place, name, value)
        elif kind in _SEVERAL:
            one = isinstance(value, Tensor | str) or not isinstance(value, Iterable) or hasattr(value, "__array__")
            entries = [value] if one else list(value)
            for entry in entries:
                if not isinstance(entry, Tensor):
                    raise TypeError(f"{place}: {name} must hold torch.Tensors, got {_named(entry)}")
                if is_op and entry.layout != torch.strided:
                    raise TypeError(f"{place}: {name} must hold dense tensors, got layout {entry.layout}")

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in zip(names, args, strict=False):
            check(name, value)
        for name, value in kwargs.items():
            check(name, value)
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not is_op or "C++ torch::autograd::Function with functorch" not in str(error):
                raise
            refusal = error
        return _under_transforms(function.__name__, refusal)(*args, **kwargs)

    return checked


def refuse_tangents(place: str, name: str, value: Tensor | None) -> None:
    """Raises `RuntimeError` for a dual number of forward-mode differentiation, whose tangent would be dropped."""
    if value is None or torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    if forward_ad.unpack_dual(value).tangent is not None:
        raise RuntimeError(f"{place}: {name} must have no tangent: forward mode does not reach it, reverse mode does")


def instead_under_transforms(name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Makes the decorated function what op `name` is under the transforms of torch.func."""

    def register(function: Callable[..., T]) -> Callable[..., T]:
        _INSTEAD[name] = function
        return function

    return register


def _under_transforms(name: str, refusal: RuntimeError) -> Callable[..., Any]:
    if name not in _INSTEAD:
        raise RuntimeError(
            f"smore_ext::{name}: torch.func's grad, vjp, jvp and what is made of them do not reach it: use "
            f"torch.autograd.grad, or smore_ext.reference.{name}, which is plain PyTorch"
        ) from refusal
    return _INSTEAD[name]


def check_is(place: str, name: str, value: Any, expected: type) -> None:
    """Raises `TypeError` that names the argument when it is no instance of `expected`."""
    if not isinstance(value, expected):
        kind = "Graph" if expected.__name__ == "CsrMatrix" else expected.__name__
        way_out = ": Graph.from_sparse(tensor) is one" if kind == "Graph" and isinstance(value, Tensor) else ""
        raise TypeError(f"{place}: {name} must be a {kind}, got {_named(value)}{way_out}")


def _way_out(name: str, value: Any) -> str:
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
        return f": torch.from_numpy({name}) is"
    return f": torch.tensor({name}) is" if kind in (list, tuple) else ""


def _named(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
