"""Layers over users and items, layers over item graphs, and neighbours in them: quality and over-smoothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smore_ext.experiments.cells import Cell
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.probes import cosines, step_of
from smore_ext.experiments.studies.common import N, built_in, cells_of, sample
from smore_ext.experiments.study import (
    Answer,
    Found,
    Outcome,
    Scale,
    Study,
    Table,
    contrast,
    figure_of,
    mean_of,
    pooled,
    recall_text,
)
from smore_ext.experiments.verdicts import NO_CLAIM, moved, word

BEHAVIOUR = (0, 1, 2, 3, 4, 5, 6)
ITEMS = (0, 1, 2, 3)
NEIGHBOURS = (5, 10, 20, 40, 80)
USUAL = (2, 1)


def _cells(scale: Scale, behaviour: int, items: int, k: int = 10) -> list[Cell]:
    settings: dict[str, Any] = {"n_ui_layers": behaviour, "n_mm_layers": items, "knn_k": k}
    return cells_of(scale, built_in(scale), probes=[cosines, step_of], **settings)


def cells(scale: Scale) -> Iterable[Cell]:
    for behaviour in scale.some(BEHAVIOUR):
        for items in scale.some(ITEMS):
            yield from _cells(scale, behaviour, items)
    for k in scale.some(NEIGHBOURS):
        yield from _cells(scale, *USUAL, k)
    yield from _cells(scale, *USUAL)


def conclude(found: Found, scale: Scale) -> Outcome:
    behaviour, items, ks = scale.some(BEHAVIOUR), scale.some(ITEMS), scale.some(NEIGHBOURS)
    usual = _cells(scale, *USUAL)
    smoothed = items[-1] if scale.quick else USUAL[1]  # item layers of the figures of over-smoothing
    contrasts = {
        (b, i): contrast(
            found, f"{b} user-item and {i} item layers against {USUAL[0]} and {USUAL[1]}", _cells(scale, b, i), usual
        )
        for b in behaviour
        for i in items
        if (b, i) != USUAL
    }
    deep, flat = behaviour[-1], USUAL[0] if USUAL[0] in behaviour else behaviour[0]
    deepest = pooled(
        found,
        f"{deep} user-item layers against {flat}, mean over item layers",
        [(_cells(scale, deep, i), _cells(scale, flat, i)) for i in items],
    )
    few = USUAL[1] if USUAL[1] in items else items[0]
    widest = pooled(
        found,
        f"{items[-1]} item layers against {few}, mean over {flat} and more user-item layers",
        [(_cells(scale, b, items[-1]), _cells(scale, b, few)) for b in behaviour if b >= flat],
    )
    near = [contrast(found, f"knn_k {k} against 10", _cells(scale, *USUAL, k), usual) for k in ks if k != 10]
    grid = {(b, i): mean_of(found, _cells(scale, b, i)) for b in behaviour for i in items}
    cosine = {b: figure_of(found, _cells(scale, b, smoothed), "cosine_users") for b in behaviour}

    def answer() -> Answer:
        best = max(grid, key=lambda at: grid[at][0])
        better, worse = ([c for c in contrasts.values() if getattr(c, way)] for way in ("better", "worse"))
        verdict = f"over-smoothing: {word([deepest], 'worse')}; more item layers better: {word([widest])}"
        brief = (
            f"{deep} user-item layers in place of {flat}: {moved(deepest)}, and the mean "
            f"cosine of two users is {cosine[deep][0]:.2f} (1: all alike). {items[-1]} item layers in place of {few}: "
            f"{moved(widest)}. Best of {len(grid)} settings: {best[0]} user-item and {best[1]} item layers"
            + (f", {moved(contrasts[best])} against {USUAL[0]} and {USUAL[1]}" if best in contrasts else "")
            + f"; {len(better)} are shown to be better than {USUAL[0]} and {USUAL[1]}, {len(worse)} worse."
        )
        first = behaviour[0]
        text = (
            f"The mean cosine of two users' final embeddings goes from {cosine[first][0]:.3f} with {first} user-item "
            f"layers to {cosine[deep][0]:.3f} with {deep}. The best of many looks better than it is: it is compared "
            f"as one of {len(contrasts)}."
        )
        said = [*([contrasts[best]] if best in contrasts and not contrasts[best].shown else []), *better, *worse]
        return Answer(verdict, brief, NO_CLAIM, [deepest, widest], text, [*said, *near])

    def row(cells: list[Cell], name: str) -> list[str]:
        cosine_ = [f"{figure_of(found, cells, f'cosine_{of}')[0]:.3f}" for of in ("users", "items")]
        return [name, recall_text(found, cells), *cosine_]

    return Outcome(
        answer,
        [deepest, widest],
        [*contrasts.values(), *near],
        [
            Panel(
                "heat", f"{N} by layers", "item layers", "user-item layers", items,
                {str(b): [grid[b, i] for i in items] for b in behaviour}, n=sample(scale),
            ),
            Panel(
                "lines", "Over-smoothing", "user-item layers", "mean cosine of pairs", behaviour,
                {
                    name: [
                        figure_of(found, _cells(scale, b, smoothed), f"cosine_{name}")
                        for b in behaviour
                    ]
                    for name in ("users", "items")
                },
                n=f"{len(scale.seeds)} seeds, smallest to largest",
            ),
            Panel(
                "lines", "Neighbours in the item graphs", "knn_k", N, ks,
                {"SMORE": [mean_of(found, _cells(scale, *USUAL, k)) for k in ks]}, log=True, n=sample(scale),
            ),
        ],
        [
            Table(
                "Recall@20, mean cosine of pairs of final embeddings",
                ["layers", N, "cosine of users", "of items"],
                [row(_cells(scale, b, i), f"{b} user-item, {i} item") for b in behaviour for i in items]
                + [row(_cells(scale, *USUAL, k), f"knn_k {k}") for k in ks],
            )
        ],
    )  # fmt: skip


STUDY = Study("layers", "How many layers and neighbours, and do they over-smooth?", cells, conclude)
