"""The linear layer over a trained feature table, and the optimizer that never forms the table's gradient.

Raw features (4,096 columns an item for images) are by far the largest parameter of multimodal recommenders, and the
model reads them only through a projection X = T W^T + b to d columns. So dL/dT = dL/dX @ W has rank d: it is handed to
Adam as these two factors. Any model can use the pair:

    self.projection = TableLinear(features.shape[1], 64)
    x = self.projection(self.features)                              # [N, 64]
    optimizer = FactoredAdam(model.parameters(), [(model.features, model.projection)], lr=1e-3)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from smore_ext import ops


class TableLinear(nn.Linear):
    """`nn.Linear` that is applied to a whole table [N, in_features], which is a parameter.

    Attributes:
        grad_rows: [N, out_features] or None. While a `FactoredAdam` exists for this layer, backward leaves dL/dX here
            and no gradient in the table; several backward passes before a step add up.
    """

    bias: nn.Parameter  # always there, unlike in nn.Linear
    grad_rows: Tensor | None = None
    _optimizer: weakref.ref[FactoredAdam] | None = None

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)

    def forward(self, table: Tensor) -> Tensor:
        factored = self._optimizer is not None and self._optimizer() is not None
        if not (factored and table.requires_grad and torch.is_grad_enabled()):
            return ops.table_linear(table, self.weight, self.bias)
        x = ops.table_linear(table.detach(), self.weight, self.bias)
        x.register_hook(self._keep)
        return x

    def __getstate__(self) -> dict[str, Any]:  # a copy of the layer has no optimizer yet
        return {**super().__getstate__(), "_optimizer": None, "grad_rows": None}

    def _keep(self, grad: Tensor) -> None:
        grad = grad.detach()
        self.grad_rows = grad if self.grad_rows is None else self.grad_rows + grad


class FactoredAdam(torch.optim.Adam):
    """`torch.optim.Adam` (fused) whose step on feature tables works with the gradient's two factors.

    State and state dict are those of `torch.optim.Adam`; results differ from its by rounding only.

    Args:
        params: as for `torch.optim.Adam`, the tables included.
        tables: pairs (table [N, D], the TableLinear that reads it); a layer reads one table.
        lr, betas, eps, capturable: as for `torch.optim.Adam`. Weight decay is left out.

    Raises:
        ValueError: a table that is not among `params`, or whose shape does not fit its layer.
    """

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
            linear._optimizer = weakref.ref(self)

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for _, linear in self.tables:
            linear.grad_rows = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Before the projection's own step: the factor is the weight that the forward pass read.
        for table, linear in self.tables:
            if linear.grad_rows is not None:
                self._step_table(table, linear)
        super().step()
        return loss

    def _group(self, table: nn.Parameter) -> dict[str, Any] | None:
        """The parameter group of a table; looked up each time, for loading a state dict replaces the groups."""
        return next((group for group in self.param_groups if any(p is table for p in group["params"])), None)

    def _step_table(self, table: nn.Parameter, linear: TableLinear) -> None:
        group, state = self._group(table), self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        ops.factored_adam_(
            table.data,
            state["exp_avg"],
            state["exp_avg_sq"],
            linear.grad_rows,
            linear.weight,
            state["step"],
            group["lr"],
            *group["betas"],
            group["eps"],
        )
