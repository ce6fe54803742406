"""row_logsumexp where scores leave the range of their type: infinite as torch's are, NaN only where they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smore_ext import ops, reference


def rows(scores: list[float], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """a [1, 2] and b [M, 2] whose products are these; what is beyond the dtype of finite factors."""
    large = 1e30 if dtype == torch.float32 else 1e200
    a = torch.tensor([[1.0, large]], dtype=dtype)
    b = [[0.0, large] if s == float("inf") else [0.0, -large] if s == -float("inf") else [s, 0.0] for s in scores]
    return a, torch.tensor(b, dtype=dtype)


INF = float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("scores", [[INF], [-INF], [INF, -INF], [INF, 1.0], [-INF, 1.0], [INF, INF, -3.0]], ids=str)
def test_scores_beyond_the_type(scores: list[float], count: int, dtype: torch.dtype, device: torch.device) -> None:
    a, b = (part.to(device) for part in rows(scores * count, dtype))
    a = torch.cat([a, torch.zeros_like(a)])  # a row beside it stays as it is
    expected = torch.logsumexp(a @ b.T, dim=1)
    torch.testing.assert_close(ops.row_logsumexp(a, b), expected)
    torch.testing.assert_close(reference.row_logsumexp(a, b), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_that_is_no_number(dtype: torch.dtype) -> None:
    a, b = rows([INF, 1.0, 2.0], dtype)
    b[1, 0] = torch.nan
    assert bool(ops.row_logsumexp(a, b).isnan().all())
