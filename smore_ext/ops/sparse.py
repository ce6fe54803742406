"""Products with a sparse matrix, and their repetition over graph layers (LightGCN, arXiv 2002.02126, eq. 7-8)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from smore_ext.ops._register import fake
from smore_ext.ops.csr import CsrMatrix, as_csr

__all__ = ["propagate", "spmm"]

_ops = torch.ops.smore_ext


def _parts(graph: CsrMatrix | Tensor, x: Tensor) -> tuple[Tensor, ...]:
    graph = as_csr(graph)
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    t = graph.t
    return (graph.rowptr, graph.col, graph.weight_as(dtype), t.rowptr, t.col, t.weight_as(dtype))


def _scale(graph: CsrMatrix, x: Tensor) -> Tensor | None:
    """The factors of separable weights; none for float64, which is for weights as they are, to the last bit."""
    return None if x.dtype == torch.float64 else graph.scale


def spmm(graph: CsrMatrix | Tensor, x: Tensor, gate: Tensor | None = None) -> Tensor:
    """A x, or A (x * gate), for a sparse matrix A and dense rows x.

    Args:
        graph: `Graph` [R, C], or a torch sparse COO or CSR tensor (converted once and remembered while it lives). Its
            weights are constants.
        x: [C, d], float32, float64 or bfloat16, any d >= 0. bfloat16 is a way to hold x and the result in memory: sums
            are made in float32.
        gate: like x. Gating here instead of before spares backward a pass over z = A^T dL/dy, as dL/dx = z * gate and
            dL/dgate = z * x are written by the product itself.

    Returns:
        [R, d]. Differentiable in `x` and `gate` any number of times: backward is the same product with the stored
        transpose, so it adds in a fixed order and gives the same bits for any number of threads.

    Under autocast to bfloat16, x and gate are held in bfloat16; under autocast to another type, in float32.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, device or an index out of range.
    """
    return _ops.spmm(*_parts(graph, x), x, gate)


def propagate(
    graph: CsrMatrix | Tensor,
    x: Tensor,
    n_layers: int,
    reduce: Literal["mean", "last"] = "mean",
    gate: Tensor | None = None,
) -> Tensor:
    """Repeated products: mean of A^0 x, A^1 x, ..., A^L x, or A^L x alone; with a gate, of x * gate.

    Args:
        graph: square `Graph` [N, N] or torch sparse tensor, as in `spmm`.
        x: [N, d], float32, float64 or bfloat16, as in `spmm`. In bfloat16, what a layer hands to the next is rounded.
        n_layers: L >= 0.
        reduce: "mean" (LightGCN's layer combination) or "last".
        gate: like x, as in `spmm`.

    Returns:
        [N, d]. Nothing is kept per layer, neither in forward nor for backward. Autocast: as in `spmm`.

    Raises:
        TypeError, ValueError, IndexError: as in `spmm`, or a graph that is not square, or an unknown `reduce`.
    """
    if reduce not in ("mean", "last"):
        raise ValueError(f'propagate: reduce must be "mean" or "last", got {reduce!r}')
    graph = as_csr(graph)
    return _ops.propagate(*_parts(graph, x), x, n_layers, reduce == "mean", gate, _scale(graph, x))


@fake("spmm")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor,
    x: Tensor,
    gate: Tensor | None = None,
) -> Tensor:
    return x.new_empty(rowptr.shape[0] - 1, x.shape[1])


@fake("propagate")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor,
    x: Tensor,
    *_: Any,
    **__: Any,
) -> Tensor:
    return x.new_empty(x.shape)


@fake("gated_product_backward")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor,
    grad: Tensor,
    x: Tensor,
    *_: Any,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)
