"""What a model is told while it trains, so that it can tell the reader of the results what it makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from smore_ext.data import Dataset

# The ranking loss of random scores is ln 2. A run whose BPR term has not fallen at least 1 % below that early on is
# not learning to rank.
PINNED_BELOW = 0.99 * math.log(2)


@dataclass(frozen=True)
class RunBegins:
    """The first epoch of a run, or of its rest, is about to begin."""

    dataset: Dataset


@dataclass(frozen=True)
class EarlyLosses:
    """Means of the loss and its parts over the early steps `first` to `last` of a run, counted from 1."""

    first: int
    last: int
    means: dict[str, float]


Occasion: TypeAlias = RunBegins | EarlyLosses


def ranking_notices(occasion: Occasion, cause: str = "the learning rate may be too low") -> list[str]:
    """That the BPR term is still that of random scores, and why that may be; nothing otherwise."""
    if not isinstance(occasion, EarlyLosses) or not occasion.means.get("bpr", 0.0) > PINNED_BELOW:
        return []
    return [
        f"the BPR term is {occasion.means['bpr']:.4f} over steps {occasion.first}-{occasion.last}, "
        f"random scores give ln 2 = {math.log(2):.4f}: the model has not begun to rank; {cause}"
    ]
