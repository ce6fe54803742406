"""How many frequencies are needed? Low-pass, high-pass, by energy and a learned mask; and the kernel's time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence

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
    recall_text,
)

WAYS = {"low-pass": SMORE, "high-pass": variant("HighPass"), "by energy": variant("ByEnergy")}
KEPT = (1, 2, 4, 8, 16, 32)
ALL = 33  # d // 2 + 1 at 64 dimensions
ROWS, TURNS = 8192, 7


def kernel_times(trained: Trained) -> Figures:
    """Seconds of the fusion of two modalities, [8192, 64] float32, by the number kept, forward and with backward:
    medians of turns that are interleaved, one thread."""
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
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _cells(scale: Scale, way: str, kept: int) -> list[Cell]:
    if kept == ALL:
        return cells_of(scale, built_in(scale, noise=2.0), SMORE, [kernel_times])
    return cells_of(scale, built_in(scale, noise=2.0), WAYS[way], spectral=kept)


def _learned(scale: Scale) -> list[Cell]:
    return cells_of(scale, built_in(scale, noise=2.0), variant("LearnedMask"))


def cells(scale: Scale) -> Iterable[Cell]:
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
    times = {
        way: {kept: statistics.median(found[cell].figures[f"{way} {kept}"] for cell in whole) for kept in (*KEPT, ALL)}
        for way in ("forward", "both")
    }

    def answer() -> Answer:
        worse = [c for c in contrasts if c.worse]
        enough = {way: fewest_without_loss(of[way], whole, contrasts, way) for way in WAYS}
        brief = (
            "No loss of recall is shown with "
            + ", ".join(f"{n} {way}" for way, n in enough.items())
            + f" of {ALL} frequencies."
        )

        def faster(way: str, kept: int) -> str:
            return f"{times[way][ALL] / times[way][kept]:.2f}"

        text = (
            f"The kernel skips what a low-pass drops: with 8 of {ALL} it is {faster('forward', 8)} times as fast "
            f"({faster('both', 8)} with backward), with 1 {faster('forward', 1)} ({faster('both', 1)}); masks of other "
            "ways cost what all frequencies cost. With n frequencies filtered features have a rank of at most 2 n, and "
            "the projection before the filter is learned, so that it can fill whichever pass. "
            f"{len(worse)} of {len(contrasts)} restrictions are shown to lose anything."
        )
        return Answer(brief, text, [*(c for c in contrasts if c.shown or ", 1 of" in c.label), contrasts[-1]])

    return Outcome(
        answer,
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
                    name: [times[way][kept] / times[way][ALL] for kept in (*KEPT, ALL)]
                    for way, name in (("forward", "forward"), ("both", "with backward"))
                },
                log=True, n=f"[{ROWS:,}, 64] float32, two modalities, one thread, medians",
            ),
        ],
        [
            Table(
                "Recall@20 by frequencies kept, and time of the kernel for a low-pass",
                ["kept", *WAYS, "forward, ms", "with backward"],
                [
                    [str(kept), *(recall_text(found, of[way][kept]) for way in WAYS),
                     *(f"{times[way][kept] * 1e3:.2f}" for way in times)]
                    for kept in grid
                ],
            )
        ],
    )  # fmt: skip


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
