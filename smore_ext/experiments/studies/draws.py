"""Do answers of the built-in data hold on other draws of their generator: other tastes, features and interactions?"""

from __future__ import annotations

from collections.abc import Iterable

from smore_ext.experiments.cells import Cell, Data
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.studies.common import LIGHTGCN, PLAIN, SMORE, N, built_in, cells_of, sample, variant
from smore_ext.experiments.study import (
    NOT_SHOWN,
    Answer,
    Contrast,
    Found,
    Outcome,
    Scale,
    Study,
    Table,
    contrast,
    mean_of,
    over_draws,
    recall_text,
)
from smore_ext.experiments.verdicts import moved, of_paper

FIRST = 0  # the generator's usual seed, which all other studies draw with
DRAWS = (1, 2, 3)
NOISY = ", noise 4"


def _data(scale: Scale, draw: int, **options: float) -> Data:
    return built_in(scale, **options) if draw == FIRST else built_in(scale, seed=draw, **options)


def conditions(scale: Scale, draw: int) -> dict[str, list[Cell]]:
    true, noisy = _data(scale, draw), _data(scale, draw, noise=4.0)
    return {
        SMORE: cells_of(scale, true),
        LIGHTGCN: cells_of(scale, true, LIGHTGCN),
        "no item layers": cells_of(scale, true, n_mm_layers=0),
        "shuffled features": cells_of(scale, true.changed("shuffled", share=1.0)),
        f"{PLAIN}{NOISY}": cells_of(scale, noisy),
        f"no filter{NOISY}": cells_of(scale, noisy, variant("Unfiltered")),
    }


# What is compared, first with second
PAIRS = {
    f"{SMORE} against {LIGHTGCN}": (SMORE, LIGHTGCN),
    "no item layers against one": ("no item layers", SMORE),
    "shuffled features against true": ("shuffled features", SMORE),
    f"{PLAIN} against no filter{NOISY}": (f"{PLAIN}{NOISY}", f"no filter{NOISY}"),
}


def draws(scale: Scale) -> list[int]:
    return [FIRST, *scale.some(DRAWS)]


def cells(scale: Scale) -> Iterable[Cell]:
    for draw in draws(scale):
        for condition in conditions(scale, draw).values():
            yield from condition


def conclude(found: Found, scale: Scale) -> Outcome:
    of = {draw: conditions(scale, draw) for draw in draws(scale)}
    answers: dict[str, list[Contrast]] = {
        label: [contrast(found, f"{label}, draw {draw}", of[draw][one], of[draw][other]) for draw in of]
        for label, (one, other) in PAIRS.items()
    }
    every = [each for group in answers.values() for each in group]
    over = {label: over_draws(f"{label}, mean of {len(of)} draws", group) for label, group in answers.items()}

    def answer() -> Answer:
        told, differ = [], []
        for label, group in answers.items():
            better, worse = sum(c.better for c in group), sum(c.worse for c in group)
            told.append(f"{label}: {better} better, {worse} worse")
            if better and worse:
                differ.append(label)
        holds = "no" if differ else "yes" if any(c.shown for c in over.values()) else NOT_SHOWN
        brief = "; ".join(f"{label}: {moved(c)}" for label, c in over.items()) + "."
        text = (
            f"Draws contradict each other in {', '.join(differ)}." if differ else "No two draws contradict each other."
        )
        text += f" Of {len(of)} draws, {'; '.join(told)}. Draw {FIRST} is that of all other experiments."
        paper = of_paper([over[next(iter(PAIRS))]], "it is better than LightGCN")
        return Answer(holds, f"{brief[0].upper()}{brief[1:]}", paper, list(over.values()), text, every)

    return Outcome(
        answer,
        list(over.values()),
        every,
        [
            Panel(
                "bars", title, "draw of the built-in data (seed)", N, [str(draw) for draw in of],
                {
                    name.removesuffix(NOISY): [mean_of(found, of[draw][name]) for draw in of]
                    for name in of[FIRST]
                    if name.endswith(NOISY) == noisy
                },
                n=sample(scale),
            )
            for title, noisy in (("The same conditions on other draws", False), ("Noise 4", True))
        ],
        [
            Table(
                "Recall@20", ["draw", *of[FIRST]],
                [[str(draw), *(recall_text(found, cells_) for cells_ in of[draw].values())] for draw in of],
            )
        ],
    )  # fmt: skip


STUDY = Study("draws", "Do the answers hold on other draws of the built-in data?", cells, conclude)
