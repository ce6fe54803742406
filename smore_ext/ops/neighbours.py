"""Exact cosine nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.ops._register import autocast_float32, fake

__all__ = ["knn"]

_ops = torch.ops.smore_ext


def knn(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows nearest to each row by cosine similarity, the row itself included.

    Args:
        features: [N, D], float32 or float64, finite.
        k: 1 <= k <= N.

    Returns:
        (similarity [N, k] in the dtype of `features`, index [N, k] int64). The similarity is the cosine computed in
        float64 and rounded; order: similarity descending, then index ascending. Zero rows have similarity 0 with every
        row. Exact, and the same for any number of threads. No N x N matrix is formed: scratch stays below 64 MB at
        N = 63,001 and k = 40. Not differentiable.

    Raises:
        TypeError, ValueError: wrong dtype or shape, k out of range, NaN or infinity (the message names the row).
    """
    return _ops.knn(features, k)


@fake("knn")
def _(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    n = features.shape[0]
    return features.new_empty(n, k), features.new_empty(n, k, dtype=torch.int64)


autocast_float32("knn")
