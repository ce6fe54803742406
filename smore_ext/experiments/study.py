"""An experiment: which cells it needs, and what it makes of their records.

What it concludes is generated: every "better" is a contrast, a paired test over users and seeds, and the contrasts of
an experiment, which asks one question, are corrected for their number (Bonferroni) before a word is written.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from smore_ext.experiments.cells import Cell, Record
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.significance import LEVEL, Crossed, Effect, crossed, luck, over_users_and_seeds

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


Pairs = Sequence[tuple[Cells, Cells]]  # of conditions to compare, each first with second
NOT_SHOWN = "not shown"


@dataclass(eq=False)
class Contrast:
    """One condition against another: recall@20 of the same users and seeds.

    Attributes:
        label: what is compared with what.
        base: mean of the second.
        squares: of the first less the second.
        inference: whether both are of one trained model, asked in two ways; its seeds vary less than those of two.
        runs: the runs that it is made of: two of the same runs are one comparison.
        pooled: whether it is made of several, whose seeds say nothing of the luck of one.
        lucks: how many comparisons' luck of seeds it may have; that of a mean is at most that of one.
        sample: what the interval is over, where it is not seeds and users.
        family: how many comparisons it is corrected for; None until all are known.
        alone, in_all: p as the only comparison, and as one of all of a report.
        effect, p: what it says for other users and seeds, interval and p corrected for the family.
    """

    label: str
    base: float
    squares: Crossed
    inference: bool = False
    runs: Hashable = None
    pooled: bool = False
    lucks: int = 1
    sample: str = ""
    family: int | None = None
    alone: float = 1.0
    in_all: float = 1.0
    effect: Effect = field(init=False)

    @property
    def identity(self) -> Hashable:
        return self.runs or self.label

    @property
    def p(self) -> float:
        if self.family is None:
            raise ValueError(f"{self.label}: intervals and p-values are not corrected yet")
        return self.effect.p

    @property
    def verdict(self) -> str:
        if self.p >= LEVEL:
            return NOT_SHOWN
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
    def most(self) -> float:
        """The largest difference, either way, that the interval leaves possible."""
        return max(abs(self.effect.low), abs(self.effect.high))

    @property
    def detectable(self) -> float:
        return self.effect.detectable(self.family or 1)

    @property
    def over(self) -> str:
        """What the interval is over: seeds and users."""
        return self.sample or f"{self.squares.seeds} x {self.squares.users:,}"

    @property
    def interval(self) -> str:
        """The difference, its interval and its share of the second's recall."""
        e, share = self.effect, f", {self.effect.mean / self.base:+.1%}" if self.base else ""
        return f"{e.mean:+.4f} ({e.low:+.4f} to {e.high:+.4f}{share})"

    @property
    def text(self) -> str:
        """The verdict with its numbers."""
        if self.shown:
            return f"{self.verdict}: {self.interval}"
        return f"no difference of more than {self.most:.4f} is shown: {self.interval}"


@dataclass(frozen=True)
class Table:
    title: str
    head: list[str]
    rows: list[list[str]]


class Answer(NamedTuple):
    """What an experiment says.

    Attributes:
        verdict: yes, no or not shown, in a few words.
        brief: what it rests on, for the overview.
        paper: what that says of the paper's claim (`smore_ext.experiments.verdicts`).
        head: the contrasts to give in full in the overview.
        text: a paragraph.
        said: further contrasts to list below it.
        table: of what depends on verdicts.
    """

    verdict: str
    brief: str
    paper: str
    head: list[Contrast]
    text: str
    said: list[Contrast]
    table: Table | None = None


@dataclass
class Outcome:
    """What an experiment found.

    Attributes:
        answer: called when p-values are corrected.
        head: the contrasts that the verdict is of, whatever they say, and
        contrasts: the others; the two are corrected apart.
        panels: of its plot.
    """

    answer: Callable[[], Answer]
    head: list[Contrast] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    @property
    def every(self) -> list[Contrast]:
        return [*self.head, *self.contrasts]


@dataclass(frozen=True)
class Study:
    """An experiment by name; `cells` and `conclude` see the same scale."""

    name: str
    question: str
    cells: Callable[[Scale], Iterable[Cell]]
    conclude: Callable[[Found, Scale], Outcome]


def contrast(found: Found, label: str, first: Cells, second: Cells) -> Contrast:
    """Compares two conditions, seed by seed and user by user."""
    return pooled(found, label, [(first, second)])


def pooled(found: Found, label: str, pairs: Pairs, less: Pairs = ()) -> Contrast:
    """The mean of several comparisons of the same users; with `less`, how much greater it is than the mean of those."""

    def recalls(cells: Cells) -> NDArray[np.float64]:
        return np.stack([found[cell].recall for cell in cells])

    def mean(of: Pairs) -> NDArray[np.float64]:
        return np.mean([recalls(one) - recalls(other) for one, other in of], axis=0)

    differences = mean(pairs) - mean(less) if less else mean(pairs)
    base = float(np.mean([recalls(other).mean() for _, other in pairs]))
    runs = tuple(frozenset(frozenset(map(_runs, pair)) for pair in of) for of in (pairs, less))
    of_several = len(pairs) + len(less) > 1
    return Contrast(label, base, crossed(differences), runs=runs, pooled=of_several, lucks=2 if less else 1)


def over_draws(label: str, contrasts: Sequence[Contrast]) -> Contrast:
    """The mean of the same comparison on several draws of the data, over draws: a paired t-test of their means."""
    means = np.array([[each.squares.mean for each in contrasts]])
    base = float(np.mean([each.base for each in contrasts]))
    return Contrast(label, base, crossed(means), pooled=True, sample=f"{len(contrasts)} draws")


def _runs(cells: Cells) -> frozenset[str]:
    """What was trained, whatever was measured of it."""
    return frozenset(replace(cell, probes=()).key for cell in cells)


def correct(outcomes: Iterable[Outcome]) -> None:
    """Tests all contrasts, those of one kind with the luck that they share, and corrects each for the number of
    comparisons of its family: those that a verdict is of, or the others of an experiment. Those of the same runs count
    as one."""
    outcomes = list(outcomes)
    kinds: dict[Hashable, list[Contrast]] = {}  # of the same numbers of seeds and users, trained apart or not
    for each in (each for outcome in outcomes for each in outcome.every):
        kinds.setdefault((each.squares[:2], each.inference), []).append(each)
    for kind in kinds.values():
        single = {each.identity: each for each in kind if not each.pooled} or {each.identity: each for each in kind}
        shared = luck([each.squares for each in single.values()])
        for each in kind:
            own = shared._replace(variance=each.lucks * shared.variance)
            each.effect = over_users_and_seeds(each.squares, own)
            each.alone = each.effect.p
    total = len({each.identity for outcome in outcomes for each in outcome.every})
    for each in (each for outcome in outcomes for each in outcome.every):
        each.in_all = min(1.0, total * each.alone)
    for family in (family for outcome in outcomes for family in (outcome.head, outcome.contrasts)):
        number = len({each.identity for each in family})
        for each in family:
            each.family, each.effect = number, each.effect.of_family(number)


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
