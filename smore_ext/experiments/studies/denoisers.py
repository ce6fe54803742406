"""The spectral filter against other denoisers of about as many parameters: quality, noise left, time and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from smore_ext.experiments.cells import Cell
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.probes import Figures, Trained, first_batch, seconds_of_step, step_of
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
    pooled,
    recall_text,
)
from smore_ext.experiments.verdicts import NO_CLAIM, at_most, largest, listed
from smore_ext.models.registry import MODELS

DENOISERS = {  # the class, and parameters a modality at 64 dimensions
    PLAIN: (SMORE, 66),
    "no filter": (variant("Unfiltered"), 0),
    "self-attention": (variant("Attention"), 64),
    "graph smoothing": (variant("GraphSmoothing"), 64),
    "perceptron": (variant("Perceptron"), 68),
    "PCA truncation": (variant("PrincipalComponents"), 64),
}
NOISE = (1.0, 4.0)


TURNS = 40
SILENCE = -60.0  # dB, below which no signal is left


def step_times(trained: Trained) -> Figures:
    """Seconds of a training step without its optimizer with each denoiser, new models of the same data and settings: a
    step of each in turn, and the fastest of each, so that what else the machine does counts least."""
    batch, config = first_batch(trained), trained.config.model
    models = {label: MODELS[name](trained.dataset, config).train() for label, (name, _) in DENOISERS.items()}
    times: dict[str, list[float]] = {label: [] for label in models}
    for _ in range(TURNS):
        for label, model in models.items():
            times[label].append(seconds_of_step(model, batch))
    return {f"step {label}": min(seconds) for label, seconds in times.items()}


def _cells(scale: Scale, label: str, noise: float) -> list[Cell]:
    return cells_of(scale, built_in(scale, noise=noise), DENOISERS[label][0], [snr, step_of])


def _timed(scale: Scale) -> list[Cell]:
    return cells_of(scale, built_in(scale, noise=NOISE[0]), SMORE, [step_times], epochs=1)


def cells(scale: Scale) -> Iterable[Cell]:
    for label in DENOISERS:
        for noise in NOISE:
            yield from _cells(scale, label, noise)
    yield from _timed(scale)


def conclude(found: Found, scale: Scale) -> Outcome:
    of = {label: {n: _cells(scale, label, n) for n in NOISE} for label in DENOISERS}
    others = list(DENOISERS)[1:]
    contrasts = [
        contrast(found, f"{label} against {PLAIN}, noise {n:g}", of[label][n], of[PLAIN][n])
        for label in others
        for n in NOISE
    ]
    over = {
        label: pooled(
            found, f"{label} against {PLAIN}, mean of noise {' and '.join(f'{n:g}' for n in NOISE)}",
            [(of[label][n], of[PLAIN][n]) for n in NOISE],
        )
        for label in others
    }  # fmt: skip
    ratios = {
        label: [r.figures[f"step {label}"] / r.figures[f"step {PLAIN}"] for r in (found[c] for c in _timed(scale))]
        for label in DENOISERS
    }

    def megabytes(label: str) -> float:
        return figure_of(found, [*of[label][NOISE[0]], *of[label][NOISE[1]]], "step_bytes")[0] / 1e6

    def end(label: str, noise: float) -> list[float]:
        """By seed, signal to noise in dB of what enters the gates."""
        return [found[cell].figures["snr_denoised"] for cell in of[label][noise]]

    def step(label: str) -> str:
        return f"{np.mean(ratios[label]):.2f} ({min(ratios[label]):.2f} to {max(ratios[label]):.2f})"

    def answer() -> Answer:
        better, worse = ([label for label, c in over.items() if getattr(c, way)] for way in ("better", "worse"))
        told = [f"better than the filter: {listed(better)}"] * bool(better)
        told += [f"worse: {listed(worse)}"] * bool(worse)
        verdict = "; ".join(told) or "no difference shown"
        said = f"at most {at_most(list(over.values()))} either way"
        means = [float(np.mean(ratios[label])) for label in others if DENOISERS[label][1]]
        brief = (
            f"Recall with one of {len(others) - 1} others, or none, in place of the filter: {said}. A step with "
            f"another denoiser takes {min(means):.2f} to {max(means):.2f} times as long, without any "
            f"{np.mean(ratios['no filter']):.2f} times."
        )
        ends = []
        for n in NOISE:
            less = [a - b for a, b in zip(end(PLAIN, n), end("no filter", n), strict=True)]
            ends.append(
                f"at noise {n:g} {np.mean(end(PLAIN, n)):+.1f} with the filter and {np.mean(end('no filter', n)):+.1f} "
                f"without (the filter's is higher in {sum(d > 0 for d in less)} of {len(less)} seeds)"
            )
        silent = [f"{label} at noise {n:g}" for n in NOISE for label in DENOISERS if min(end(label, n)) <= SILENCE]
        text = (
            f"Signal to noise of what enters the gates, dB: {'; '.join(ends)}. These are ends of whole models, in "
            "which projection and denoiser were trained together, so a difference is not what the denoiser itself "
            "does: that is the step from projected to filtered features of the first experiment. Times are of one "
            f"thread, ratios to the filter of the fastest of {TURNS} interleaved steps (forward and backward), mean "
            "and range over seeds; memory is what a step keeps for backward."
            + (f" No signal is measured with {listed(silent)}." if silent else "")
        )
        head = list({c.label: c for c in (over["no filter"], largest(list(over.values())))}.values())
        return Answer(verdict, brief, NO_CLAIM, head, text, contrasts)

    return Outcome(
        answer,
        list(over.values()),
        contrasts,
        [
            Panel(
                "bars", "Recall", "denoiser", N, list(DENOISERS),
                {f"noise {n:g}": [mean_of(found, of[label][n]) for label in DENOISERS] for n in NOISE},
                n=sample(scale), ordered=True,
            ),
            Panel(
                "bars", "Signal to noise of what enters the gates", "denoiser", "dB", list(DENOISERS),
                {f"noise {n:g}": [_range(end(label, n)) for label in DENOISERS] for n in NOISE},
                n=f"{len(scale.seeds)} seeds, smallest to largest", ordered=True,
            ),
        ],
        [
            Table(
                "A step's time over that with the filter, what it keeps, parameters a modality, recall@20",
                ["denoiser", "time", "MB", "parameters", *(f"noise {n:g}" for n in NOISE)],
                [
                    [
                        label, step(label), f"{megabytes(label):.2f}", str(DENOISERS[label][1]),
                        *(recall_text(found, of[label][n]) for n in NOISE),
                    ]
                    for label in DENOISERS
                ],
            )
        ],
    )  # fmt: skip


def _range(values: Sequence[float]) -> tuple[float, float, float] | None:
    """The mean with smallest and largest; None where no signal is left."""
    if min(values) <= SILENCE:
        return None
    return float(np.mean(values)), min(values), max(values)


STUDY = Study("denoisers", "How does the filter compare with other denoisers?", cells, conclude)
