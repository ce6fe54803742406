"""Tables: large parameters that a model reads only through a narrow linear layer, and rows taken from any."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import overload

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors

__all__ = ["factored_adam_", "gather_rows", "table_linear"]

_ops = torch.ops.smore_ext

# Table -> the differentiable function that leaves its gradient in another form than dense, as an optimizer wants it.
_READ_BY: MutableMapping[Tensor, Callable[[Tensor, Tensor, Tensor], Tensor]] = WeakIdKeyDictionary()


def read_table_by(table: Tensor, read: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """From now on `table_linear` of this very tensor, where its gradient is recorded, is read(table, weight, bias)."""
    _READ_BY[table] = read


@takes_tensors
def table_linear(table: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """table @ weight^T + bias for a long, wide table and a narrow output (docs/spec.md, section 1, step 1).

    The function of `torch.nn.functional.linear`, with sums of fixed order: the same bits for any number of threads.

    Args:
        table: [N, D], float32 or float64.
        weight: [d, D], same dtype, d >= 1.
        bias: [d], same dtype; None: no bias.

    Returns:
        [N, d]. Differentiable once in all three; the table's gradient is formed only if the table requires one, and
        left as its factors if the table is one of a `FactoredAdam`. Under autocast it computes in float32.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device.
    """
    if bias is None:
        bias = weight.new_zeros(weight.shape[:1])
    if not torch.compiler.is_compiling():  # a compiled step has ordinary gradients
        read = _READ_BY.get(table)
        if read is not None and table.requires_grad and table.is_leaf and torch.is_grad_enabled():
            return read(table, weight, bias)
    return _ops.table_linear(table, weight, bias)


@overload
def gather_rows(tables: Tensor, index: Tensor, check: bool = True) -> Tensor: ...
@overload
def gather_rows(tables: Sequence[Tensor], index: Tensor, check: bool = True) -> tuple[Tensor, ...]: ...
@takes_tensors
def gather_rows(tables: Tensor | Sequence[Tensor], index: Tensor, check: bool = True) -> Tensor | tuple[Tensor, ...]:
    """table[index] of a table, or of several with as many rows, whose gradients add up in a fixed order.

    The function of `torch.nn.functional.embedding`, without a sort in its backward pass: who named a row is listed
    once for all tables.

    Args:
        tables: [N, d], or several [N, d_t]; float32, float64 or bfloat16, whose gradients are summed in float32.
        index: [B] int64 in 0..N-1, in any order, with repetitions.
        check: whether the host waits for a GPU to say that an index is out of range. If not, and while a CUDA graph is
            captured, such a row is zeros there. On the CPU it is an error in any case.

    Returns:
        [B, d], or a tuple of [B, d_t]. Differentiable any number of times in the tables, with dense gradients: zeros
        for a row that is not named; one backward pass goes through all of them. Autocast does not apply.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape or device; an index out of range (with its position).
    """
    if isinstance(tables, Tensor):
        return _ops.gather_rows([tables], index, check)[0]
    return tuple(_ops.gather_rows(list(tables), index, check))


@fake("gather_rows")
def _(tables: list[Tensor], index: Tensor, check: bool = True) -> list[Tensor]:
    return [table.new_empty(index.shape[0], table.shape[1]) for table in tables]


@fake("gather_rows_backward")
def _(grads: list[Tensor], index: Tensor, n: int) -> list[Tensor]:
    return [grad.new_empty(n, grad.shape[1]) for grad in grads]


@takes_tensors
def factored_adam_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad_rows: Tensor,
    factor: Tensor,
    step: Tensor,
    lr: float | Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Tensor:
    """One step of Adam, in place, for a parameter whose gradient is grad_rows @ factor; the product is never formed.

    For X = T W^T the gradient of the table T is dL/dX @ W: rank d, while T is [N, D]. T and its two moments are read
    and written once, nothing else of that size exists. The formula is that of `torch.optim.Adam` without weight decay.

    Args:
        param, exp_avg, exp_avg_sq: [N, D], float32 or float64, contiguous; changed in place.
        grad_rows: [N, d], same dtype; dL/dX.
        factor: [d, D], same dtype; the weight W that X was computed with.
        step: one element, float32 or float64; number of this step, 1 at the first.
        lr: float, or one element, float32 or float64, on the device of `param`: read at each replay of a CUDA graph.
        beta1, beta2, eps: as in `torch.optim.Adam`.

    Returns:
        param. Not differentiable; autocast does not apply.

    Raises:
        TypeError, ValueError: wrong dtype, shape, device, layout or setting (named), before anything is changed.
        RuntimeError: a tensor that requires grad, where gradients are recorded (use `torch.no_grad()`).
    """
    rate, rate_tensor = (0.0, lr) if isinstance(lr, Tensor) else (lr, None)
    _ops.factored_adam_(
        param, exp_avg, exp_avg_sq, grad_rows, factor, step, rate, beta1, beta2, eps, lr_tensor=rate_tensor
    )
    return param


@fake("factored_adam_", anywhere=("step", "lr_tensor"))
def _(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad_rows: Tensor,
    factor: Tensor,
    step: Tensor,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    lr_tensor: Tensor | None = None,
) -> None:
    return None


@fake("table_linear")
def _(table: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return table.new_empty(table.shape[0], weight.shape[0])


@fake("table_linear_backward")
def _(grad: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    return table.new_empty(grad.shape[1], table.shape[1]), table.new_empty(grad.shape[1])


autocast_float32("table_linear")
