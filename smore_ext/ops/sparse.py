"""Products with a sparse matrix, their repetition over graph layers (LightGCN, arXiv 2002.02126, eq. 7-8), polynomials
of it, and values of its edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import refuse_tangents, takes_tensors
from smore_ext.ops.converted import Matrix, as_csr
from smore_ext.ops.csr import CsrMatrix

__all__ = ["edge_dot", "edge_softmax", "poly_filter", "propagate", "spmm"]

_ops = torch.ops.smore_ext


def _sums(x: Tensor) -> torch.dtype:
    """What sums over rows of x are made in."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


def _parts(graph: Matrix, x: Tensor) -> tuple[Tensor, ...]:
    """A graph of constant weights as the ops take it."""
    graph = as_csr(graph)
    dtype = _sums(x)
    t = graph.t
    return (graph.rowptr, graph.col, graph.weight_as(dtype), t.rowptr, t.col, t.weight_as(dtype))


def _live_parts(
    graph: CsrMatrix, x: Tensor, weight: Tensor | None
) -> tuple[tuple[Tensor | None, ...], tuple[Tensor | None, Tensor | None]]:
    """The same with weights that may require grad, and the permutations (order, t_order) by which they are read."""
    s = graph.structure
    order, t_order = None, None
    if weight is None and graph.is_live_transpose:  # its weights are read in the order that they are in
        weight, order = graph.t.weight_as(_sums(x)), graph.t.t_order
    else:
        weight, t_order = graph.weight_as(_sums(x)) if weight is None else weight, s.t_order
    return (s.rowptr, s.col, weight, s.t.rowptr, s.t.col, None), (order, t_order)


def _scale(graph: CsrMatrix, x: Tensor) -> Tensor | None:
    """The factors of separable weights; none for float64, which is for weights as they are, to the last bit."""
    return None if x.dtype == torch.float64 else graph.scale


