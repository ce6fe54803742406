"""What rows of features have in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 4096  # rows in float64 at once


def groups(rows: Tensor) -> Tensor:
    """How many rows are equal to each other, of each different one, [n] int64: by products with one random vector,
    which equal rows have alike."""
    vector = torch.randn(rows.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys = torch.cat([(block.double() * vector).sum(dim=1) for block in rows.split(_BLOCK)])
    return keys.unique(return_counts=True)[1]


def mean_cosine(rows: Tensor) -> float:
    """Mean cosine of all pairs of different rows [N, D], N >= 2: from the square of the sum of unit rows."""
    unit = F.normalize(rows.double(), dim=1)
    n = len(unit)
    return float((unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1)))
