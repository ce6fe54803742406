"""InfoNCE written out by a model, by `ops.info_nce`: no matrix of all pairs of a batch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from smore_ext import ops
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import bare, classes_of, differs, proved
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps

_WORDS = ("infonce", "info_nce", "contrast", "ssl", "cl_loss", "nce")  # in the names of such methods
_TEMPERATURES = (0.2, 0.7)
_OTHERS = "it takes other arguments than two views and a number"

Loss = Callable[..., Any]


class Contrast:
    """Methods `(self, view1, view2, temperature)` of models; the mean over rows, or the sum."""

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

    def _method(self, cls: type, name: str, original: Loss) -> None:
        where = f"{cls.__name__}.{name}"
        if len(inspect.signature(original).parameters) != 4:
            self.report.add(self.piece, where, False, _OTHERS)
            return
        reductions = (("mean", lambda n: 1.0), ("sum", float))
        scale: list[Callable[[int], float]] = []

        def ours(model: Any, x: Any, y: Any, tau: Any) -> Any:
            takes = is_matrix_of_loss(x) and is_matrix_of_loss(y) and x.shape == y.shape and x.dtype == y.dtype
            if not takes or not isinstance(tau, int | float) or not tau > 0:
                return original(model, x, y, tau)
            loss = ops.info_nce(x, y, float(tau))
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

        self.swaps.set(cls, name, proved(original, ours, doubt, tell))


def is_matrix_of_loss(value: Any) -> bool:
    return is_matrix(value) and value.shape[0] > 0


def _differs(cls: type, original: Loss, ours: Loss, tau: float) -> str | None:
    model = bare(cls)
    nn.Module.__init__(model)
    x = torch.arange(7 * 5).view(7, 5).float().mul(0.9).sin()
    y: Tensor = (x * 1.7 + 0.3).cos()
    return differs(functools.partial(original, model), functools.partial(ours, model), [x, y, tau])
