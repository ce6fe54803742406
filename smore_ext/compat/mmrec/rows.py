"""Losses whose last stages are computed for the rows of the batch alone."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from smore_ext.compat.mmrec.deferred import LEAST, Step, in_step
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.proof import TOLERANCE, classes_of, difference, own_functions, undisturbed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.row_rules import RULES
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.models import TableLinear

_Loss = Callable[..., Any]
_ROUNDINGS = 8  # times what one bit in the parameters does: sums in another order may differ by so much
_NONE = f"it takes no rows from a matrix that has {LEAST:,} or more, and is trained, on the CPU"


class Rows:
    """`calculate_loss` of models, inside a `Step`: tried at a model's first batch, without what dropout draws, with its
    gradients in all parameters."""

    piece = "rows"

    def __init__(self, report: Report, swaps: Swaps, pieces: frozenset[str]) -> None:
        self.report, self.swaps, self.pieces = report, swaps, pieces
        self._known: weakref.WeakKeyDictionary[nn.Module, set[int] | None] = weakref.WeakKeyDictionary()
        self._trying = False
        original = torch.autograd.Function.apply

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:  # asks no subclass of tensors what it stands for
            return original.__func__(cls, *tree_map(formed, args), **tree_map(formed, kwargs))  # type: ignore[attr-defined]

        swaps.set(torch.autograd.Function, "apply", classmethod(apply))

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            if issubclass(cls, nn.Module) and own_functions(cls, "calculate_loss"):
                self.swaps.set(cls, "calculate_loss", self._by_rows(cls, vars(cls)["calculate_loss"]))

    def _by_rows(self, cls: type, original: _Loss) -> _Loss:
        @functools.wraps(original)
        def calculate_loss(model: Any, *args: Any, **kwargs: Any) -> Any:
            if in_step() or self._trying or not torch.is_grad_enabled() or torch.compiler.is_compiling():
                return original(model, *args, **kwargs)
            run = functools.partial(original, model, *args, **kwargs)
            if model not in self._known:

                def on_copies() -> Any:  # some write into their batch
                    own, named = tree_map(lambda v: v.clone() if type(v) is Tensor else v, (args, kwargs))
                    return original(model, *own, **named)

                self._trying = True
                try:
                    why, whole = self._tried(model, on_copies)
                finally:
                    self._trying = False
                self._known[model] = whole if why is None else None
                self.report.add(self.piece, f"{cls.__name__}.calculate_loss", why is None, why or "")
            whole_before = self._known[model]
            return run() if whole_before is None else self._run(run, whole_before)[0]

        return calculate_loss

    def _run(self, run: _Loss, whole_before: set[int]) -> tuple[Any, int]:
        """What the loss is, and how often it asked for rows."""
        with Step(RULES, whole_before, self.pieces) as step:
            value = tree_map(formed, run())
        return value, step.asked

    def _tried(self, model: nn.Module, run: _Loss) -> tuple[str | None, set[int]]:
        """Why the loss cannot be taken by rows, and what of it was made whole in a pass."""
        whole: set[int] = set()
        asked = 0
        if any(p.device.type != "cpu" for p in model.parameters()):
            return _NONE, whole

        def by_rows() -> Any:
            nonlocal asked
            value, asked = self._run(run, whole)
            return value

        try:
            with undisturbed(), _as_before(model) as before, _without_dropout(), _plain_tables(model):
                state = torch.get_rng_state()
                theirs = _outcome(model, run, state)
                before.restore()
                ours = _outcome(model, by_rows, state)
                before.restore()
                if _differ(theirs, ours, [TOLERANCE] * len(theirs)):  # by more than rounding moves the tree's own?
                    with _rounded(model):
                        moved = _outcome(model, run, state)
                    allowed = [max(TOLERANCE, _ROUNDINGS * _error(a, b)) for a, b in zip(theirs, moved, strict=True)]
                    if why := _differ(theirs, ours, allowed):
                        return why, whole
        except Exception as error:  # whatever a tree's code may raise
            return f"trying it raised {type(error).__name__}: {str(error)[:120]}", whole
        return (None if asked else _NONE), whole


def _outcome(model: nn.Module, run: _Loss, state: Tensor) -> list[Tensor]:
    """The loss and its gradients in all parameters."""
    torch.set_rng_state(state)
    params = [p for p in model.parameters() if p.requires_grad]
    value = run()
    total: Tensor = sum(value) if isinstance(value, list | tuple) else value  # type: ignore[assignment]
    grads = torch.autograd.grad(total, params, allow_unused=True)
    return [total.detach(), *(torch.zeros(()) if g is None else g.to_dense() if g.is_sparse else g for g in grads)]


def _error(a: Tensor, b: Tensor) -> float:
    """Of the largest value; 0 where both are nothing but zeros."""
    return float((a - b).abs().max()) / max(float(a.abs().max()), 1e-30) if a.shape == b.shape and a.numel() else 0.0


def _differ(theirs: list[Tensor], ours: list[Tensor], allowed: list[float]) -> str | None:
    for place, (a, b, limit) in enumerate(zip(theirs, ours, allowed, strict=True)):
        name = f"gradient {place - 1}" if place else "the loss"
        if why := difference(name, a, b, limit):
            return why
    return None


class _Before:
    """What a pass may change in a model: attributes, and the values of its parameters, buffers and other tensors."""

    def __init__(self, model: nn.Module) -> None:
        self.owners: list[tuple[Any, dict[str, Any]]] = []
        for module in model.modules():
            self.owners.append((vars(module), {name: _shallow(value) for name, value in vars(module).items()}))
        held = [value for _, names in self.owners for value in names.values() if type(value) is Tensor]
        tensors = {id(t): t for t in (*model.parameters(), *model.buffers(), *held)}
        self.tensors = [(t, t.detach().clone()) for t in tensors.values() if t.layout == torch.strided]

    def restore(self) -> None:
        for names, before in self.owners:
            names.clear()
            names.update({name: _shallow(value) for name, value in before.items()})
        changed = [(t, value) for t, value in self.tensors if not torch.equal(t, value)]
        with torch.no_grad(), _unsafe_preserve_version_counter(tuple(t for t, _ in changed)):
            for tensor, value in changed:
                tensor.detach().copy_(value)


def _shallow(value: Any) -> Any:
    """Containers that are written into are copied: those of a module's parameters and buffers too."""
    return type(value)(value) if type(value) in (dict, list, set) else value


