"""Item graphs from similarities: the Gram matrix and dense neighbour matrices stay unformed, loops become tensors."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor

from smore_ext.compat.mmrec.lazy_gram import LazyGram
from smore_ext.compat.mmrec.lazy_sparse import LazySparse
from smore_ext.compat.mmrec.matmul import Product, is_matrix
from smore_ext.compat.mmrec.proof import differs, proved
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps

_SHARE = 0.05  # of entries: a square matrix from a file with fewer is kept as its edges
_LEAST = 256  # rows of such a matrix

Builder = Callable[..., Any]


class Neighbours:
    piece = "knn"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps

    def take(self, original: Product, left: Any, right: Any) -> Any:
        """x @ x.T of more rows than columns, as a lazy matrix."""
        if not is_matrix(left) or not is_matrix(right) or left.shape != right.shape[::-1]:
            return NotImplemented
        if torch.is_autocast_enabled(left.device.type):
            return NotImplemented  # it would be of another type
        same = left.data_ptr() == right.data_ptr() and left.stride() == right.stride()[::-1]
        if not same or left.shape[0] <= left.shape[1]:
            return NotImplemented
        if right.requires_grad != left.requires_grad or not torch.is_grad_enabled():
            return LazyGram.of(left.detach(), self.report)
        return LazyGram.of(left, self.report)

    def install(self) -> None:
        """Matrices that a tree's code reads from its cache files."""
        original, tree = torch.load, self.swaps.tree

        @functools.wraps(original)
        def load(*args: Any, **kwargs: Any) -> Any:
            value = original(*args, **kwargs)
            if not tree.has_file(sys._getframe(1).f_code.co_filename) or not is_matrix(value):
                return value
            n = value.shape[0]
            few = value.shape[1] == n >= _LEAST and int(value.count_nonzero()) <= _SHARE * n * n
            return LazySparse.from_dense(value) if few and not value.requires_grad else value

        self.swaps.replace(torch, "load", load)

    def visit(self, module: ModuleType) -> None:
        for name, make, doubt in (
            ("build_knn_normalized_graph", _knn_normalized_graph, _doubt_graph),
            ("compute_normalized_laplacian", _laplacian, functools.partial(_doubt_laplacian, more=[()])),
            ("get_dense_laplacian", _dense_laplacian, functools.partial(_doubt_laplacian, more=[(n,) for n in _NORMS])),
        ):
            original = vars(module).get(name)
            if type(original) is not FunctionType or original.__module__ != module.__name__:
                continue
            ours, where = make(original), f"{module.__name__}.{name}"

            def tell(why: str | None, where: str = where) -> None:
                self.report.add(self.piece, where, why is None, why or "")

            asked = functools.partial(doubt, original, ours)
            self.swaps.replace(module, name, proved(original, ours, asked, tell))


_NORMS = ("sym", "rw", "none")


def _doubt_laplacian(original: Builder, ours: Builder, more: list[tuple[str, ...]]) -> str | None:
    """A dense matrix and the same as edges: values and gradients; values alone where a row has none, as torch's
    derivative is not finite there."""
    index = (torch.arange(12)[:, None] + torch.tensor([0, 2, 5])) % 12
    value = 0.2 + (torch.arange(36).view(12, 3) * 1.3).sin().abs()
    empty = value.clone()
    empty[4] = 0

    for arguments in more:

        def theirs(value: Tensor, arguments: tuple[str, ...] = arguments) -> Any:
            return original(LazySparse.from_neighbours(index, value, (12, 12)).dense(), *arguments)

        def own(value: Tensor, arguments: tuple[str, ...] = arguments) -> Any:
            matrix = ours(LazySparse.from_neighbours(index, value, (12, 12)), *arguments)
            return matrix.dense()

        why = differs(theirs, own, [value]) or differs(theirs, own, [empty], gradients=False)
        if why is not None:
            return why
    return None


def _doubt_graph(original: Builder, ours: Builder) -> str | None:
    return next((why for sample in _graph_samples() if (why := differs(original, ours, sample))), None)


def _graph_samples() -> list[tuple[Any, ...]]:
    x = torch.arange(24 * 4).view(24, 4).float().mul(0.7).sin()
    x = x / x.norm(dim=1, keepdim=True)
    gram = torch.einsum("nd,md->nm", x, x)
    return [(gram, 3, True, norm) for norm in ("sym", "rw", "none")] + [(gram, 3, False, "sym")]


def _inverse(degree: Tensor, power: float) -> Tensor:
    """degree^power, 0 where the degree is 0."""
    factor = degree.pow(power)
    return factor.masked_fill(torch.isinf(factor), 0.0)


def _normalised(matrix: LazySparse, norm: str) -> LazySparse | None:
    if norm == "none":
        return matrix
    if norm not in ("sym", "rw"):
        return None
    factor = _inverse(matrix.row_sums(), -0.5 if norm == "sym" else -1.0)
    return matrix.scaled(factor, factor if norm == "sym" else None)


def _laplacian(original: Builder) -> Builder:
    """D^-1/2 A D^-1/2 of a lazy matrix on its edges; of any other as before."""

    @functools.wraps(original)
    def compute_normalized_laplacian(adj: Any, *args: Any, **kwargs: Any) -> Any:
        if type(adj) is LazySparse and not adj._written and not args and not kwargs:
            return _normalised(adj, "sym")
        return original(adj, *args, **kwargs)

    return compute_normalized_laplacian


def _dense_laplacian(original: Builder) -> Builder:
    @functools.wraps(original)
    def get_dense_laplacian(adj: Any, normalization: str = "none", *args: Any, **kwargs: Any) -> Any:
        if type(adj) is LazySparse and not adj._written and not args and not kwargs:
            normalised = _normalised(adj, normalization)
            if normalised is not None:
                return normalised
        return original(adj, normalization, *args, **kwargs)

    return get_dense_laplacian


def _knn_normalized_graph(original: Builder) -> Builder:
    """The k nearest of each row as a normalised COO tensor, without its loop over all edges."""
    names = list(inspect.signature(original).parameters)

    @functools.wraps(original)
    def build_knn_normalized_graph(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        known = given.keys() == {"adj", "topk", "is_sparse", "norm_type"}
        if not known or not given["is_sparse"] or given["norm_type"] not in ("sym", "rw", "none"):
            return original(*args, **kwargs)
        adj, norm = given["adj"], given["norm_type"]
        value, index = torch.topk(adj, given["topk"], dim=-1)
        row = torch.arange(index.shape[0], device=index.device).repeat_interleave(index.shape[1])
        edges = torch.stack([row, index.flatten()])
        weight = value
        if norm != "none":
            factor = _inverse(value.sum(dim=1), -0.5 if norm == "sym" else -1.0)
            weight = weight * factor[:, None]
            weight = weight * factor[index] if norm == "sym" else weight
        return torch.sparse_coo_tensor(edges, weight.flatten(), adj.shape, check_invariants=False)

    return build_knn_normalized_graph
