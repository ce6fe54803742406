"""Does spectral fusion denoise? The filter against none, a random and a real one, under noise of known strength."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from smore_ext.experiments.cells import Cell, Data
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.studies.common import (
    LIGHTGCN,
    MODALITIES,
    PLAIN,
    SMORE,
    N,
    built_in,
    cells_of,
    sample,
    variant,
)
from smore_ext.experiments.studies.smore_probes import denoising as snr
from smore_ext.experiments.study import (
    Answer,
    Contrast,
    Found,
    Outcome,
    Scale,
    Study,
    Table,
    contrast,
    figure_of,
    mean_of,
    pooled,
)
from smore_ext.experiments.study import recall_text as shown
from smore_ext.experiments.verdicts import moved, of_paper, word

FILTERS = {
    PLAIN: SMORE,
    "no filter": variant("Unfiltered"),
    "random fixed filter": variant("RandomFilter"),
    "real-valued filter": variant("RealFilter"),
}
NOISE = (0.0, 1.0, 2.0, 4.0)
# Bins of the noise; the signal's are 1 to 12.
BANDS = {"apart from the signal": (18, 31), "on the signal": (1, 12), "all": (1, 31)}
FILES_NOISE, ONE_NOISE = (0.0, 2.0), 4.0  # in all modalities, in one


def noisy(scale: Scale, noise: float, band: str = "apart from the signal") -> Data:
    return built_in(scale, noise=noise, noise_bins=list(BANDS[band]))


def one_side(scale: Scale, modality: str) -> Data:
    return built_in(scale, noise={m: 4.0 if m == modality else 0.0 for m in ("image", "text")})


def noisy_files(folder: str, noise: float, only: str | None = None) -> Data:
    """With noise in all modalities, or in one."""
    data = Data(folder)
    if not noise:
        return data
    return data.changed("noise", strength=noise, **({} if only is None else {"only": [only]}))


def conditions_of(folder: str) -> dict[str, Data]:
    out = {f"noise {noise:g}": noisy_files(folder, noise) for noise in FILES_NOISE}
    return out | {f"noise {ONE_NOISE:g} in {m} alone": noisy_files(folder, ONE_NOISE, m) for m in MODALITIES[folder]}


def _built_in(scale: Scale, label: str, data: Data) -> list[Cell]:
    return cells_of(scale, data, FILTERS[label], [snr])


def cells(scale: Scale) -> Iterable[Cell]:
    for label in FILTERS:
        for noise in scale.some(NOISE):
            yield from _built_in(scale, label, noisy(scale, noise))
        for band in scale.some(list(BANDS)):
            yield from _built_in(scale, label, noisy(scale, 2.0, band))
    for label in list(FILTERS)[:2]:
        for modality in ("image", "text"):
            yield from _built_in(scale, label, one_side(scale, modality))
        for folder in scale.folders:
            for data in conditions_of(folder).values():
                yield from cells_of(scale, data, FILTERS[label])
    yield from cells_of(scale, noisy(scale, 0.0), LIGHTGCN)


def conclude(found: Found, scale: Scale) -> Outcome:
    noises = scale.some(NOISE)
    of = {label: {n: _built_in(scale, label, noisy(scale, n)) for n in noises} for label in FILTERS}
    contrasts = [
        contrast(found, f"{PLAIN} against {label}, noise {n:g}", of[PLAIN][n], of[label][n])
        for label in list(FILTERS)[1:]
        for n in noises
    ]
    bands = scale.some(list(BANDS))
    for band in bands[1:]:  # the first is that of the contrasts above
        pair = [_built_in(scale, label, noisy(scale, 2.0, band)) for label in list(FILTERS)[:2]]
        contrasts.append(contrast(found, f"{PLAIN} against no filter, noise 2 in bins {BANDS[band]}", *pair))
    for m in ("image", "text"):
        pair = [_built_in(scale, label, one_side(scale, m)) for label in list(FILTERS)[:2]]
        contrasts.append(contrast(found, f"{PLAIN} against no filter, noise 4 in {m} alone", *pair))
    files: list[Contrast] = []
    for folder in scale.folders:
        for condition, data in conditions_of(folder).items():
            pair = [cells_of(scale, data, FILTERS[label]) for label in list(FILTERS)[:2]]
            files.append(contrast(found, f"{PLAIN} against no filter, {folder}, {condition}", *pair))
    gains = {
        label: [_change(found, of[label][n], "projected", "denoised") for n in noises if n > 0] for label in FILTERS
    }
    base = mean_of(found, cells_of(scale, noisy(scale, 0.0), LIGHTGCN))[0]
    plain = [*(noisy(scale, n) for n in noises), *(noisy(scale, 2.0, band) for band in bands[1:])]
    plain += [one_side(scale, m) for m in ("image", "text")]
    other = list(FILTERS)[1]
    means = {"built-in data": [(_built_in(scale, PLAIN, data), _built_in(scale, other, data)) for data in plain]}
    for folder in scale.folders:
        means[folder] = [
            (cells_of(scale, data, FILTERS[PLAIN]), cells_of(scale, data, FILTERS[other]))
            for data in conditions_of(folder).values()
        ]
    head = [
        pooled(found, f"{PLAIN} against no filter, {place}, mean of {len(pairs)} conditions", pairs)
        for place, pairs in means.items()
    ]
    changes = _changes(found, [c for data in plain if _is_noisy(data) for c in _built_in(scale, PLAIN, data)])
    lower, mean = sum(c < 0 for c in changes), float(np.mean(changes))

    def answer() -> Answer:
        against = [c for c in (*contrasts, *files) if "no filter" in c.label]
        denoises = "no" if lower == len(changes) else "yes" if not lower else "not in all runs"
        verdict = f"denoises: {denoises}; ranking profits: {word(head)}"
        brief = (
            f"The filter changes signal to noise by {mean:+.1f} dB (projected to filtered features), and lowers it in "
            f"{lower} of {len(changes)} runs. The filter in place of none changes recall: "
            + "; ".join(f"{moved(c)} ({place})" for place, c in zip(means, head, strict=True))
            + "."
        )
        gain, gain_less = gains[PLAIN], gains["no filter"]
        raised = [_change(found, of[PLAIN][n], "raw", "projected") for n in noises if n > 0]
        text = (
            f"Of the {len(against)} single conditions, the filter is better in {sum(c.better for c in against)} and "
            f"worse in {sum(c.worse for c in against)}. Signal to noise along the model as published: the trained "
            f"projection changes it by {min(raised):+.1f} to {max(raised):+.1f} dB (raw to projected features), the "
            f"filter after it by {min(gain):+.1f} to {max(gain):+.1f} dB (projected to filtered), over the strengths "
            f"of noise; where there is no filter, that step is {max(gain_less, key=abs):+.1f} dB. LightGCN, without "
            f"features, has a recall of {base:.4f}."
        )
        return Answer(
            verdict,
            brief,
            of_paper(head, "the filter raises quality"),
            head,
            text,
            [*against, *(c for c in contrasts if c not in against)],
        )

    return Outcome(
        answer,
        head,
        [*contrasts, *files],
        [
            Panel(
                "lines", "Recall by noise", "noise over signal (RMS)", N, noises,
                {label: [mean_of(found, of[label][n]) for n in noises] for label in FILTERS},
                n=sample(scale), marks={LIGHTGCN: base},
            ),
            Panel(
                "lines", "Signal to noise, projected to filtered", "noise over signal (RMS)", "change, dB",
                [n for n in noises if n > 0], gains, n=sample(scale),
            ),
            Panel(
                "bars", "Noise 2 in other bands", "band of the noise", N, bands,
                {
                    label: [mean_of(found, _built_in(scale, label, noisy(scale, 2.0, band))) for band in bands]
                    for label in FILTERS
                },
                n=sample(scale),
            ),
        ],
        [
            Table(
                "Recall@20 and signal to noise (dB: raw, projected, filtered)",
                ["noise", *FILTERS],
                [
                    [f"{n:g}", *(f"{shown(found, of[label][n])}; {_stages(found, of[label][n])}" for label in FILTERS)]
                    for n in noises
                ],
            )
        ],
    )  # fmt: skip


def _is_noisy(data: Data) -> bool:
    """In all modalities: where one has no noise, the mean over them says nothing."""
    return isinstance(data.options["noise"], float) and data.options["noise"] > 0


def _changes(found: Found, cells: Sequence[Cell]) -> list[float]:
    """By run, what the denoiser does to signal to noise."""
    figures = [found[cell].figures for cell in cells]
    return [each["snr_denoised"] - each["snr_projected"] for each in figures]


def _change(found: Found, cells: list[Cell], before: str, after: str) -> float:
    return figure_of(found, cells, f"snr_{after}")[0] - figure_of(found, cells, f"snr_{before}")[0]


def _stages(found: Found, cells: list[Cell]) -> str:
    values = [figure_of(found, cells, f"snr_{stage}")[0] for stage in ("raw", "projected", "denoised")]
    return ", ".join("no noise" if abs(v) > 100 else f"{v:+.1f}" for v in values)


STUDY = Study("denoising", "Does spectral fusion denoise, and does ranking profit?", cells, conclude)
