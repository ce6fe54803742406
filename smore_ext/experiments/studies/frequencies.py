"""How many frequencies are needed? Low-pass, high-pass, by energy and a learned mask; and the kernel's time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from smore_ext import ops
from smore_ext.experiments.cells import Cell
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.probes import Figures, Trained
from smore_ext.experiments.studies.common import SMORE, N, built_in, cells_of, sample, variant
from smore_ext.experiments.study import (
    Answer,
    Contrast,
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
from smore_ext.experiments.verdicts import NO_CLAIM, moved

WAYS = {"low-pass": SMORE, "high-pass": variant("HighPass"), "by energy": variant("ByEnergy")}
KEPT = (1, 2, 4, 8, 16, 32)
ALL = 33  # d // 2 + 1 at 64 dimensions
ROWS, TURNS = 8192, 40


def kernel_times(trained: Trained) -> Figures:
    """Seconds of the fusion of two modalities, [8192, 64] float32, by the number kept, forward and with backward:
    the fastest of turns that are interleaved, so that what else the machine does counts least, one thread."""
    times: dict[str, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(ROWS, 64, generator=generator, requires_grad=True) for _ in range(2)]
    filters = [torch.randn(ALL, 2, generator=generator, requires_grad=True) for _ in range(3)]
    grads = [torch.randn(ROWS, 64, generator=generator) for _ in range(3)]
    for _ in range(TURNS):
        for kept in (*KEPT, ALL):
            begin = time.perf_counter()
            filtered, fused = ops.spectrum_fusion(xs, filters[:2], filters[2], None if kept == ALL else kept)
            forward = time.perf_counter()
            torch.autograd.grad([*filtered, fused], [*xs, *filters], grads)
            times.setdefault(f"forward {kept}", []).append(forward - begin)
            times.setdefault(f"both {kept}", []).append(time.perf_counter() - begin)
    return {name: min(seconds) for name, seconds in times.items()}


def _cells(scale: Scale, way: str, kept: int) -> list[Cell]:
    if kept == ALL:
        return cells_of(scale, built_in(scale, noise=2.0), SMORE, [kernel_times])
    return cells_of(scale, built_in(scale, noise=2.0), WAYS[way], spectral=kept)


def _learned(scale: Scale) -> list[Cell]:
    return cells_of(scale, built_in(scale, noise=2.0), variant("LearnedMask"))


def _timed(scale: Scale) -> list[Cell]:
    """Cells that are there for the kernel's time: of one epoch, so that they can be made alone."""
    return cells_of(scale, built_in(scale, noise=2.0), SMORE, [kernel_times], epochs=1)


def cells(scale: Scale) -> Iterable[Cell]:
    yield from _timed(scale)
    for way in WAYS:
        for kept in (*scale.some(KEPT), ALL):
            yield from _cells(scale, way, kept)
    yield from _learned(scale)


def conclude(found: Found, scale: Scale) -> Outcome:
    grid = (*scale.some(KEPT), ALL)
    of = {way: {kept: _cells(scale, way, kept) for kept in grid} for way in WAYS}
    whole = _cells(scale, "low-pass", ALL)
    contrasts = [
        contrast(found, f"{way}, {kept} of {ALL} frequencies against all", of[way][kept], whole)
        for way in WAYS
        for kept in grid[:-1]
    ]
    contrasts.append(contrast(found, "learned mask against all frequencies", _learned(scale), whole))
    single = pooled(
        found, f"1 of {ALL} frequencies against all, mean of {len(WAYS)} ways", [(of[way][1], whole) for way in WAYS]
    )
    ratios = {
        way: {
            kept: [figures[f"{way} {kept}"] / figures[f"{way} {ALL}"] for figures in _figures(found, _timed(scale))]
            for kept in (*KEPT, ALL)
        }
        for way in ("forward", "both")
    }

    def answer() -> Answer:
        worse = [c for c in contrasts if c.worse]
        fewest = {way: fewest_without_loss(of[way], whole, contrasts, way) for way in WAYS}
        enough = "1" if not single.worse and set(fewest.values()) == {1} else "more than 1"
        few = ", ".join(f"{n} {way}" for way, n in fewest.items())

        def time(way: str, kept: int) -> str:
            return f"{np.mean(ratios[way][kept]):.2f}"

        verdict = f"1 of {ALL} is not shown to be too few" if enough == "1" else f"{few} of {ALL}"
        brief = (
            f"One in place of all: {moved(single)}, with noise 2 on the built-in data, which is all that was tried. "
            f"The kernel takes {time('both', 8)} of its time with 8 kept, {time('both', 1)} with 1."
        )
        text = (
            f"{len(worse)} of {len(contrasts)} restrictions are shown to lose anything; no loss is shown with {few}. "
            "With n frequencies filtered features have a rank of at most 2 n, and the projection before the filter is "
            "learned, so that it can fill whichever pass. The kernel skips what a low-pass drops; masks of other ways "
            "cost what all frequencies cost. Times are of one thread, ratios of the "
            f"fastest of {TURNS} interleaved turns."
        )
        said = [*(c for c in contrasts if c.shown or ", 1 of" in c.label), contrasts[-1]]
        return Answer(verdict, brief, NO_CLAIM, [single], text, said)

    def shares(way: str, kept: int) -> tuple[float, float, float]:
        return float(np.mean(ratios[way][kept])), min(ratios[way][kept]), max(ratios[way][kept])

    return Outcome(
        answer,
        [single],
        contrasts,
        [
            Panel(
                "lines", "Recall by frequencies kept, noise 2", f"frequencies kept, of {ALL}", N, grid,
                {way: [mean_of(found, of[way][kept]) for kept in grid] for way in WAYS}, log=True, n=sample(scale),
                marks={"learned mask": mean_of(found, _learned(scale))[0]},
            ),
            Panel(
                "lines", "Time of the kernel", f"frequencies kept, of {ALL}", "time / time with all",
                (*KEPT, ALL),
                {
                    name: [shares(way, kept) for kept in (*KEPT, ALL)]
                    for way, name in (("forward", "forward"), ("both", "with backward"))
                },
                log=True, n=f"two modalities [{ROWS:,}, 64], smallest to largest",
            ),
        ],
        [
            Table(
                f"Recall@20 by frequencies kept, and time of the kernel for a low-pass over that with all {ALL}",
                ["kept", *WAYS, "forward", "with backward"],
                [
                    [str(kept), *(recall_text(found, of[way][kept]) for way in WAYS),
                     *("{:.2f} ({:.2f} to {:.2f})".format(*shares(way, kept)) for way in ratios)]
                    for kept in grid
                ],
            )
        ],
    )  # fmt: skip


def _figures(found: Found, cells: Sequence[Cell]) -> list[dict[str, float]]:
    return [found[cell].figures for cell in cells]


def fewest_without_loss(
    of: dict[int, list[Cell]], whole: Sequence[Cell], contrasts: Sequence[Contrast], way: str
) -> int:
    """The smallest number from which on no contrast is worse."""
    fewest = ALL
    for kept in sorted(of, reverse=True):
        if kept != ALL and next(c for c in contrasts if c.label.startswith(f"{way}, {kept} ")).worse:
            break
        fewest = kept
    return fewest


STUDY = Study("frequencies", "How many frequencies are needed?", cells, conclude)
