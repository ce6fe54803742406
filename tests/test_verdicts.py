"""Verdicts follow from contrasts: words, and what they say of the paper."""

from __future__ import annotations

import numpy as np
import pytest

from smore_ext.experiments.significance import crossed, over_users_and_seeds
from smore_ext.experiments.study import NOT_SHOWN, Contrast
from smore_ext.experiments.verdicts import PAPER_GAIN, at_most, largest, listed, moved, of_paper, word


def made(mean: float, error: float = 0.001) -> Contrast:
    """A contrast of 400 users with this mean and standard error, of a recall of .4."""
    values = np.random.default_rng(0).normal(size=(1, 400))
    values = (values - values.mean()) / values.std(ddof=1) * error * 20 + mean
    out = Contrast("a against b", 0.4, crossed(values))
    out.effect, out.family = over_users_and_seeds(out.squares).of_family(5), 5
    return out


BETTER, WORSE, NONE, VAGUE = made(0.02), made(-0.02), made(0.0005), made(0.01, 0.02)


@pytest.mark.parametrize(
    ("contrasts", "expected"),
    [
        ([BETTER, NONE], "yes"),
        ([WORSE], "no, the opposite"),
        ([NONE, VAGUE], NOT_SHOWN),
        ([BETTER, WORSE], "mixed"),
    ],
)
def test_words(contrasts: list[Contrast], expected: str) -> None:
    assert word(contrasts) == expected


@pytest.mark.parametrize(
    ("contrasts", "claimed", "expected"),
    [
        ([BETTER], "better", "supports that x"),
        ([BETTER, NONE], "better", "supports in part that x"),
        ([BETTER, WORSE], "better", "supports in part that x"),
        ([WORSE], "better", "contradicts that x"),
        ([WORSE], "worse", "supports that x"),
        ([NONE], "better", "contradicts that x"),
        ([NONE], "worse", "contradicts that x"),
        ([NONE, VAGUE], "better", "says nothing on whether x"),
    ],
)
def test_what_is_said_of_the_paper(contrasts: list[Contrast], claimed: str, expected: str) -> None:
    """No difference contradicts it only where as much as its own gain is ruled out."""
    assert NONE.most < PAPER_GAIN * 0.4 < VAGUE.most
    assert of_paper(contrasts, "x", claimed) == expected


def test_a_negative_says_how_much_is_ruled_out() -> None:
    assert moved(BETTER) == "+5.0%" and moved(VAGUE) == f"not shown, at most {VAGUE.most / 0.4:.1%}"
    assert VAGUE.text.startswith(f"no difference of more than {VAGUE.most:.4f} is shown")
    assert at_most([NONE, VAGUE]) == f"{VAGUE.most / 0.4:.1%}" and largest([NONE, WORSE]) is WORSE
    assert listed(["a", "b", "c"]) == "a, b and c" and listed(["a"]) == "a" and listed([]) == ""


def test_a_detectable_difference_is_shown_four_times_in_five() -> None:
    """By its definition, over samples of a true difference of that size."""
    rng = np.random.default_rng(1)
    size = made(0.0, 0.05).detectable
    shown = 0
    for _ in range(400):
        effect = over_users_and_seeds(crossed(rng.normal(size, 1.0, (1, 400)))).of_family(5)
        shown += effect.p < 0.05
        assert (effect.p < 0.05) == (effect.low > 0 or effect.high < 0)
    assert shown / 400 == pytest.approx(0.8, abs=0.05)
