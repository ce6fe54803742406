"""Paired bootstrap and Holm's correction against what theory and worked examples give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from smore_ext.experiments import significance
from smore_ext.experiments.significance import (
    Crossed,
    Luck,
    crossed,
    holm,
    luck,
    over_users_and_seeds,
    paired_bootstrap,
)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(0.3, 2.0, size=(4000, 1))
    found = paired_bootstrap(values)[0]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


@pytest.mark.parametrize(("mean", "expected"), [(0.0, 1.0), (0.02, 0.3173), (0.04, 0.0455)])
def test_the_p_value_is_that_of_the_normal_distribution(mean: float, expected: float) -> None:
    """Differences of exactly this mean and standard error 0.02: 0, 1 and 2 of them away from 0."""
    values = np.random.default_rng(2).normal(size=2500)
    values = (values - values.mean()) / values.std() + mean
    assert paired_bootstrap(values[:, None])[0].p == pytest.approx(expected, abs=0.02)


def test_no_difference_is_none_and_a_plain_one_has_the_least_p() -> None:
    same, better, worse = paired_bootstrap(np.array([[0.0, 0.1, -0.2]] * 50), resamples=999)
    assert same == (0.0, 0.0, 0.0, 1.0)
    assert better.p == worse.p == 2 / 1000
    assert better.low == pytest.approx(0.1) and worse.high == pytest.approx(-0.2)


def test_models_see_the_same_draws_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(70, 2))
    whole = paired_bootstrap(values, 500)
    assert whole == paired_bootstrap(values, 500) and whole != paired_bootstrap(values, 500, seed=1)
    np.testing.assert_allclose(paired_bootstrap(values[:, 1:], 500)[0], whole[1])
    monkeypatch.setattr(significance, "_CHUNK", 70 * 3)
    np.testing.assert_allclose(paired_bootstrap(values, 500), whole)


def test_no_users_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one user, got none"):
        paired_bootstrap(np.zeros((0, 1)))


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def draw(rng: np.random.Generator, effect: float, of_seeds: float, of_users: float = 0.1) -> Crossed:
    """3 seeds and 500 users: an effect, that of the seed, that of the user, and the rest."""
    seeds, users = rng.normal(0, of_seeds, (3, 1)), rng.normal(0, of_users, (1, 500))
    return crossed(effect + seeds + users + rng.normal(0, 0.2, (3, 500)))


@pytest.mark.parametrize("of_users", [0.0, 0.1])
@pytest.mark.parametrize("of_seeds", [0.0, 0.005, 0.02])
def test_a_null_of_users_and_seeds_is_rejected_as_often_as_it_says(of_seeds: float, of_users: float) -> None:
    """In the tail, too, where a correction for many contrasts looks."""
    rng = np.random.default_rng(5)
    contrasts = [draw(rng, 0.0, of_seeds, of_users) for _ in range(2000)]
    shared = luck(contrasts)
    p = np.array([over_users_and_seeds(c, shared).p for c in contrasts])
    assert 0.03 < np.mean(p < 0.05) < 0.07
    assert np.mean(p < 0.001) < 0.003


@pytest.mark.parametrize("of_seeds", [0.0, 0.005, 0.05])
def test_intervals_of_one_contrast_alone_cover(of_seeds: float) -> None:
    rng = np.random.default_rng(5)
    found = [over_users_and_seeds(draw(rng, 0.3, of_seeds)) for _ in range(500)]
    assert np.mean([effect.low <= 0.3 <= effect.high for effect in found]) > 0.92


def test_an_effect_over_users_and_seeds_is_found() -> None:
    rng = np.random.default_rng(6)
    contrasts = [draw(rng, 0.04, 0.003) for _ in range(200)]
    shared = luck(contrasts)
    found = [over_users_and_seeds(c, shared) for c in contrasts]
    assert np.mean([effect.p < 1e-4 for effect in found]) > 0.9
    assert np.mean([effect.mean for effect in found]) == pytest.approx(0.04, abs=0.002)
    assert np.mean([effect.size for effect in found]) == pytest.approx(0.04 / np.hypot(0.1, 0.2 / 3**0.5), rel=0.1)


@pytest.mark.parametrize("spread", ["two kinds", "log-normal"])
def test_unequal_luck_is_seen_and_costs_no_more_errors_than_holm_allows(spread: str) -> None:
    """Seeds of some contrasts vary more than those of others: families of 60, one error in twenty of them."""
    rng = np.random.default_rng(9)
    wrong, freedoms = 0, []
    for _ in range(120):
        scale = rng.choice([0.25, 1.75], 60) if spread == "two kinds" else rng.lognormal(-0.5, 1.0, 60)
        family = [draw(rng, 0.0, 0.02 * float(s) ** 0.5) for s in scale]
        shared = luck(family)
        freedoms.append(shared.freedom)
        wrong += min(holm([over_users_and_seeds(c, shared).p for c in family])) < 0.05
    assert np.median(freedoms) < 60 and wrong / 120 <= 0.11


def test_equal_luck_is_worth_many_degrees_of_freedom() -> None:
    rng = np.random.default_rng(10)
    assert np.median([luck([draw(rng, 0.0, 0.02) for _ in range(100)]).freedom for _ in range(20)]) > 15


def test_a_contrast_of_other_luck_than_its_kind() -> None:
    """One seed of three failed: that is no proof of a difference where others' luck is known to be unequal."""
    rng = np.random.default_rng(8)
    values = rng.normal(0, 0.2, (3, 500)) - np.array([[0.3], [0.0], [0.0]])
    assert over_users_and_seeds(crossed(values), Luck(1e-5, 2.0)).p > 0.05


def test_one_seed_is_a_paired_t_test() -> None:
    values = np.random.default_rng(7).normal(0.1, 1.0, size=(1, 80))
    expected = stats.ttest_1samp(values[0], 0.0)
    interval = expected.confidence_interval()
    for shared in (None, Luck(0.0, math.inf)):
        found = over_users_and_seeds(crossed(values), shared)
        assert found[:4] == pytest.approx((values.mean(), interval.low, interval.high, expected.pvalue))


def test_nothing_differs_or_all_by_the_same() -> None:
    for shared in (None, Luck(0.0, math.inf)):
        assert over_users_and_seeds(crossed(np.zeros((3, 10))), shared)[:5] == (0.0, 0.0, 0.0, 1.0, 0.0)
        assert over_users_and_seeds(crossed(np.full((2, 10), 0.5)), shared).p == 0.0
    with pytest.raises(ValueError, match="at least one seed and two users, got 3 and 1"):
        crossed(np.zeros((3, 1)))
