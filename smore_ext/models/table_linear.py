"""The linear layer over a trained feature table, and the optimizer that never forms the table's gradient.

Raw features (4,096 columns an item for images) are by far the largest parameter of multimodal recommenders, and the
model reads them only through a projection X = T W^T + b to d columns. So dL/dT = dL/dX @ W has rank d: it is handed to
Adam as these two factors. Any model can use the pair:

    self.projection = TableLinear(features.shape[1], 64)
    x = self.projection(self.features)                              # [N, 64]
    optimizer = FactoredAdam(model.parameters(), [(model.features, model.projection)], lr=1e-3)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from smore_ext import ops
from smore_ext.models.factored_grad import FactoredGrad
from smore_ext.ops.modes import is_plain
from smore_ext.ops.tables import read_table_by


class _FactoredLinear(torch.autograd.Function):
    """table W^T + b, whose backward leaves the table's gradient as its factors."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(table, weight)
        return ops.table_linear(table, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        table, weight = ctx.saved_tensors
        of_table = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            # Copied: the projection may be stepped before the table, and fused optimizers raise no version.
            of_table = FactoredGrad(grad.contiguous(), weight.detach().clone())
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            of_weight, of_bias = torch.ops.smore_ext.table_linear_backward(grad, table)
        return of_table, of_weight, of_bias if ctx.needs_input_grad[2] else None


class TableLinear(nn.Linear):
    """`nn.Linear` that is applied to a whole table [N, in_features], which is a parameter.

    Attributes:
        factored: whether the gradient of such a parameter is left as a `FactoredGrad`. `FactoredAdam` sets it; without,
            and for any other input (a slice, a masked or normalised table), gradients are ordinary tensors.
        has_factored: whether it has left one since the optimizer's last step.
    """

    factored: bool = False
    has_factored: bool = False

    def forward(self, table: Tensor) -> Tensor:
        if (
            self.factored
            and table.requires_grad
            and table.is_leaf
            and torch.is_grad_enabled()
            and not torch.compiler.is_compiling()  # a compiled step has ordinary gradients
            and is_plain(table)  # and so have the transforms of torch.func
        ):
            if not self.has_factored:
                self.has_factored = True
            return _FactoredLinear.apply(table, self.weight, self.bias)
        return ops.table_linear(table, self.weight, self.bias)


def _adam_step(optimizer: torch.optim.Adam) -> None:
    """torch's Adam on what is left, without its step hooks: they run around `FactoredAdam.step`."""
    step: Any = torch.optim.Adam.step
    (step.__wrapped__ if getattr(step, "hooked", False) else step)(optimizer)


# A step on a GPU -> its version and its number, as we left them.
_COUNTED: MutableMapping[Tensor, tuple[int, float]] = WeakIdKeyDictionary()


def advanced(step: Tensor) -> Tensor:
    """Adds 1 to `step`, and returns what it is then as a tensor on the CPU: the host counts along and does not wait for
    a GPU to tell, unless somebody else has written there. Not for a step of a CUDA graph, whose replays no version
    tells of."""
    version, number = _COUNTED.get(step, (-1, 0.0))
    ours = version == step._version
    step += 1
    number = number + 1 if ours else float(step)
    _COUNTED[step] = step._version, number
    return torch.tensor(number, dtype=torch.float64, device="cpu")


class FactoredAdam(torch.optim.Adam):
    """`torch.optim.Adam` (fused) whose step on feature tables works with the gradient's two factors.

    State and state dict are those of `torch.optim.Adam`; results differ from its by rounding only. Whatever stands in a
    table's `.grad` counts: a factored gradient is stepped as its factors, any other (a penalty was added, elements were
    clipped, replicas were averaged), or one under weight decay, amsgrad or maximize, as torch steps it. A warning tells
    when a table is read neither by its layer nor by `ops.table_linear`, or is in compiled code: that is torch's Adam on
    a gradient [N, D].

    Args:
        params: as for `torch.optim.Adam`, the tables included.
        tables: pairs (table [N, D], the TableLinear that reads it); a layer reads one table.
        lr, betas, eps, capturable: as for `torch.optim.Adam`.

    Raises:
        ValueError: a table that is not among `params`, or whose shape does not fit its layer.
    """

    _told = False

    def __init__(
        self,
        params: Iterable[Any],
        tables: Iterable[tuple[nn.Parameter, TableLinear]],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        capturable: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True, capturable=capturable)
        self.tables = list(tables)
        for table, linear in self.tables:
            if self._group(table) is None:
                raise ValueError(f"FactoredAdam: a table must be among params, got one of shape {tuple(table.shape)}")
            if table.ndim != 2 or table.shape[1] != linear.in_features:
                raise ValueError(
                    f"FactoredAdam: a table must have {linear.in_features} columns, as its layer reads, got shape "
                    f"{tuple(table.shape)}"
                )
            linear.factored = True
        self._claim_tables()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        kept: list[tuple[nn.Parameter, Tensor]] = []
        for table, linear in self.tables:
            group, grad = self._group(table), table.grad
            if group is None or not isinstance(grad, FactoredGrad):
                if grad is not None and not linear.has_factored:
                    self._tell_once(table)
                linear.has_factored = False
                continue
            linear.has_factored = False
            if grad.factors is not None and not (group["weight_decay"] or group["amsgrad"] or group["maximize"]):
                self._step_table(table, group, *grad.factors)
                kept.append((table, grad))
                table.grad = None  # stepped: not for torch's Adam
            else:
                table.grad = grad.dense()
        try:
            _adam_step(self)
        finally:
            for table, grad in kept:
                table.grad = grad
        return loss

    def _tell_once(self, table: Tensor) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"FactoredAdam: a table of shape {tuple(table.shape)} has an ordinary gradient and is stepped as by "
                f"torch's Adam, with all of its memory: read it as linear(table), by the TableLinear given with it, "
                f"or by ops.table_linear, outside torch.compile",
                stacklevel=5,  # this, step, and torch's wrappers for hooks and no_grad
            )

    def __getstate__(self) -> dict[str, Any]:  # copies and pickles: torch keeps its own attributes only
        return {**super().__getstate__(), "tables": self.tables}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._claim_tables()

    def _claim_tables(self) -> None:
        """`ops.table_linear` called directly leaves the tables' gradients as their factors, too."""
        for table, _ in self.tables:
            read_table_by(table, _FactoredLinear.apply)

    def _group(self, table: nn.Parameter) -> dict[str, Any] | None:
        """The parameter group of a table; looked up each time, for loading a state dict replaces the groups."""
        return next((group for group in self.param_groups if any(p is table for p in group["params"])), None)

    def _step_table(self, table: nn.Parameter, group: dict[str, Any], rows: Tensor, factor: Tensor) -> None:
        # Set by GradScaler, which leaves it to fused optimizers to divide by the scale and to skip a step.
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        if scale is not None:
            rows = rows / scale.to(rows.device, rows.dtype)
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        number = state["step"].add_(1) if group["capturable"] or table.is_cpu else advanced(state["step"])
        beta1, beta2 = group["betas"]
        ops.factored_adam_(
            table,
            state["exp_avg"],
            state["exp_avg_sq"],
            rows,
            factor,
            number,
            group["lr"],
            beta1,
            beta2,
            group["eps"],
        )