@takes_tensors
def spmm(graph: Matrix, x: Tensor, gate: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """A x, or A (x * gate), for a sparse matrix A and dense rows x.

    Args:
        graph: `Graph` [R, C], or a torch sparse COO, CSR or CSC tensor or a scipy sparse matrix (converted once; its
            contents are compared at each call, a quarter to a third of the time of a product of width 64).
        x: [C, d], float32, float64 or bfloat16, any d >= 0. bfloat16 is a way to hold x and the result in memory: sums
            are made in float32.
        gate: like x. Gating here instead of before spares backward a pass over z = A^T dL/dy, as dL/dx = z * gate and
            dL/dgate = z * x are written by the product itself.
        weight: [E], in the order of `graph.col`, instead of the graph's weights; of the type of x, or float32 for
            bfloat16.

    Returns:
        [R, d]. Differentiable in `x`, `gate` and `weight` (or the graph's weights, if they require grad) any number of
        times: backward is the same product with the stored transpose, and `edge_dot` for the weights, so it adds in a
        fixed order and gives the same bits for any number of threads.

    Under autocast to bfloat16, x and gate are held in bfloat16; under autocast to another type, in float32.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, device or an index out of range.
    """
    graph = as_csr(graph)
    if weight is None and not graph.requires_grad:
        return _ops.spmm(*_parts(graph, x), x, gate)
    parts, orders = _live_parts(graph, x, weight)
    return _ops.spmm(*parts, x, gate, *orders)


@takes_tensors
def propagate(
    graph: Matrix,
    x: Tensor,
    n_layers: int,
    reduce: Literal["mean", "last"] = "mean",
    gate: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Repeated products: mean of A^0 x, A^1 x, ..., A^L x, or A^L x alone; with a gate, of x * gate.

    Args:
        graph: square `Graph` [N, N] or another sparse matrix, as in `spmm`.
        x: [N, d], float32, float64 or bfloat16, as in `spmm`. In bfloat16, what a layer hands to the next is rounded.
        n_layers: L >= 0.
        reduce: "mean" (LightGCN's layer combination) or "last".
        gate: like x, as in `spmm`.
        weight: [E], as in `spmm`, of all layers; its gradient is the sum over them.

    Returns:
        [N, d]. Nothing is kept per layer, neither in forward nor for backward, unless weights require grad: their
        gradient needs what each layer read, so then L arrays like x are kept from forward to backward (making them
        again would cost a third more time). Autocast: as in `spmm`.

    Raises:
        TypeError, ValueError, IndexError: as in `spmm`, or a graph that is not square, or an unknown `reduce`.
    """
    if reduce not in ("mean", "last"):
        raise ValueError(f'propagate: reduce must be "mean" or "last", got {reduce!r}')
    graph = as_csr(graph)
    mean = reduce == "mean"
    if weight is None and not graph.requires_grad:
        return _ops.propagate(*_parts(graph, x), x, n_layers, mean, gate, _scale(graph, x))
    parts, orders = _live_parts(graph, x, weight)
    return _ops.propagate(*parts, x, n_layers, mean, gate, None, *orders)


@takes_tensors
def poly_filter(
    graph: Matrix,
    x: Tensor,
    coefficients: Tensor | Sequence[float],
    weight: Tensor | None = None,
) -> Tensor:
    """A polynomial of a graph: sum_l coefficients[l] A^l x (ChebNet's and GPRGNN's filters, arXiv 2006.07988, eq. 2).

    Args:
        graph: square `Graph` [N, N] or another sparse matrix, as in `spmm`.
        x: [N, d], float32, float64 or bfloat16, as in `spmm`. In bfloat16, what a layer hands to the next is rounded.
        coefficients: [L+1], at least one, of the type of x, or float32 for bfloat16, on its device; or numbers,
            or tensors of one each.
        weight: [E], as in `propagate`.

    Returns:
        [N, d], by Horner's scheme: L products, and nothing kept per layer. Differentiable in `x`, `coefficients` and
        `weight` (or the graph's weights; then as in `propagate`) any number of times. Backward costs L products too,
        and with a gradient of the coefficients L + 1 passes over three arrays like x. Nothing is kept per layer either:
        with h_l = (A^T)^l dL/dy, dL/dx = sum_l coefficients[l] h_l and dL/dcoefficients[l] = <h_l, x>. These sums have
        a fixed order and end in float64.

    Under autocast to bfloat16, x is held in bfloat16; under autocast to another type, in float32.

    Raises:
        TypeError, ValueError, IndexError: as in `propagate`; coefficients that are empty or of another dtype.
    """
    graph = as_csr(graph)
    refuse_tangents("smore_ext::poly_filter", "weight", graph.weight if weight is None else weight)
    if not isinstance(coefficients, Tensor):
        numbers = list(coefficients)
        if any(isinstance(number, Tensor) for number in numbers):  # they may be learned
            coefficients = torch.stack([torch.as_tensor(c, dtype=_sums(x), device=x.device) for c in numbers])
        else:
            coefficients = torch.tensor(numbers, dtype=_sums(x), device=x.device)
    if weight is None and not graph.requires_grad:
        return _ops.poly_filter(*_parts(graph, x), x, coefficients, _scale(graph, x))
    parts, orders = _live_parts(graph, x, weight)
    return _ops.poly_filter(*parts, x, coefficients, None, *orders)


@takes_tensors
def edge_dot(graph: Matrix, u: Tensor, v: Tensor) -> Tensor:
    """<u[row], v[col]> for each edge (row, col) of a graph: scores of edges; also the gradient of weights in `spmm`.

    Args:
        graph: `Graph` [R, C], or a sparse matrix as in `spmm`. Its weights do not matter.
        u: [R, d], float32, float64 or bfloat16 (summed in float32).
        v: [C, d], like u.

    Returns:
        [E], in the order of `graph.col`; float32 for bfloat16. Differentiable in `u` and `v` any number of times:
        backward is `spmm` with dL/de as weights, on the graph and on its transpose.

    Under autocast to bfloat16, u and v are held in bfloat16; under autocast to another type, in float32.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, device or an index out of range.
    """
    s = as_csr(graph).structure
    return _ops.edge_dot(s.rowptr, s.col, s.t.rowptr, s.t.col, s.t_order, u, v)


@takes_tensors
def edge_softmax(graph: Matrix, logits: Tensor) -> Tensor:
    """Softmax over the edges of each row of a graph: attention over neighbours (GAT, arXiv 1710.10903, eq. 3).

    Args:
        graph: `Graph` [R, C], or a sparse matrix as in `spmm`. Its weights do not matter.
        logits: [E], in the order of `graph.col`, float32 or float64. Minus infinity gives 0.

    Returns:
        [E]: positive, and 1 in sum over each row that has edges. NaN in a row with NaN or infinity, or of minus
        infinities alone. Differentiable once. For a softmax over columns, give it `graph.t` and
        `logits[graph.t_order]`.

    Under autocast it computes in float32.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape, device or row pointers out of range.
    """
    s = as_csr(graph).structure
    return _ops.edge_softmax(s.rowptr, s.col, logits)


autocast_float32("edge_softmax")


@fake("spmm")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor | None,
    x: Tensor,
    gate: Tensor | None = None,
    order: Tensor | None = None,
    t_order: Tensor | None = None,
) -> Tensor:
    return x.new_empty(rowptr.shape[0] - 1, x.shape[1])


@fake("propagate")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor | None,
    x: Tensor,
    *_: Any,
    **__: Any,
) -> Tensor:
    return x.new_empty(x.shape)


@fake("poly_filter")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor | None,
    x: Tensor,
    coefficients: Tensor,
    *_: Any,
    **__: Any,
) -> Tensor:
    return x.new_empty(x.shape)


@fake("poly_filter_backward")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    coefficients: Tensor,
    *_: Any,
    **__: Any,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape)


@fake("gated_product_backward")
def _(
    rowptr: Tensor,
    col: Tensor,
    weight: Tensor,
    t_rowptr: Tensor,
    t_col: Tensor,
    t_weight: Tensor | None,
    grad: Tensor,
    x: Tensor,
    *_: Any,
    **__: Any,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@fake("edge_dot")
def _(rowptr: Tensor, col: Tensor, t_rowptr: Tensor, t_col: Tensor, t_order: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return u.new_empty(col.shape, dtype=_sums(u))


@fake("edge_softmax")
def _(rowptr: Tensor, col: Tensor, logits: Tensor) -> Tensor:
    return logits.new_empty(logits.shape)


@fake("edge_softmax_backward")
def _(rowptr: Tensor, col: Tensor, y: Tensor, grad: Tensor) -> Tensor:
    return y.new_empty(y.shape)
