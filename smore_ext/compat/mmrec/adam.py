"""`_build_optimizer` with torch's fused Adam, and feature tables whose gradient is never formed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smore_ext.compat.mmrec.proof import classes_of, difference, own_functions, undisturbed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.models import FactoredAdam, Recommender, TableLinear

_OPTIONS = ("params", "lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
_WIDE = 2  # a table has at least so many times the columns that its layer gives: below that factors save nothing


class FeatureLinear(TableLinear):
    """A layer of somebody's model that reads a feature table: as `nn.Linear`, but for tables."""

    def forward(self, table: Tensor) -> Tensor:
        if isinstance(table, nn.Parameter) and table.ndim == 2:
            return super().forward(table)
        return F.linear(table, self.weight, self.bias)


class Optimizer:
    piece = "optimizer"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._doubts: str | None = ""  # not asked yet

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            if own_functions(cls, "_build_optimizer"):
                self.swaps.set(cls, "_build_optimizer", self._builder(cls, vars(cls)["_build_optimizer"]))

    def _builder(self, cls: type, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def build(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            optimizer = original(trainer, *args, **kwargs)
            ours, told = self._ours(optimizer, trainer.model)
            name = f"{cls.__name__}._build_optimizer of {type(trainer.model).__name__}"
            self.report.add(self.piece, name, ours is not optimizer, told)
            return ours

        return build

    def _ours(self, optimizer: Any, model: nn.Module) -> tuple[Any, str]:
        if type(optimizer) is not torch.optim.Adam or optimizer.state:
            return optimizer, f"it is {type(optimizer).__name__}, not a new Adam"
        params = [p for group in optimizer.param_groups for p in group["params"]]
        if not all(p.is_floating_point() and p.layout == torch.strided for p in params):
            return optimizer, "a parameter is not of floating point"
        if any(group["differentiable"] or group["capturable"] for group in optimizer.param_groups):
            return optimizer, "it is differentiable or capturable"
        if self._doubts == "":
            self._doubts = _doubt()
        if self._doubts is not None:
            return optimizer, self._doubts
        groups = [{name: group[name] for name in _OPTIONS} for group in optimizer.param_groups]
        plain = len(groups) == 1 and not any(groups[0][name] for name in ("weight_decay", "amsgrad", "maximize"))
        tables = _tables(model, {id(p) for p in params}) if plain else []
        if not tables:
            return torch.optim.Adam(groups, fused=True), "fused"
        return _factored(groups[0], tables), f"fused, {len(tables)} feature tables by the factors of their gradient"


def _tables(model: nn.Module, trained: set[int]) -> list[tuple[nn.Parameter, nn.Linear]]:
    """Tables with a layer that may read each: of the same width, and much narrower in what it gives."""
    linears = [m for m in model.modules() if type(m) is nn.Linear and m.bias is not None]
    pairs: list[tuple[nn.Parameter, nn.Linear]] = []
    for module in model.modules():
        if isinstance(module, Recommender):  # of this package: it says so itself
            pairs += [pair for pair in module.feature_tables() if id(pair[0]) in trained]
            continue
        table = module.weight if type(module) is nn.Embedding else None
        if table is None or not table.requires_grad or id(table) not in trained or module.max_norm is not None:
            continue
        width = table.shape[1]
        fitting = [m for m in linears if m.in_features == width >= _WIDE * m.out_features]
        if fitting:
            pairs += [(table, linear) for linear in fitting]
    return pairs


def _factored(group: dict[str, Any], pairs: list[tuple[nn.Parameter, nn.Linear]]) -> FactoredAdam:
    for _, linear in pairs:
        if type(linear) is nn.Linear:
            linear.__class__ = FeatureLinear
    once = {id(table): (table, linear) for table, linear in pairs}
    for _, linear in pairs:
        linear.factored = True  # type: ignore[assignment]
    options = {name: group[name] for name in ("lr", "betas", "eps")}
    return FactoredAdam(group["params"], list(once.values()), **options)  # type: ignore[arg-type]


class _Net(nn.Module):
    """A sample: a table that is read through a layer, and another parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(_numbers(20, 48), freeze=False)
        self.layer = nn.Linear(48, 6)
        self.other = nn.Parameter(_numbers(20, 6) * 0.3)

    def forward(self) -> Tensor:
        return ((self.layer(self.table.weight) * 0.5 + self.other).sigmoid() * _numbers(20, 6)).sum()


def _numbers(n: int, d: int) -> Tensor:
    return torch.arange(n * d).view(n, d).float().mul(0.37).sin()


def _doubt() -> str | None:
    """Three steps of both."""
    with undisturbed(), torch.enable_grad():
        theirs = _Net()
        nets = theirs, copy.deepcopy(theirs), copy.deepcopy(theirs)
        group = torch.optim.Adam(nets[2].parameters(), lr=1e-2).param_groups[0]
        tables = _tables(nets[2], {id(p) for p in nets[2].parameters()})
        optimizers = (
            torch.optim.Adam(nets[0].parameters(), lr=1e-2),
            torch.optim.Adam(nets[1].parameters(), lr=1e-2, fused=True),
            _factored(group, tables),
        )
        for net, optimizer in zip(nets, optimizers, strict=True):
            for _ in range(3):
                optimizer.zero_grad()
                net().backward()
                optimizer.step()
    states = [{k: v.detach() for k, v in net.named_parameters()} for net in nets]
    return difference("a parameter", states[0], states[1], 1e-4) or difference(
        "a parameter", states[0], states[2], 1e-4
    )
