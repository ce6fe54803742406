"""Products with a sparse matrix, and their repetition over graph layers (LightGCN, arXiv 2002.02126, eq. 7-8)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops.csr import CsrMatrix, as_csr

_ops = torch.ops.smore_ext


def _parts(graph: CsrMatrix | Tensor, x: Tensor) -> tuple[Tensor, ...]:
    graph = as_csr(graph)
    dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    t = graph.t
    return (graph.rowptr, graph.col, graph.weight_as(dtype), t.rowptr, t.col, t.weight_as(dtype))


def spmm(graph: CsrMatrix | Tensor, x: Tensor) -> Tensor:
    """A x for a sparse matrix A and dense rows x.

    Args:
        graph: `Graph` [R, C], or a torch sparse COO or CSR tensor (converted once and remembered while it lives). Its
            weights are constants.
        x: [C, d], float32 or float64, any d >= 0.

    Returns:
        [R, d]. Differentiable in `x` any number of times: backward is the same product with the stored transpose, so it
        adds in a fixed order and gives the same bits for any number of threads.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, device or an index out of range.
    """
    return _ops.spmm(*_parts(graph, x), x)


def propagate(graph: CsrMatrix | Tensor, x: Tensor, n_layers: int, reduce: Literal["mean", "last"] = "mean") -> Tensor:
    """Repeated products: mean of A^0 x, A^1 x, ..., A^L x, or A^L x alone.

    Args:
        graph: square `Graph` [N, N] or torch sparse tensor, as in `spmm`.
        x: [N, d], float32 or float64.
        n_layers: L >= 0.
        reduce: "mean" (LightGCN's layer combination) or "last".

    Returns:
        [N, d]. Nothing is kept per layer, neither in forward nor for backward.

    Raises:
        TypeError, ValueError, IndexError: as in `spmm`, or a graph that is not square, or an unknown `reduce`.
    """
    if reduce not in ("mean", "last"):
        raise ValueError(f'propagate: reduce must be "mean" or "last", got {reduce!r}')
    return _ops.propagate(*_parts(graph, x), x, n_layers, reduce == "mean")


@fake("spmm")
def _(rowptr, col, weight, t_rowptr, t_col, t_weight, x: Tensor) -> Tensor:
    return x.new_empty(rowptr.shape[0] - 1, x.shape[1])


@fake("propagate")
def _(rowptr, col, weight, t_rowptr, t_col, t_weight, x: Tensor, n_layers: int, mean: bool = True) -> Tensor:
    return x.new_empty(x.shape)


autocast_float32("spmm", "propagate")