@contextmanager
def _as_before(model: nn.Module) -> Iterator[_Before]:
    before = _Before(model)
    try:
        yield before
    finally:
        before.restore()


@contextmanager
def _without_dropout() -> Iterator[None]:
    """Scaled in place of drawn, so that two passes can be compared."""
    original = F.dropout

    def scaled(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training:
            return input
        with torch._C.DisableTorchFunction() if type(input) is Tensor else nullcontext():
            return input * (1 - p)

    F.dropout = scaled
    try:
        yield
    finally:
        F.dropout = original


@contextmanager
def _plain_tables(model: nn.Module) -> Iterator[None]:
    """Feature tables with gradients of their own."""
    layers = [m for m in model.modules() if isinstance(m, TableLinear) and m.factored]
    for layer in layers:
        layer.factored = False
    try:
        yield
    finally:
        for layer in layers:
            layer.factored = True


@contextmanager
def _rounded(model: nn.Module) -> Iterator[None]:
    """Every parameter one bit of float32 off, up or down: what moves gradients that are sums of terms that cancel."""
    params = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in params]
    draws = torch.Generator(device="cpu").manual_seed(1)
    try:
        with torch.no_grad(), _unsafe_preserve_version_counter(tuple(params)):
            for p in params:
                signs = torch.randint(2, p.shape, generator=draws).to(p.device, p.dtype) * 2 - 1
                p.mul_(1 + signs * torch.finfo(torch.float32).eps)
        yield
    finally:
        with torch.no_grad(), _unsafe_preserve_version_counter(tuple(params)):
            for p, value in zip(params, before, strict=True):
                p.copy_(value)
