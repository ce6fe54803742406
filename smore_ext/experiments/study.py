"""An experiment: which cells it needs, and what it makes of their records.

What it concludes is generated: every "better" is a contrast, a paired test over users and seeds, and the p-values of
all contrasts of a report are corrected together (Holm) before a word is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from smore_ext.experiments.cells import Cell, Record
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.significance import LEVEL, Crossed, Effect, crossed, holm, luck, over_users_and_seeds

T = TypeVar("T")


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        name: "full" or "quick".
        seeds: of every cell; users and seeds are what intervals are over.
        synthetic: options of the built-in data set that all experiments share.
        loop: settings of the training loop on it.
        folders: data sets of files that are there, with settings of the loop.
        models: what holds for the models' settings, in words.
    """

    name: str
    seeds: tuple[int, ...]
    synthetic: dict[str, Any]
    loop: dict[str, Any]
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: str = ""

    @property
    def quick(self) -> bool:
        return self.name == "quick"

    def some(self, values: Sequence[T]) -> list[T]:
        """All of a grid, or its ends where it must be quick."""
        return [values[0], values[-1]] if self.quick and len(values) > 2 else list(values)


class Found(Protocol):
    """Records by cell."""

    def __getitem__(self, cell: Cell) -> Record: ...


Cells = Sequence[Cell]  # of one condition, a seed each


@dataclass
class Contrast:
    """One condition against another: recall@20 of the same users and seeds.

    Attributes:
        label: what is compared with what.
        base: mean of the second.
        squares: of the first less the second.
        inference: whether both are of one trained model, asked in two ways; its seeds vary less than those of two.
        effect, p: what it says for other users and seeds, p corrected; None until all contrasts are known.
    """

    label: str
    base: float
    squares: Crossed
    inference: bool = False
    effect: Effect = field(init=False)
    p: float | None = None

    @property
    def verdict(self) -> str:
        if self.p is None:
            raise ValueError(f"{self.label}: p-values are not corrected yet")
        if self.p >= LEVEL:
            return "no difference shown"
        return "better" if self.effect.mean > 0 else "worse"

    @property
    def shown(self) -> bool:
        """Whether there is a difference."""
        return self.better or self.worse

    @property
    def better(self) -> bool:
        return self.verdict == "better"

    @property
    def worse(self) -> bool:
        return self.verdict == "worse"

    @property
    def text(self) -> str:
        """The verdict with its numbers."""
        e, share = self.effect, f", {self.effect.mean / self.base:+.1%}" if self.base else ""
        interval = f"{e.mean:+.4f}, 95 % {e.low:+.4f} to {e.high:+.4f}{share}"
        return f"{self.verdict} ({interval}; p {self.p:.2g}, d {e.size:+.2f})"


class Answer(NamedTuple):
    """One sentence for the overview, a paragraph, and the contrasts to list below it."""

    brief: str
    text: str
    said: list[Contrast]


@dataclass(frozen=True)
class Table:
    title: str
    head: list[str]
    rows: list[list[str]]


@dataclass
class Outcome:
    """What an experiment found.

    Attributes:
        answer: called when p-values are corrected.
        panels: of its plot.
    """

    answer: Callable[[], Answer]
    contrasts: list[Contrast] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """An experiment by name; `cells` and `conclude` see the same scale."""

    name: str
    question: str
    cells: Callable[[Scale], Iterable[Cell]]
    conclude: Callable[[Found, Scale], Outcome]


def contrast(found: Found, label: str, first: Cells, second: Cells) -> Contrast:
    """Compares two conditions, seed by seed and user by user."""
    one, other = (np.stack([found[cell].recall for cell in cells]) for cells in (first, second))
    return Contrast(label, float(other.mean()), crossed(one - other))


def correct(outcomes: Iterable[Outcome]) -> None:
    """Tests all contrasts, those of one kind with the luck that they share, and corrects for their number."""
    every = [each for outcome in outcomes for each in outcome.contrasts]
    kinds: dict[Hashable, list[Contrast]] = {}  # of the same numbers of seeds and users, trained apart or not
    for each in every:
        kinds.setdefault((each.squares[:2], each.inference), []).append(each)
    for kind in kinds.values():
        shared = luck([each.squares for each in kind])
        for each in kind:
            each.effect = over_users_and_seeds(each.squares, shared)
    for each, p in zip(every, holm([each.effect.p for each in every]), strict=True):
        each.p = p


def mean_of(found: Found, cells: Cells) -> tuple[float, float, float]:
    """Mean recall@20 of a condition with its 95 % interval over users and seeds."""
    return interval(np.stack([found[cell].recall for cell in cells]))


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of values [S, V] with its 95 % interval over users and seeds."""
    return over_users_and_seeds(crossed(values))[:3]


def figure_of(found: Found, cells: Cells, name: str) -> tuple[float, float, float]:
    """Mean of a figure over seeds, with the smallest and largest."""
    values = [found[cell].figures[name] for cell in cells]
    return float(np.mean(values)), min(values), max(values)


def recall_text(found: Found, cells: Cells) -> str:
    mean, low, high = mean_of(found, cells)
    return f"{mean:.4f} ({low:.4f} to {high:.4f})"
