"""Is one model better than another, or is it the choice of users and seeds? Paired tests, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import polygamma, stdtr, stdtrit

LEVEL = 0.05  # of significance, after correction for the number of comparisons
POWER = 0.8  # with which a detectable difference would have been shown
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


class Effect(NamedTuple):
    """A mean difference, its 95 % interval, the two-sided p-value of no difference, the mean over the standard
    deviation of users (Cohen's d of paired values, each user's mean over seeds), and the standard error with its
    degrees of freedom."""

    mean: float
    low: float
    high: float
    p: float
    size: float
    error: float = 0.0
    freedom: float = math.inf

    def of_family(self, number: int) -> Effect:
        """The same as one of `number` comparisons (Bonferroni): all of their intervals hold at once with probability
        .95, and p is below .05 exactly where the interval leaves 0 out."""
        reach = _quantile(self.freedom, 1 - LEVEL / (2 * number)) * self.error
        return self._replace(low=self.mean - reach, high=self.mean + reach, p=min(1.0, number * self.p))

    def detectable(self, number: int = 1) -> float:
        """The smallest true difference that would have been shown, as one of `number`, with probability POWER."""
        return (_quantile(self.freedom, 1 - LEVEL / (2 * number)) + _quantile(self.freedom, POWER)) * self.error


def _quantile(freedom: float, share: float) -> float:
    """Of Student's t."""
    return float(stdtrit(min(freedom, 1e9), share))


class Crossed(NamedTuple):
    """Differences of S seeds and the same V users, as an analysis of variance sees them: means over users, over
    seeds, and what is left are squared and scaled so that each is the residual's variance where nothing else varies."""

    seeds: int
    users: int
    mean: float
    size: float
    of_seeds: float
    of_users: float
    rest: float


def crossed(differences: NDArray[np.float64]) -> Crossed:
    """Mean squares of differences [S, V] by seed and user."""
    seeds, users = differences.shape
    if seeds < 1 or users < 2:
        raise ValueError(f"crossed: expected at least one seed and two users, got {seeds} and {users}")
    by_user, by_seed, mean = differences.mean(axis=0), differences.mean(axis=1), float(differences.mean())
    spread = float(by_user.std(ddof=1))
    of_users, size = seeds * spread**2, mean / spread if spread else 0.0
    if seeds == 1:
        return Crossed(seeds, users, mean, size, 0.0, of_users, 0.0)
    left = differences - by_user - by_seed[:, None] + mean
    rest = float((left**2).sum() / ((seeds - 1) * (users - 1)))
    return Crossed(seeds, users, mean, size, float(users * by_seed.var(ddof=1)), of_users, rest)


class Luck(NamedTuple):
    """How much a difference varies from seed to seed beyond what users explain: a variance, and how many degrees of
    freedom it is worth as a prior (infinite where contrasts do not differ in it)."""

    variance: float
    freedom: float


def luck(contrasts: Sequence[Crossed]) -> Luck:
    """The luck of seeds, from many contrasts of one kind: three seeds say next to nothing of it, a hundred contrasts of
    three do. As variances of genes are shared in Smyth's moderated t (2004): the prior's degrees of freedom are those
    with which the logarithms of the ratios to what is expected vary as they do.
    """
    several = [c for c in contrasts if c.seeds > 1]
    if not several:
        return Luck(0.0, math.inf)
    variance = max(0.0, float(np.mean([(c.of_seeds - c.rest) / c.users for c in several])))
    ratios = [c.of_seeds / (c.users * variance + c.rest) for c in several if c.of_seeds > 0 and c.rest > 0]
    if len(ratios) < 3:
        return Luck(variance, math.inf)
    own = float(np.mean([polygamma(1, (c.seeds - 1) / 2) for c in several]))
    extra = float(np.var(np.log(ratios), ddof=1)) - own
    if extra <= 0:
        return Luck(variance, math.inf)
    freedom = 2 * brentq(lambda half: float(polygamma(1, half)) - extra, 1e-3, 1e6) if extra > 1e-6 else math.inf
    return Luck(variance, freedom)


def over_users_and_seeds(c: Crossed, shared: Luck | None = None) -> Effect:
    """What holds for other users and other seeds, both random and crossed, as cases and readers are in the analysis of
    Dorfman, Berbaum and Metz (1992).

    Args:
        c: a contrast.
        shared: `luck` of contrasts of its kind, a prior with which its own seeds are averaged by degrees of freedom.
            None: its own seeds alone, with Hillis's degrees of freedom (2007), which is for intervals of means: in the
            tails of a test, three seeds are too few for it.
    """
    of_users, freedom = max(c.of_users - c.rest, 0.0), float(c.users - 1)
    if c.seeds == 1:
        square = c.of_users
    else:
        of_seeds, own = max(c.of_seeds, c.rest), float(c.seeds - 1)
        if shared is not None:
            expected = c.users * shared.variance + c.rest
            weight = 1.0 if math.isinf(shared.freedom) else shared.freedom / (shared.freedom + own)
            of_seeds, own = weight * expected + (1 - weight) * c.of_seeds, own + shared.freedom
        square = of_seeds + of_users
        if of_seeds > c.rest or shared is not None:
            freedom = min(freedom, square**2 * own / of_seeds**2 if of_seeds else freedom)
    error = math.sqrt(square / (c.seeds * c.users))
    if error <= 1e-12 * abs(c.mean) or not error:
        return Effect(c.mean, c.mean, c.mean, 1.0 if c.mean == 0 else 0.0, c.size)
    reach, p = _quantile(freedom, 1 - LEVEL / 2) * error, float(2 * stdtr(freedom, -abs(c.mean) / error))
    return Effect(c.mean, c.mean - reach, c.mean + reach, p, c.size, error, freedom)
