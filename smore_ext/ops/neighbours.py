"""Exact cosine nearest neighbours, and cosine similarities of named pairs of rows."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake
from smore_ext.ops._types import takes_tensors

__all__ = ["cosine_at", "knn"]

_ops = torch.ops.smore_ext


@overload
def knn(features: Tensor, k: int, base: Tensor | None = None, exclude_self: bool = False) -> tuple[Tensor, Tensor]: ...


@overload
def knn(queries: Tensor, base: Tensor, k: int, /) -> tuple[Tensor, Tensor]: ...


@takes_tensors
def knn(
    features: Tensor, k: int | Tensor, base: Tensor | int | None = None, exclude_self: bool = False
) -> tuple[Tensor, Tensor]:
    """The k nearest rows by cosine similarity: `knn(features, k)` among the rows themselves, `knn(queries, base, k)`
    in another table.

    Args:
        features: [N, D], float32 or float64, finite: whose neighbours are sought.
        k: 1 <= k <= N, or N - 1 with `exclude_self`; with a base, 1 <= k <= M.
        base: [M, D], same dtype: the rows to choose from. None: the rows of `features`.
        exclude_self: a row is not among its own neighbours. Not with a base.

    Returns:
        (similarity [N, k] in the dtype of `features`, index [N, k] int64). The similarity is the cosine computed in
        float64 and rounded; order: similarity descending; a row itself first among its equals; then index ascending.
        So without a base a row is its own first neighbour, whatever its duplicates. (The published code takes the
        `torch.topk` of float32 products, which leaves open what becomes of equal rows: one that has k duplicates may
        lose itself.) With a base no row is special, also where the base is `features`. Zero rows have similarity 0 with
        every row.

        Exact, and the same for any number of threads. No N x M matrix is formed: scratch stays below 64 MB at 63,001
        rows to choose from and k = 40, with a base for any number of queries up to a million. Not differentiable,
        backward raises: `cosine_at(features, index)` gives the same similarities with gradients.

    Raises:
        TypeError, ValueError: wrong dtype, shape or device, k out of range, NaN or infinity (with the row's number).
    """
    number, table = (base, k) if isinstance(k, Tensor) else (k, base)
    if number is None or isinstance(number, Tensor):
        raise TypeError(f"smore_ext::knn: k must be a whole number, got {number!r}")
    return _ops.knn(features, number, table, exclude_self)


@takes_tensors
def cosine_at(features: Tensor, index: Tensor, base: Tensor | None = None) -> Tensor:
    """Cosine similarity of row i with each of the rows index[i]: weights of a graph's edges, with gradients.

    Args:
        features: [N, D], float32 or float64.
        index: [N, k] int64, row numbers of `base`.
        base: [M, D], same dtype. None: the rows of `features`.

    Returns:
        [N, k] in the dtype of `features`, computed in float64 and rounded: for the index of `knn` the very bits of its
        similarity. A zero row has similarity 0, and no gradient comes from there; nor does one from a row's similarity
        with itself, which is 1. Differentiable once, in `features` and `base`; gradients add up in float64 in a fixed
        order: the same bits for any number of threads. No [N, k, D] is formed in either direction.

    Raises:
        TypeError, ValueError, IndexError: wrong dtype, shape or device; an index out of range (with its position).
    """
    return _ops.cosine_at(features, index, base)


@fake("knn")
def _(features: Tensor, k: int, base: Tensor | None = None, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    n = features.shape[0]
    return features.new_empty(n, k), features.new_empty(n, k, dtype=torch.int64)


@fake("cosine_at")
def _(features: Tensor, index: Tensor, base: Tensor | None = None) -> Tensor:
    return features.new_empty(index.shape)


@fake("cosine_at_backward")
def _(
    grad: Tensor,
    features: Tensor,
    index: Tensor,
    base: Tensor | None,
    similarity: Tensor,
    of_features: bool = True,
    of_base: bool = True,
) -> tuple[Tensor, Tensor]:
    n, m = (features.shape[0] if of_features else 0), (base.shape[0] if of_base and base is not None else 0)
    return features.new_empty(n, features.shape[1]), features.new_empty(m, features.shape[1])


autocast_float32("knn", "cosine_at")
