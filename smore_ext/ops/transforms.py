"""The transforms of torch.func (grad, vjp, jvp, vmap, ..) over the ops that are linear in their rows.

Autograd of the ops is in C++, which these transforms do not see through: torch raises. `takes_tensors` comes here with
that error, so ordinary calls pay nothing. `linear` ops are then differentiated and batched as what they are; any other
says what to use instead. `vmap` alone reaches every op but `spectrum_fusion`, as torch runs one slice at a time;
products and `gather_rows` take all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from smore_ext.ops import sparse
from smore_ext.ops._types import instead_under_transforms
from smore_ext.ops.converted import as_csr
from smore_ext.ops.csr import CsrMatrix
from smore_ext.ops.modes import is_plain

_ops = torch.ops.smore_ext


class _LinearMap(torch.autograd.Function):
    """Rows [C, d] -> [R, d], each column by itself; `adjoint` is the map that gradients take."""

    @staticmethod
    def forward(x: Tensor, forth: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor]) -> Tensor:
        return forth(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.forth, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _LinearMap.apply(grad, ctx.adjoint, ctx.forth), None, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, *_: Any) -> Tensor:
        return _LinearMap.apply(x, ctx.forth, ctx.adjoint)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, *maps: Any) -> tuple[Tensor, int]:
        return _by_columns(lambda rows: _LinearMap.apply(rows, *maps), x, in_dims[0])


def _by_columns(apply: Callable[[Tensor], Tensor], x: Tensor, batch_dim: int) -> tuple[Tensor, int]:
    """A batch of rows [.., C, .., d, ..] side by side: [C, B d] -> [R, B d]."""
    x = x.movedim(batch_dim, 1)
    y = apply(x.reshape(x.shape[0], -1))
    return y.view(y.shape[0], *x.shape[1:]), 1


class _Filter(torch.autograd.Function):
    """`spectral_filter`, linear in the rows and in the filter, a real view; the transpose has its conjugate."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, keep: int | None) -> Tensor:
        return _ops.spectral_filter(x, weight, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.keep = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x = (
            _Filter.apply(grad, weight * weight.new_tensor([1.0, -1.0]), ctx.keep) if ctx.needs_input_grad[0] else None
        )
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = _ops.spectral_filter_backward(grad, x, weight, ctx.keep)[1]
        return of_x, of_weight, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, weight_t: Tensor | None, _: None) -> Tensor:
        x, weight = ctx.saved_tensors
        terms = [] if x_t is None else [_Filter.apply(x_t, weight, ctx.keep)]
        terms += [] if weight_t is None else [_Filter.apply(x, weight_t, ctx.keep)]
        return torch.stack(terms).sum(0)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, weight: Tensor, keep: int | None) -> tuple[Tensor, int]:
        if in_dims[1] is None:  # leading dimensions of x are the op's own
            return _Filter.apply(x.movedim(in_dims[0], 0), weight, keep), 0
        xs = [x] * info.batch_size if in_dims[0] is None else x.unbind(in_dims[0])
        return torch.stack([_Filter.apply(a, w, keep) for a, w in zip(xs, weight.unbind(in_dims[1]), strict=True)]), 0


def _constant(name: str, graph: Any, weight: Tensor | None) -> CsrMatrix:
    graph = as_csr(graph)
    if weight is not None:
        graph = graph.with_weight(weight)
    if graph.requires_grad or not is_plain(graph.weight):
        raise RuntimeError(
            f"smore_ext::{name}: torch.func's transforms reach it through x and gate, not through weights of edges: "
            f"make them outside, and use torch.autograd.grad for those that are learned"
        )
    return graph


