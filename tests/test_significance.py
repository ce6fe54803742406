"""Paired bootstrap and Holm's correction against what theory and worked examples give."""

from __future__ import annotations

import numpy as np
import pytest

from smore_ext.experiments import significance
from smore_ext.experiments.significance import holm, paired_bootstrap


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
