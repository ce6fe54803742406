"""Noise that the modalities share: it attacks the fused view, which is made of what they have in common."""

from __future__ import annotations

from collections.abc import Iterable

from smore_ext.experiments.cells import Cell
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.studies.common import PLAIN, SMORE, N, built_in, cells_of, sample, variant
from smore_ext.experiments.study import (
    Answer,
    Found,
    Outcome,
    Scale,
    Study,
    Table,
    contrast,
    mean_of,
    pooled,
    recall_text,
)
from smore_ext.experiments.verdicts import moved, of_paper, word

# Without its term the fused view still steers the attention; "no fused view" has neither.
MODELS = {
    PLAIN: SMORE,
    "no fused term": variant("NoFusedTerm"),
    "no fused view": variant("NoFusion"),
    "no filter": variant("Unfiltered"),
}
CORRELATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
NOISE = 4.0


def _cells(scale: Scale, label: str, correlation: float) -> list[Cell]:
    return cells_of(scale, built_in(scale, noise=NOISE, noise_correlation=correlation), MODELS[label])


def cells(scale: Scale) -> Iterable[Cell]:
    for label in MODELS:
        for correlation in scale.some(CORRELATIONS):
            yield from _cells(scale, label, correlation)


def conclude(found: Found, scale: Scale) -> Outcome:
    grid = scale.some(CORRELATIONS)
    fusion = [
        contrast(
            found,
            f"fused view against none, correlation {c:g}",
            _cells(scale, PLAIN, c),
            _cells(scale, "no fused view", c),
        )
        for c in grid
    ]
    shared = [
        contrast(found, f"{label}, correlation 1 against 0", _cells(scale, label, 1.0), _cells(scale, label, 0.0))
        for label in MODELS
    ]

    term = pooled(
        found,
        f"fused term against none, mean of {len(grid)} correlations",
        [(_cells(scale, PLAIN, c), _cells(scale, "no fused term", c)) for c in grid],
    )
    fused = [(_cells(scale, PLAIN, c), _cells(scale, "no fused view", c)) for c in grid]
    mean = pooled(found, f"fused view against none, mean of {len(grid)} correlations", fused)
    more = pooled(found, "fused view against none, at correlation 1 less at 0", fused[-1:], fused[:1])

    def answer() -> Answer:
        brief = (
            f"Noise that all modalities share in place of noise of each one's own: {moved(shared[0])}. "
            f"The fused view's term in place of none, with its attention kept: {moved(term)} on the mean of all "
            f"correlations; term and attention in place of neither: {moved(mean)}, {moved(fusion[-1])} at 1."
        )
        lost = {label: c.effect.mean for label, c in zip(MODELS, shared, strict=True)}
        text = "Noise that all modalities share, against noise of their own, changes recall@20 by "
        text += ", ".join(f"{change:+.4f} ({label})" for label, change in lost.items()) + ". "
        text += f"Built-in data, noise {NOISE:g} in all modalities."
        return Answer(
            word(shared[:1], "worse"),
            brief,
            of_paper([term], "the fused view helps"),
            [shared[0], term, mean],
            text,
            [more, *fusion, *shared[1:]],
        )

    return Outcome(
        answer,
        [shared[0], term, mean],
        [more, *fusion, *shared[1:]],
        [
            Panel(
                "lines", f"Noise {NOISE:g}, shared by the modalities", "correlation of the noise", N, grid,
                {label: [mean_of(found, _cells(scale, label, c)) for c in grid] for label in MODELS}, n=sample(scale),
            )
        ],
        [
            Table(
                "Recall@20", ["correlation", *MODELS],
                [[f"{c:g}", *(recall_text(found, _cells(scale, label, c)) for label in MODELS)] for c in grid],
            )
        ],
    )  # fmt: skip


STUDY = Study("correlated-noise", "Does fusion suffer from noise that modalities share?", cells, conclude)