@instead_under_transforms("spmm")
def _spmm(graph: Any, x: Tensor, gate: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    graph = _constant("spmm", graph, weight)
    rows = x if gate is None else x * gate
    return _LinearMap.apply(rows, partial(sparse.spmm, graph), partial(sparse.spmm, graph.t))


@instead_under_transforms("propagate")
def _propagate(
    graph: Any, x: Tensor, n_layers: int, reduce: Any = "mean", gate: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    graph = _constant("propagate", graph, weight)
    rows = x if gate is None else x * gate
    maps = [partial(sparse.propagate, a, n_layers=n_layers, reduce=reduce) for a in (graph, graph.t)]
    return _LinearMap.apply(rows, *maps)


@instead_under_transforms("poly_filter")
def _poly_filter(graph: Any, x: Tensor, coefficients: Tensor | Sequence[float], weight: Tensor | None = None) -> Tensor:
    graph = _constant("poly_filter", graph, weight)
    given = [coefficients] if isinstance(coefficients, Tensor) else list(coefficients)
    if any(isinstance(c, Tensor) and (c.requires_grad or not is_plain(c)) for c in given):
        raise RuntimeError(
            "smore_ext::poly_filter: torch.func's transforms reach it through x, not through coefficients: use "
            "torch.autograd.grad for those"
        )
    maps = [partial(sparse.poly_filter, a, coefficients=coefficients) for a in (graph, graph.t)]
    return _LinearMap.apply(x, *maps)


@instead_under_transforms("spectral_filter")
def _spectral_filter(x: Tensor, weight: Tensor, keep: int | None = None) -> Tensor:
    real = torch.view_as_real(weight.resolve_conj()) if weight.is_complex() else weight
    return _Filter.apply(x, real, keep)


@instead_under_transforms("table_linear")
def _table_linear(table: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(table, weight, bias)  # the same function, in torch's order of sums


@instead_under_transforms("dropout")
def _dropout(x: Tensor, p: float, seed: int, offset: int | Tensor = 0) -> Tensor:
    with torch._C._DisableFuncTorch(), torch._C._AutoDispatchBelowAutograd():  # what is kept does not depend on x
        kept = _ops.dropout(torch.ones(x.shape, dtype=x.dtype, device=x.device), p, seed, offset)
    return x * kept


@instead_under_transforms("edge_dot")
def _edge_dot(graph: Any, u: Tensor, v: Tensor) -> Tensor:
    graph = as_csr(graph)
    return (u.index_select(0, graph.row.long()) * v.index_select(0, graph.col.long())).sum(dim=1)


@instead_under_transforms("gather_rows")
def _gather_rows(tables: Tensor | Sequence[Tensor], index: Tensor, check: bool = True) -> Tensor | tuple[Tensor, ...]:
    several = (F.embedding(index, table) for table in ([tables] if isinstance(tables, Tensor) else tables))
    return next(several) if isinstance(tables, Tensor) else tuple(several)


def _gathered(
    info: Any, in_dims: tuple[Any, ...], tables: list[Tensor], index: Tensor, check: bool = True
) -> tuple[list[Tensor], list[int | None]]:
    """vmap of gather_rows: batches of tables as more columns, batches of indices one after the other."""
    dims, n = list(zip(tables, in_dims[0], strict=True)), info.batch_size
    if in_dims[1] is not None:
        each = [
            _ops.gather_rows(
                [t if dim is None else t.select(dim, i) for t, dim in dims], index.select(in_dims[1], i), check
            )
            for i in range(n)
        ]
        return [torch.stack(parts) for parts in zip(*each, strict=True)], [0] * len(tables)
    wide = _ops.gather_rows([t if dim is None else t.movedim(dim, 1).flatten(1) for t, dim in dims], index, check)
    split = [o if dim is None else o.view(len(o), n, o.shape[1] // n) for o, (_, dim) in zip(wide, dims, strict=True)]
    return split, [None if dim is None else 1 for _, dim in dims]


torch.library.register_vmap("smore_ext::gather_rows", _gathered)


def _batched(name: str, gate: int | None) -> None:
    """vmap of a product over x alone takes all of a batch at once, as more columns.

    Args:
        gate: place of the gate among the op's arguments, if it has one.
    """
    op, x = getattr(_ops, name), 6  # x: its place

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        if any(dim is not None for place, dim in enumerate(in_dims) if place != x):
            each = [
                [a if dim is None else a.select(dim, n) for a, dim in zip(args, in_dims, strict=True)]
                for n in range(info.batch_size)
            ]
            return torch.stack([op(*one) for one in each]), 0
        given = list(args)
        if gate is not None and len(args) > gate and args[gate] is not None:
            given[gate] = args[gate].repeat(1, info.batch_size)

        def product(rows: Tensor) -> Tensor:
            return op(*given[:x], rows, *given[x + 1 :])

        return _by_columns(product, args[x], in_dims[x])

    torch.library.register_vmap(f"smore_ext::{name}", rule)


for _name, _gate in (("spmm", 7), ("propagate", 9), ("poly_filter", None)):
    _batched(_name, _gate)
