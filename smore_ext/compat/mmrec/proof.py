"""Whether two pieces of code compute the same, tried on a small sample."""

from __future__ import annotations

import functools
import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-5  # of the largest value: float32 sums of other order stay well below


def _states() -> tuple[Any, Any, Tensor, list[Tensor]]:
    """Of all generators that a tree draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def draws(run: Callable[[], Any]) -> tuple[Any, bool]:
    """What `run` gives, and whether it drew random numbers."""
    before = _states()
    value = run()
    after = _states()
    numpy = all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    same = all(torch.equal(a, b) for a, b in zip([before[2], *before[3]], [after[2], *after[3]], strict=False))
    return value, not (before[0] == after[0] and numpy and same)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Nothing that is drawn inside changes what is drawn outside; warnings of what is tried are nobody's."""
    states = _states()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if states[3]:
            torch.cuda.set_rng_state_all(states[3])


def difference(name: str, a: Any, b: Any, tolerance: float = TOLERANCE) -> str | None:
    """How `b` differs from `a`, or None. Tensors, arrays and numbers, and dictionaries and sequences of those."""
    if isinstance(a, Mapping):
        if not isinstance(b, Mapping) or list(a) != list(b):
            return f"{name} has other names"
        return next((d for k in a if (d := difference(f"{name}[{k!r}]", a[k], b[k], tolerance))), None)
    if isinstance(a, list | tuple):
        if not isinstance(b, list | tuple) or len(a) != len(b):
            return f"{name} has another length"
        pairs = zip(a, b, strict=True)
        return next((d for i, (x, y) in enumerate(pairs) if (d := difference(f"{name} {i}", x, y, tolerance))), None)
    x, y = _dense(a), _dense(b)
    if x.shape != y.shape:
        return f"{name} has shape {tuple(y.shape)} in place of {tuple(x.shape)}"
    if not x.numel():
        return None
    if not bool(torch.isfinite(x).all()):
        return f"{name} of the original is not finite"
    error = float((x - y).abs().max()) / max(float(x.abs().max()), 1e-30)
    return None if error <= tolerance else f"{name} differs by {error:.1e} of the largest value"


def _dense(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        value = value.detach()
        return (value.to_dense() if value.layout != torch.strided else value).double().cpu()
    if hasattr(value, "toarray"):  # scipy
        value = value.toarray()
    return torch.as_tensor(np.asarray(value), dtype=torch.float64)


def differs(
    original: Callable[..., Any],
    ours: Callable[..., Any],
    arguments: Sequence[Any],
    gradients: bool = True,
    tolerance: float = TOLERANCE,
) -> str | None:
    """Why `ours` cannot stand for `original`, or None where both give the same for `arguments`.

    With `gradients`, floating-point tensors among them are differentiated: by the sum of the result times fixed
    numbers. Whatever either raises is a reason.
    """
    outcomes = []
    for which, function in (("the original", original), ("ours", ours)):
        copies = [_leaf(a, gradients) for a in arguments]
        try:
            with undisturbed(), torch.enable_grad():
                value = function(*copies)
                leaves = [c for c in copies if isinstance(c, Tensor) and c.requires_grad]
                grads: Sequence[Tensor | None] = ()
                if leaves and isinstance(value, Tensor) and value.requires_grad:
                    fixed = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).view(value.shape)
                    grads = torch.autograd.grad((value * fixed.to(value.device)).sum(), leaves, allow_unused=True)
        except Exception as error:  # whatever a tree's code may raise
            return f"{which} raised {type(error).__name__}: {str(error)[:120]}"
        outcomes.append((value, [torch.zeros(()) if g is None else g for g in grads]))
    (value, grads), (own, own_grads) = outcomes
    return difference("the value", value, own, tolerance) or difference("gradient", grads, own_grads, 4 * tolerance)


def _leaf(value: Any, gradients: bool) -> Any:
    if not isinstance(value, Tensor) or value.layout != torch.strided or not value.is_floating_point():
        return value
    return value.detach().clone().requires_grad_(gradients)


def proved(
    original: Callable[..., Any],
    ours: Callable[..., Any],
    doubt: Callable[[], str | None],
    tell: Callable[[str | None], None],
) -> Callable[..., Any]:
    """A function that asks `doubt` at its first call why `ours` cannot stand for `original`, and is the one or the
    other from then on."""
    chosen: list[Callable[..., Any]] = []

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not chosen:
            why = doubt()
            tell(why)
            chosen.append(original if why else ours)
        return chosen[0](*args, **kwargs)

    return function


def by_place(original: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """`ours` for any way of calling `original`: it gets all arguments by their place, defaults too."""
    signature = inspect.signature(original)
    plain = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in signature.parameters.values())

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if plain and (kwargs or len(args) < len(signature.parameters)):
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                return original(*args, **kwargs)  # which says what is wrong
            given.apply_defaults()
            args, kwargs = given.args, given.kwargs
        return ours(*args, **kwargs)

    return function


def own_functions(cls: type, *names: str) -> bool:
    """Whether a class defines all of these itself."""
    return all(isinstance(vars(cls).get(name), FunctionType) for name in names)


def classes_of(module: ModuleType) -> list[type]:
    """The classes that a module defines."""
    return [v for v in list(vars(module).values()) if isinstance(v, type) and v.__module__ == module.__name__]


def bare(cls: Any) -> Any:
    """An object of a class that was not set up: a sample brings what a method reads."""
    return object.__new__(cls)
