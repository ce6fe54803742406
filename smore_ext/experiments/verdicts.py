"""What contrasts say in words: of a question, and of what the paper claims. No verdict is written by hand."""

from __future__ import annotations

from collections.abc import Sequence

from smore_ext.experiments.study import NOT_SHOWN, Contrast

SUPPORTS, CONTRADICTS, SILENT = "supports", "contradicts", "says nothing"
NO_CLAIM = f"{SILENT} (no claim)"
# The paper's gain over the next best model, Recall@20 on Baby: a part that it names as the reason should do as much.
PAPER_GAIN = 0.1035 / 0.0986 - 1


def word(contrasts: Sequence[Contrast], yes: str = "better") -> str:
    """ "yes" where one of them is shown that way and none the other, and so on."""
    verdicts = {c.verdict for c in contrasts if c.shown}
    if len(verdicts) > 1:
        return "mixed"
    return NOT_SHOWN if not verdicts else "yes" if verdicts == {yes} else "no, the opposite"


def of_paper(contrasts: Sequence[Contrast], claim: str, claimed: str = "better") -> str:
    """supports: what it claims is shown, in part if in some of the contrasts. contradicts: the opposite is shown, or a
    difference as large as its gain over the next best model is ruled out in all of them."""
    shown = [c.verdict for c in contrasts if c.shown]
    if shown:
        if claimed in shown:
            whole = len(shown) == len(contrasts) and len(set(shown)) == 1
            return f"{SUPPORTS} that {claim}" if whole else f"{SUPPORTS} in part that {claim}"
        return f"{CONTRADICTS} that {claim}"
    sign = 1 if claimed == "better" else -1
    ruled_out = all(max(sign * c.effect.low, sign * c.effect.high) < PAPER_GAIN * c.base for c in contrasts)
    return f"{CONTRADICTS} that {claim}" if contrasts and ruled_out else f"{SILENT} on whether {claim}"


def at_most(contrasts: Sequence[Contrast]) -> str:
    """The largest share of recall that is possible in any of them."""
    return f"{max(c.most / c.base for c in contrasts):.1%}"


def largest(contrasts: Sequence[Contrast]) -> Contrast:
    """The one that is furthest from none."""
    return max(contrasts, key=lambda c: abs(c.effect.mean))


def moved(c: Contrast) -> str:
    """What it says, short enough for a sentence."""
    if c.shown:
        return f"{c.effect.mean / c.base:+.1%}"
    return f"not shown, at most {c.most / c.base:.1%}"


def listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
