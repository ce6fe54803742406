"""Layers over users and items, layers over item graphs, and neighbours in them: quality, time and over-smoothing."""

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
    recall_text,
)

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
    others = [(b, USUAL[1]) for b in behaviour if USUAL[1] in items] + [(USUAL[0], i) for i in items]
    contrasts = [
        contrast(
            found, f"{b} user-item and {i} item layers against {USUAL[0]} and {USUAL[1]}", _cells(scale, b, i), usual
        )
        for b, i in dict.fromkeys(others)
        if (b, i) != USUAL and (b in behaviour and i in items)
    ]
    near = [contrast(found, f"knn_k {k} against 10", _cells(scale, *USUAL, k), usual) for k in ks if k != 10]
    grid = {(b, i): mean_of(found, _cells(scale, b, i)) for b in behaviour for i in items}
    cosine = {b: figure_of(found, _cells(scale, b, smoothed), "cosine_users") for b in behaviour}

    def answer() -> Answer:
        best = max(grid, key=lambda at: grid[at][0])
        brief = (
            f"Best of the grid: {best[0]} user-item and {best[1]} item layers; "
            f"{sum(c.better for c in contrasts)} settings are better than {USUAL[0]} and {USUAL[1]}, "
            f"{sum(c.worse for c in contrasts)} worse."
        )
        first, last = behaviour[0], behaviour[-1]
        text = (
            f"The mean cosine of two users' embeddings goes from {cosine[first][0]:.3f} with {first} layers to "
            f"{cosine[last][0]:.3f} with {last}."
        )
        return Answer(brief, text, [*contrasts, *near])

    def row(cells: list[Cell], name: str) -> list[str]:
        step = figure_of(found, cells, "step_seconds")[0] * 1e3
        cosine_ = [f"{figure_of(found, cells, f'cosine_{of}')[0]:.3f}" for of in ("users", "items")]
        return [name, recall_text(found, cells), *cosine_, f"{step:.1f}"]

    return Outcome(
        answer,
        [*contrasts, *near],
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
                "Recall@20, mean cosine of pairs, milliseconds of a step (forward and backward, one thread)",
                ["layers", N, "cosine of users", "of items", "ms"],
                [row(_cells(scale, b, i), f"{b} user-item, {i} item") for b in behaviour for i in items]
                + [row(_cells(scale, *USUAL, k), f"knn_k {k}") for k in ks],
            )
        ],
    )  # fmt: skip


STUDY = Study("layers", "How many layers and neighbours, and do they over-smooth?", cells, conclude)
