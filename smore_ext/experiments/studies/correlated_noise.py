"""Noise that the modalities share: it attacks the fused view, which is made of what they have in common."""

from __future__ import annotations

from collections.abc import Iterable

from smore_ext.experiments.cells import Cell
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.studies.common import PLAIN, SMORE, N, built_in, cells_of, sample, variant
from smore_ext.experiments.study import Answer, Found, Outcome, Scale, Study, Table, contrast, mean_of, recall_text

MODELS = {PLAIN: SMORE, "no fused view": variant("NoFusion"), "no filter": variant("Unfiltered")}
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

    def answer() -> Answer:
        hurt, helped = ([c.label.rpartition(" ")[2] for c in fusion if getattr(c, way)] for way in ("worse", "better"))
        if hurt:
            brief = f"Fusion begins to hurt at a correlation of {hurt[0]}."
        else:
            brief = f"Fusion is not shown to hurt at any correlation from {grid[0]:g} to {grid[-1]:g}; "
            brief += f"it helps at {', '.join(helped)}." if helped else "nor is it shown to help."
        lost = {label: c.effect.mean for label, c in zip(MODELS, shared, strict=True)}
        text = "Noise that all modalities share, against noise of their own, changes recall@20 by "
        text += ", ".join(f"{change:+.4f} ({label})" for label, change in lost.items()) + "."
        return Answer(brief, text, [*fusion, *shared])

    return Outcome(
        answer,
        [*fusion, *shared],
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
