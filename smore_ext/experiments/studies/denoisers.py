"""The spectral filter against other denoisers of about as many parameters: quality, noise left, time and memory."""

from __future__ import annotations

from collections.abc import Iterable

from smore_ext.experiments.cells import Cell
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.probes import step_of
from smore_ext.experiments.studies.common import PLAIN, SMORE, N, built_in, cells_of, sample, variant
from smore_ext.experiments.studies.smore_probes import denoising as snr
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

DENOISERS = {  # the class, and parameters a modality at 64 dimensions
    PLAIN: (SMORE, 66),
    "no filter": (variant("Unfiltered"), 0),
    "self-attention": (variant("Attention"), 64),
    "graph smoothing": (variant("GraphSmoothing"), 64),
    "perceptron": (variant("Perceptron"), 68),
    "PCA truncation": (variant("PrincipalComponents"), 64),
}
NOISE = (1.0, 4.0)


def _cells(scale: Scale, label: str, noise: float) -> list[Cell]:
    return cells_of(scale, built_in(scale, noise=noise), DENOISERS[label][0], [snr, step_of])


def cells(scale: Scale) -> Iterable[Cell]:
    for label in DENOISERS:
        for noise in NOISE:
            yield from _cells(scale, label, noise)


def conclude(found: Found, scale: Scale) -> Outcome:
    of = {label: {n: _cells(scale, label, n) for n in NOISE} for label in DENOISERS}
    contrasts = [
        contrast(found, f"{label} against {PLAIN}, noise {n:g}", of[label][n], of[PLAIN][n])
        for label in list(DENOISERS)[1:]
        for n in NOISE
    ]

    def step(label: str) -> tuple[float, float]:
        """Milliseconds and megabytes of a step."""
        both = [*of[label][NOISE[0]], *of[label][NOISE[1]]]
        return figure_of(found, both, "step_seconds")[0] * 1e3, figure_of(found, both, "step_bytes")[0] / 1e6

    def gain(label: str, noise: float) -> float:
        raw, out = (figure_of(found, of[label][noise], f"snr_{stage}")[0] for stage in ("raw", "denoised"))
        return out - raw

    def answer() -> Answer:
        better, worse = [c for c in contrasts if c.better], [c for c in contrasts if c.worse]
        brief = (
            f"Of {len(contrasts)} comparisons with the filter, another denoiser is better in {len(better)}, worse in "
            f"{len(worse)}; the rest shows no difference."
        )
        loud = NOISE[1]
        most = max(DENOISERS, key=lambda label: gain(label, loud))
        base = step(PLAIN)[0]
        text = (
            f"At noise {loud:g} {most} raises signal to noise most, by {gain(most, loud):+.1f} dB from raw features; "
            f"the spectral filter by {gain(PLAIN, loud):+.1f}, no filter (the trained projection alone) by "
            f"{gain('no filter', loud):+.1f}. A step takes "
            + ", ".join(f"{step(label)[0] / base:.2f} ({label})" for label in list(DENOISERS)[1:])
            + " of its time with the filter."
        )
        return Answer(brief, text, contrasts)

    return Outcome(
        answer,
        contrasts,
        [
            Panel(
                "bars", "Recall", "denoiser", N, list(DENOISERS),
                {f"noise {n:g}": [mean_of(found, of[label][n]) for label in DENOISERS] for n in NOISE},
                n=sample(scale),
            ),
            Panel(
                "bars", "Signal to noise, raw to denoised", "denoiser", "change, dB", list(DENOISERS),
                {f"noise {n:g}": [gain(label, n) for label in DENOISERS] for n in NOISE}, n=sample(scale),
            ),
        ],
        [
            Table(
                "Cost of a step (forward and backward, one thread), parameters a modality, recall@20",
                ["denoiser", "ms", "kept for backward, MB", "parameters", *(f"noise {n:g}" for n in NOISE)],
                [
                    [
                        label, f"{step(label)[0]:.1f}", f"{step(label)[1]:.2f}", str(DENOISERS[label][1]),
                        *(recall_text(found, of[label][n]) for n in NOISE),
                    ]
                    for label in DENOISERS
                ],
            )
        ],
    )  # fmt: skip


STUDY = Study("denoisers", "How does the filter compare with other denoisers?", cells, conclude)
