"""InfoNCE written out by a model, by `ops.info_nce`: no matrix of all pairs of a batch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from smore_ext import ops
from smore_ext.compat.mmrec.deferred import each_once
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import bare, by_place, classes_of, differs, proved
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps

_WORDS = ("infonce", "info_nce", "contrast", "ssl", "cl_loss", "nce")  # in the names of such methods
_TEMPERATURES = (0.2, 0.7)
_OTHERS = "it takes other arguments than two views and a number"
_NO_KEYED = "it is no InfoNCE of two views against keys, with a divisor that the model holds"

Loss = Callable[..., Any]
Reduction = Literal["sum", "mean"]


class Contrast:
    """Methods `(self, view1, view2, temperature)` of models, and `(self, view1, view2, keys)`, where an attribute holds
    the temperature; the mean over rows, or the sum."""

    piece = "contrast"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            if not issubclass(cls, nn.Module):
                continue
            for name, original in list(vars(cls).items()):
                if isinstance(original, FunctionType) and any(word in name.lower() for word in _WORDS):
                    self._method(cls, name, original)

    def _method(self, cls: type, name: str, original: FunctionType) -> None:
        where = f"{cls.__name__}.{name}"
        if len(inspect.signature(original).parameters) != 4:
            self.report.add(self.piece, where, False, _OTHERS)
            return
        reductions = (("mean", lambda n: 1.0), ("sum", float))
        scale: list[Callable[[int], float]] = []

        def ours(model: Any, x: Any, y: Any, tau: Any) -> Any:
            if not isinstance(tau, int | float) or not tau > 0:
                return original(model, x, y, tau)
            u, v, counts = each_once(x, y) or (formed(x), formed(y), None)
            if not (is_matrix_of_loss(u) and is_matrix_of_loss(v) and u.shape == v.shape and u.dtype == v.dtype):
                return original(model, x, y, tau)
            loss = ops.info_nce(u, v, float(tau), counts=counts)
            return loss if scale[0] is reductions[0][1] else loss * scale[0](x.shape[0])

        def doubt() -> str | None:
            why: str | None = None
            for _, of in reductions:
                scale[:] = [of]
                why = next((d for t in _TEMPERATURES if (d := _differs(cls, original, ours, t))), None)
                if why is None:
                    return None
            return _OTHERS if why is not None and why.startswith("the original raised") else why

        def tell(why: str | None) -> None:
            self.report.add(self.piece, where, why is None, why or "")

        pairs = proved(original, ours, doubt, tell)
        against = Against(original, tell)

        def either(model: Any, x: Any, y: Any, last: Any) -> Any:
            return (against if isinstance(last, Tensor) and last.ndim == 2 else pairs)(model, x, y, last)

        self.swaps.set(cls, name, by_place(original, either))


class Against:
    """InfoNCE against given keys, as LGMRec writes it: tried on a few rows at the first call, with the numbers
    that its code reads from the model as temperatures."""

    def __init__(self, original: FunctionType, tell: Callable[[str | None], None]) -> None:
        self.original, self.tell = original, tell
        self.chosen: tuple[str, Reduction] | None = None  # attribute, reduction
        self.tried = False

    def __call__(self, model: Any, x: Any, y: Any, keys: Any) -> Any:
        keys = formed(keys)
        u, v, counts = each_once(x, y) or (formed(x), formed(y), None)
        fits = is_matrix_of_loss(u) and is_matrix_of_loss(v) and is_matrix_of_loss(keys) and u.shape == v.shape
        if not fits or u.shape[1] != keys.shape[1] or not u.dtype == v.dtype == keys.dtype:
            return self.original(model, x, y, keys)
        if not self.tried:
            self.tried = True
            self.chosen = self._choice(model, [u[:7], v[:7], keys[:9]])
            self.tell(None if self.chosen else _NO_KEYED)
        if self.chosen is None:
            return self.original(model, x, y, keys)
        return _against(model, *self.chosen, u, v, keys, counts)

    def _choice(self, model: Any, sample: list[Tensor]) -> tuple[str, Reduction] | None:
        read = {name: getattr(model, name, None) for name in self.original.__code__.co_names}
        numbers = [n for n, v in read.items() if isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= 10]
        theirs = functools.partial(self.original, model)
        for attribute in sorted(numbers, key=lambda name: not any(word in name for word in ("tau", "temp"))):
            for reduction in get_args(Reduction):
                if differs(theirs, functools.partial(_against, model, attribute, reduction), sample) is None:
                    return attribute, reduction
        return None


def _against(
    model: Any, attribute: str, reduction: Reduction, x: Tensor, y: Tensor, keys: Tensor, counts: Tensor | None = None
) -> Tensor:
    tau = float(getattr(model, attribute))
    if counts is None:
        return ops.info_nce(x, y, tau, keys, reduction)
    total = (ops.info_nce(x, y, tau, keys, "none") * counts).sum()
    return total if reduction == "sum" else total / counts.sum()


def is_matrix_of_loss(value: Any) -> bool:
    return is_matrix(value) and value.shape[0] > 0


def _differs(cls: type, original: Loss, ours: Loss, tau: float) -> str | None:
    model = bare(cls)
    nn.Module.__init__(model)
    x = torch.arange(7 * 5).view(7, 5).float().mul(0.9).sin()
    y: Tensor = (x * 1.7 + 0.3).cos()
    return differs(functools.partial(original, model), functools.partial(ours, model), [x, y, tau])
