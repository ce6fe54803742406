"""The contrastive term's weight by width of features and patience: where is the ln 2 plateau, and what leaves it?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from smore_ext.experiments.cells import Cell, Record
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.studies.common import N, built_in, cells_of, sample
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
from smore_ext.experiments.verdicts import listed, moved, of_paper

WEIGHTS = (0.0, 0.001, 0.003, 0.01, 0.03)
WIDTHS = (64, 256, 1024)
PATIENCES = (3, 5, 10, 20)
PINNED = 0.98 * math.log(2)  # a ranking loss above it is that of scores that order nothing
PUBLISHED = 0.01
WARM_EPOCHS = 10
WARMED = (PUBLISHED, WEIGHTS[-1])


def _cells(scale: Scale, weight: float, width: int, warmup: int = 0) -> list[Cell]:
    """Without early stopping and with the published learning rate: patience is asked of the curve afterwards."""
    data = built_in(scale, modalities={"image": width, "text": width})
    epochs = _epochs(scale)
    lr = scale.loop["lr"] if scale.quick else 1e-3
    settings: dict[str, Any] = {
        "cl_weight": weight,
        "cl_warmup": warmup,
        "patience": epochs,
        "epochs": epochs,
        "lr": lr,
    }
    return cells_of(scale, data, **settings)


def _epochs(scale: Scale) -> int:
    return scale.loop["epochs"] if scale.quick else 200  # with 60 most runs were still rising


def _warm(scale: Scale, weight: float, width: int) -> list[Cell]:
    return _cells(scale, weight, width, WARM_EPOCHS)


def cells(scale: Scale) -> Iterable[Cell]:
    for width in scale.some(WIDTHS):
        for weight in scale.some(WEIGHTS):
            yield from _cells(scale, weight, width)
        for weight in WARMED:
            yield from _cells(scale, weight, width)
            yield from _warm(scale, weight, width)


def plateau(record: Record) -> int:
    """Epochs until the ranking loss is below that of scores that order nothing; all of them where it never is."""
    below = [epoch for epoch, loss in enumerate(record.bpr) if loss < PINNED]
    return below[0] if below else len(record.bpr)


def stopped_by(record: Record, patience: int) -> int:
    """The best epoch that a run with this patience would have ended with, by the rule of the loop."""
    best, at, bad = -1.0, 0, 0
    for epoch, value in enumerate(record.validation):
        if round(value, 4) > best:
            best, at, bad = round(value, 4), epoch, 0
        else:
            bad += 1
            if bad > patience:
                break
    return at


def conclude(found: Found, scale: Scale) -> Outcome:
    weights, widths = scale.some(WEIGHTS), scale.some(WIDTHS)
    contrasts = [
        contrast(
            found, f"cl_weight {w:g} against {PUBLISHED:g}, width {width}",
            _cells(scale, w, width), _cells(scale, PUBLISHED, width),
        )
        for width in widths
        for w in weights
        if w != PUBLISHED
    ]  # fmt: skip
    warm = [
        contrast(
            found, f"cl_weight {w:g} warmed up over {WARM_EPOCHS} epochs against at once, width {width}",
            _warm(scale, w, width), _cells(scale, w, width),
        )
        for width in widths
        for w in WARMED
    ]  # fmt: skip

    over = {
        w: pooled(
            found, f"cl_weight {w:g} against {PUBLISHED:g}, mean of {len(widths)} widths",
            [(_cells(scale, w, width), _cells(scale, PUBLISHED, width)) for width in widths],
        )
        for w in weights
        if w != PUBLISHED
    }  # fmt: skip
    warming = pooled(
        found, f"cl_weight warmed up over {WARM_EPOCHS} epochs against at once, mean of {len(warm)} cases",
        [(_warm(scale, w, width), _cells(scale, w, width)) for width in widths for w in WARMED],
    )  # fmt: skip

    def stuck(cells: Sequence[Cell]) -> float:
        return float(np.mean([plateau(found[c]) for c in cells]))

    def shown(cells: Sequence[Cell]) -> str:
        return f"{recall_text(found, cells)}; {stuck(cells):.1f}"

    def lost(cells: Sequence[Cell], patience: int) -> float:
        """Validation recall that stopping early gives away."""
        return float(
            np.mean([max(found[c].validation) - found[c].validation[stopped_by(found[c], patience)] for c in cells])
        )

    def answer() -> Answer:
        better, worse = ([f"{w:g}" for w, c in over.items() if getattr(c, way)] for way in ("better", "worse"))
        longest = max(((w, width) for w in weights for width in widths), key=lambda at: stuck(_cells(scale, *at)))
        verdict = f"shown to be better than {PUBLISHED:g}: {listed(better) or 'none'}; worse: {listed(worse) or 'none'}"
        told = "; ".join(f"{w:g}: {moved(c)}" for w, c in over.items())
        brief = f"In place of {PUBLISHED:g}, {told}. Warming up in place of at once: {moved(warming)}."
        start = {width: stuck(_cells(scale, 0.0, width)) for width in widths}
        late = [c for w in weights for x in widths for c in _cells(scale, w, x)]
        rising = sum(found[c].best_epoch >= 0.95 * (_epochs(scale) - 1) for c in late)
        text = (
            f"The ranking loss stays at ln 2, that of scores that order nothing, longest with cl_weight "
            f"{longest[0]:g} and width {longest[1]}: {stuck(_cells(scale, *longest)):.1f} epochs of {_epochs(scale)}, "
            f"where it stays {start[longest[1]]:.1f} without the term, which is how a run begins. {rising} of "
            f"{len(late)} runs have their best epoch in the last twentieth: those were still rising."
        )
        said = [*(c for w, c in over.items() if w), *(c for c in (*contrasts, *warm) if c.shown)]
        return Answer(
            verdict,
            brief,
            of_paper([over[0.0]], "the contrastive term helps", "worse"),
            [over[0.0], warming],
            text,
            said,
        )

    return Outcome(
        answer,
        [*over.values(), warming],
        [*contrasts, *warm],
        [
            Panel(
                "lines", "Recall by the weight of InfoNCE", "cl_weight", N, weights,
                {f"width {width}": [mean_of(found, _cells(scale, w, width)) for w in weights] for width in widths},
                n=sample(scale), ordered=True,
            ),
            Panel(
                "lines", "Plateau at ln 2", "cl_weight", "epochs", weights,
                {f"width {width}": [stuck(_cells(scale, w, width)) for w in weights] for width in widths},
                n=f"{len(scale.seeds)} seeds", ordered=True,
            ),
            Panel(
                "lines", "Given away by stopping early", "patience, epochs", "validation recall@20", PATIENCES,
                {f"cl_weight {w:g}": [lost([c for x in widths for c in _cells(scale, w, x)], p) for p in PATIENCES]
                 for w in weights},
                n=f"{len(widths) * len(scale.seeds)} runs a point", ordered=True,
            ),
        ],
        [
            Table(
                "Recall@20; epochs at ln 2", ["cl_weight", *(f"width {width}" for width in widths)],
                [[f"{w:g}", *(shown(_cells(scale, w, x)) for x in widths)] for w in weights]
                + [[f"{w:g}, warmed up", *(shown(_warm(scale, w, x)) for x in widths)] for w in WARMED],
            )
        ],
    )  # fmt: skip


STUDY = Study("settings", "Which weight of the contrastive term, and what leaves its plateau?", cells, conclude)
