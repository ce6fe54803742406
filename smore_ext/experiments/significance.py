"""Is one model better than another, or is it the choice of users? Paired bootstrap, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 1 << 22  # drawn users held at once


class Difference(NamedTuple):
    """Mean difference over users, its 95 % interval, and the two-sided p-value of no difference."""

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(differences: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = 0) -> list[Difference]:
    """The percentile bootstrap (Efron and Tibshirani, 1993, section 13.3) over users, of several models at once.

    Args:
        differences: [V, M], of each user the metric of each of M models less that of the model compared with.
        resamples: how often V users are drawn with replacement; all models see the same draws.
        seed: of the draws.

    Returns:
        M differences. p is twice the smaller share of resampled means on either side of 0, those at 0 on both, and at
        least 2 / (resamples + 1): no more can be said from so many draws.
    """
    n_users, n_models = differences.shape
    if n_users < 1:
        raise ValueError("paired_bootstrap: expected at least one user, got none")
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, n_models))
    step = max(1, _CHUNK // n_users)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = generator.integers(n_users, size=(rows, n_users))
        drawn += n_users * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n_users).reshape(rows, n_users)
        means[first : first + rows] = times @ differences / n_users
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    sides = np.minimum((means <= 0).sum(0), (means >= 0).sum(0))
    p = np.minimum(1.0, 2 * (sides + 1) / (resamples + 1))
    return [Difference(*map(float, row)) for row in zip(differences.mean(0), low, high, p, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979): the i-th smallest of m times m - i + 1, no less than before."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    out, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        out[index] = largest
    return out
