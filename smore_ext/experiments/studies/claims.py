"""What others report of models of this kind, from runs of three seeds: confirmed here, refuted, or neither?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from smore_ext.experiments.audit import OPEN, SATURATED, STILL
from smore_ext.experiments.cells import Cell
from smore_ext.experiments.significance import crossed
from smore_ext.experiments.studies import modalities
from smore_ext.experiments.studies.common import LIGHTGCN, built_in, cells_of
from smore_ext.experiments.studies.smore_probes import MISMATCHED, gates_and_tables
from smore_ext.experiments.study import Answer, Contrast, Found, Outcome, Scale, Study, Table, contrast, figure_of
from smore_ext.experiments.verdicts import NO_CLAIM, PAPER_GAIN

DROPOUT_GAIN = 0.017  # reported of modality dropout
SHUFFLED = (0.5, 1.0)
PARTS = ("graphs", "tables")  # of a modality: its neighbours, and what is projected
CONFIRMED, REFUTED, OPEN_ = "confirmed", "refuted", "neither shown"
HARDLY = STILL  # as `audit` has it
UNMOVED = 0.95  # share of the lists' items that stay, from which on lists are the same


def _plain(scale: Scale) -> list[Cell]:
    return cells_of(scale, built_in(scale), probes=[gates_and_tables])


def _shuffled(scale: Scale, share: float, part: str | None = None) -> list[Cell]:
    """Of other items, in tables and graphs, or in the one `part`."""
    return cells_of(scale, built_in(scale).changed("shuffled", share=share, **({"part": part} if part else {})))


def cells(scale: Scale) -> Iterable[Cell]:
    yield from _plain(scale)
    yield from cells_of(scale, built_in(scale))
    yield from cells_of(scale, built_in(scale), LIGHTGCN)
    for share in SHUFFLED:
        yield from _shuffled(scale, share)
    for part in PARTS:
        yield from _shuffled(scale, 1.0, part)
    for repair in ("as it is", "modality dropout"):
        yield from modalities.useless(scale, None, repair)
    for _, group in modalities.knocked_cells(scale):
        yield from group


def little(contrasts: list[Contrast]) -> str:
    """Whether a loss costs little: as much as PAPER_GAIN is ruled out in all of them, or more is shown in one."""
    if all(c.effect.low > -PAPER_GAIN * c.base for c in contrasts):
        return CONFIRMED
    return REFUTED if any(c.effect.high < -PAPER_GAIN * c.base for c in contrasts) else OPEN_


def gains(c: Contrast, share: float) -> str:
    """Whether there is such a gain: a gain is shown, or as much is ruled out."""
    if c.better:
        return CONFIRMED
    return REFUTED if c.worse or c.effect.high < share * c.base else OPEN_


def same(c: Contrast, stays: float) -> str:
    """Whether lists stay the same: a change of recall refutes it, and so do lists of other items."""
    return REFUTED if c.shown or stays < UNMOVED else CONFIRMED


def conclude(found: Found, scale: Scale) -> Outcome:
    removed = [
        next(c for c in modalities.knocked(found, group, place) if " all content removed" in c.label)
        for place, group in modalities.knocked_cells(scale)
    ]
    plain, true = _plain(scale), cells_of(scale, built_in(scale))
    moved_lists = Contrast(
        f"content of {MISMATCHED:.0%} of the items exchanged at inference against kept",
        float(np.mean([found[c].recall.mean() for c in plain])),
        crossed(np.stack([found[c].arrays["recall mismatched"] - found[c].recall for c in plain])),
        inference=True,
    )
    stays = figure_of(found, plain, "overlap mismatched")[0]
    trained = [
        contrast(
            found, f"trained with {share:.0%} of the content mismatched against none", _shuffled(scale, share), true
        )
        for share in SHUFFLED
    ]
    dropout = contrast(
        found, "modality dropout against none", modalities.useless(scale, None, "modality dropout"),
        modalities.useless(scale, None, "as it is"),
    )  # fmt: skip
    plain_graph = cells_of(scale, built_in(scale), LIGHTGCN)
    wrong = contrast(
        found, "graphs of wrong items, tables of the right ones, against LightGCN",
        _shuffled(scale, 1.0, "graphs"), plain_graph,
    )  # fmt: skip
    both = contrast(found, "graphs and features of wrong items against LightGCN", _shuffled(scale, 1.0), plain_graph)
    parts = [
        contrast(found, f"{part} of wrong items alone against none", _shuffled(scale, 1.0, part), true)
        for part in PARTS
    ]
    open_, cosine = figure_of(found, plain, "open image")[0], figure_of(found, plain, "cosine image")[0]

    def lines() -> list[list[str]]:
        return [
            [
                "removing all content at inference costs little",
                little(removed),
                "; ".join(f"{c.label.partition(':')[0]}: {c.interval}" for c in removed)
                + f"; little: less than {PAPER_GAIN:.1%}",
            ],
            [
                "the image gate is saturated at 1",
                CONFIRMED if open_ >= SATURATED else REFUTED,
                f"{open_:.1%} of the values of its preference gate are above {OPEN}; saturated: {SATURATED:.0%}",
            ],
            [
                "the image table hardly moves",
                CONFIRMED if cosine >= HARDLY else REFUTED,
                f"mean cosine of trained with raw features {cosine:.4f}; hardly moved: at least {HARDLY}",
            ],
            [
                f"mismatched content of {MISMATCHED:.0%} of the items leaves lists the same at inference",
                same(moved_lists, stays),
                f"{stays:.0%} of the lists' items stay; {moved_lists.interval}; the same: {UNMOVED:.0%} and no "
                "difference shown",
            ],
            [
                "mismatched content in training costs nothing",
                REFUTED if any(c.shown for c in trained) else OPEN_,
                "; ".join(f"{share:.0%}: {c.interval}" for share, c in zip(SHUFFLED, trained, strict=True))
                + f"; {MISMATCHED:.0%} itself is not tested here",
            ],
            [f"modality dropout gains {DROPOUT_GAIN:.1%}", gains(dropout, DROPOUT_GAIN), dropout.interval],
            [
                "graphs of wrong items are worse than LightGCN",
                CONFIRMED if wrong.worse else REFUTED if wrong.better else OPEN_,
                wrong.interval,
            ],
        ]

    def answer() -> Answer:
        table = Table("", ["reported", "here", "numbers"], lines())
        told = {verdict: [row[0] for row in table.rows if row[1] == verdict] for verdict in (CONFIRMED, REFUTED, OPEN_)}
        verdict = "; ".join(f"{len(names)} {verdict}" for verdict, names in told.items())
        brief = " ".join(f"{verdict.capitalize()}: {'; '.join(names)}." for verdict, names in told.items() if names)
        text = (
            "Reported elsewhere on other data, of which images are photographs; here all are of the built-in data, but "
            "for removed content. The image gate and table are those of the built-in image features."
        )
        head = [dropout, wrong]
        return Answer(verdict, brief, NO_CLAIM, head, text, [*removed, moved_lists, *trained, both, *parts], table)

    return Outcome(answer, [], [*removed, moved_lists, *trained, dropout, wrong, both, *parts])


STUDY = Study("claims", "Do findings that others report hold here?", cells, conclude)
