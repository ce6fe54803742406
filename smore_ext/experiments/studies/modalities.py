"""One to six modalities, each knocked out, items without features, and modalities that say nothing: what repairs it?"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from smore_ext.experiments.cells import Cell, Data
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.significance import crossed
from smore_ext.experiments.studies.common import LIGHTGCN, MODALITIES, SMORE, N, built_in, cells_of, sample, variant
from smore_ext.experiments.studies.smore_probes import gates_open, knocked_out
from smore_ext.experiments.study import (
    NOT_SHOWN,
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
from smore_ext.experiments.verdicts import at_most, listed, moved, of_paper, word

NAMES = ("audio", "image", "speech", "tags", "text", "video")
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
FILLED = ("zero", "mean", "neighbours")
USELESS: dict[str, dict[str, Any]] = {"random": {"kind": "random"}, "permuted": {"kind": "shuffled", "share": 1.0}}
REPAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "as it is": (SMORE, {}),
    "gate that can close": (variant("ClosableGates"), {}),
    "modality dropout": (variant("ModalityDropout"), {}),
    "learned graph weight": (variant("LearnedGraphs"), {}),
    "cl_weight 0": (SMORE, {"cl_weight": 0.0}),
}


def _many(scale: Scale, number: int) -> list[Cell]:
    data = built_in(scale, modalities=dict.fromkeys(NAMES[:number], 96), noise=2.0)
    return cells_of(scale, data, probes=[knocked_out] if number == 2 else [])


def _kept(scale: Scale, folder: str, names: tuple[str, ...], every: tuple[str, ...]) -> list[Cell]:
    data = Data(folder)
    return cells_of(scale, data if names == every else data.changed("kept", only=list(names)), probes=[knocked_out])


def _missing(scale: Scale, share: float, filled: str) -> list[Cell]:
    data = built_in(scale)
    return cells_of(scale, data.changed("missing", share=share, filled=filled) if share else data)


def useless(scale: Scale, kind: str | None, repair: str) -> list[Cell]:
    """With a third modality that says nothing; None: without it."""
    model, settings = REPAIRS[repair]
    data = built_in(scale)
    if kind:
        change = dict(USELESS[kind])
        data = data.changed(change.pop("kind"), only=["text"], name="useless", **change)
    return cells_of(scale, data, model, [gates_open], **settings)


def misled(scale: Scale, repair: str) -> list[Cell]:
    """With the content of other items in all modalities."""
    model, settings = REPAIRS[repair]
    return cells_of(scale, built_in(scale).changed("shuffled", share=1.0), model, **settings)


def _best_alone(found: Found, groups: dict[str, list[Cell]]) -> str:
    """The modality whose runs are best on validation."""
    return max(groups, key=lambda m: float(np.mean([max(found[cell].validation) for cell in groups[m]])))


def _files(scale: Scale) -> dict[str, tuple[str, ...]]:
    return {folder: MODALITIES[folder] for folder in scale.folders}


def _groups(every: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [group for number in (1, 2, 3) for group in combinations(every, number)]


def cells(scale: Scale) -> Iterable[Cell]:
    for number in scale.some((1, 2, 3, 4, 5, 6)):
        yield from _many(scale, number)
    yield from _many(scale, 2)
    for folder, every in _files(scale).items():
        for group in _groups(every):
            yield from _kept(scale, folder, group, every)
        yield from cells_of(scale, Data(folder), LIGHTGCN)
    for filled in FILLED:
        for share in scale.some(SHARES):
            yield from _missing(scale, share, filled)
    yield from _missing(scale, 0.0, "zero")
    for repair in REPAIRS:
        for kind in (None, *USELESS):
            yield from useless(scale, kind, repair)
        yield from misled(scale, repair)
    yield from cells_of(scale, built_in(scale), LIGHTGCN)


def conclude(found: Found, scale: Scale) -> Outcome:
    numbers = scale.some((1, 2, 3, 4, 5, 6))
    shares, whole = scale.some(SHARES), _missing(scale, 0.0, "zero")
    plain = cells_of(scale, built_in(scale), LIGHTGCN)
    contrasts = [
        contrast(found, f"{n} modalities against {numbers[0]}", _many(scale, n), _many(scale, numbers[0]))
        for n in numbers[1:]
    ]
    removed = [c for place, group in knocked_cells(scale) for c in knocked(found, group, place)]
    gaps = [
        contrast(
            found, f"{share:.0%} of features missing ({filled}) against none", _missing(scale, share, filled), whole
        )
        for filled in FILLED
        for share in shares
    ]
    fills = [
        pooled(
            found, f"missing features as {one} against {other}, mean of {len(shares)} shares",
            [(_missing(scale, share, one), _missing(scale, share, other)) for share in shares],
        )
        for one, other in combinations(reversed(FILLED), 2)
    ] + [
        contrast(
            found, f"missing features as {one} against {other}, {shares[-1]:.0%} missing",
            _missing(scale, shares[-1], one), _missing(scale, shares[-1], other),
        )
        for one, other in combinations(reversed(FILLED), 2)
    ]  # fmt: skip
    harms = {
        (kind, repair): contrast(
            found, f"a {kind} third modality against none, {repair}",
            useless(scale, kind, repair), useless(scale, None, repair),
        )
        for kind in USELESS
        for repair in REPAIRS
    }  # fmt: skip
    repaired = [
        contrast(
            found, f"{repair} against as it is, with {f'a {kind}' if kind else 'no'} third modality",
            useless(scale, kind, repair), useless(scale, kind, "as it is"),
        )
        for kind in (*USELESS, None)
        for repair in list(REPAIRS)[1:]
    ]  # fmt: skip
    wrong = {
        repair: contrast(found, f"all content of other items, {repair}, against LightGCN", misled(scale, repair), plain)
        for repair in REPAIRS
    }
    mended = [
        contrast(
            found, f"{repair} against as it is, all content of other items",
            misled(scale, repair), misled(scale, "as it is"),
        )
        for repair in list(REPAIRS)[1:]
    ]  # fmt: skip
    harm = pooled(
        found, "a third modality that says nothing against none, mean of random and permuted",
        [(useless(scale, kind, "as it is"), useless(scale, None, "as it is")) for kind in USELESS],
    )  # fmt: skip
    files: list[Contrast] = []
    more_ = [contrasts.pop()]
    panels, tables = [], []
    for folder, every in _files(scale).items():
        groups, base = _groups(every), cells_of(scale, Data(folder), LIGHTGCN)
        files += [
            contrast(found, f"{folder}: {' + '.join(g)} against LightGCN", _kept(scale, folder, g, every), base)
            for g in groups
        ]
        whole_ = _kept(scale, folder, every, every)
        single = [(whole_, _kept(scale, folder, (m,), every)) for m in every]
        alone = {m: cells for m, (_, cells) in zip(every, single, strict=True)}
        best = _best_alone(found, alone)
        label = f"{folder}: all {len(every)} against the best of them alone on validation, {best}"
        more_.append(contrast(found, label, whole_, alone[best]))
        files.append(pooled(found, f"{folder}: all {len(every)} against one, mean of which", single))
        files += [
            contrast(found, f"{folder}: all against {m} alone", *pair) for m, pair in zip(every, single, strict=True)
        ]
        panels.append(
            Panel(
                "bars", f"{folder}, modalities trained on", "modalities", N,
                ["+".join(m[:2] for m in g) for g in groups],
                {SMORE: [mean_of(found, _kept(scale, folder, g, every)) for g in groups]},
                n=sample(scale, Data(folder)), marks={LIGHTGCN: mean_of(found, base)[0]},
            )
        )  # fmt: skip
        tables.append(
            Table(
                f"{folder}: recall@20 by modalities",
                ["modalities", N],
                [[LIGHTGCN, recall_text(found, base)]]
                + [[" + ".join(g), recall_text(found, _kept(scale, folder, g, every))] for g in groups],
            )
        )
    taken = [c for c in removed if " all content" in c.label]
    removed = [c for c in removed if c not in taken]
    filling = fills.pop(1)
    without = mean_of(found, plain)[0]

    def answer() -> Answer:
        helps, mends = ([c.label.partition(" against")[0] for c in of if c.better] for of in (repaired, mended))
        lost = [c for c in gaps if c.worse]
        more = [f"{moved(c)} ({place})" for c, place in zip(more_, ("built-in data", *_files(scale)), strict=True)]
        brief = (
            f"{numbers[-1]} modalities (built-in data, each tells more) in place of one, or all (lfm2k) in place of "
            f"the best alone: "
            f"{'; '.join(more)}. All content taken away or exchanged at inference: "
            + _told(taken, "worse")
            + f". A modality that says nothing: {moved(harm)}. Repairs that are shown to help: "
            f"{listed(sorted(set(helps))) or 'none'}. All content of other items, against LightGCN: "
            f"{moved(wrong['as it is'])}; what is shown to help there: "
            f"{listed(mends) or 'nothing'}. Missing features filled by neighbours in place of zeros: {moved(filling)}."
        )
        by = {filled: [c for c in lost if f"({filled})" in c.label] for filled in FILLED}
        told = ", ".join(f"{len(cases)} of {len(shares)} ({filled})" for filled, cases in by.items())
        text = (
            f"LightGCN, without features, has {without:.4f}. Features missing of {shares[0]:.0%} to {shares[-1]:.0%} "
            f"of the items are shown to cost recall at so many of the shares, by what takes their place: {told}."
        )
        said = [*contrasts, *files, *removed, *lost, *fills, *(c for c in harms.values() if c.shown)]
        return Answer(
            word(more_),
            brief,
            of_paper(more_, "modalities help together"),
            more_,
            text,
            [*said, *repaired, *wrong.values(), *mended],
        )

    panels = [
        Panel(
            "lines", "Number of modalities", "modalities, noise 2", N, numbers,
            {SMORE: [mean_of(found, _many(scale, n)) for n in numbers]}, n=sample(scale), marks={LIGHTGCN: without},
        ),
        *panels,
        Panel(
            "lines", "Items without features", "share of items without features", N, [0.0, *shares],
            {f: [mean_of(found, whole), *(mean_of(found, _missing(scale, s, f)) for s in shares)] for f in FILLED},
            n=sample(scale), marks={LIGHTGCN: without},
        ),
        Panel(
            "bars", "A third modality that says nothing", "repair", N, list(REPAIRS),
            {k or "none": [mean_of(found, useless(scale, k, r)) for r in REPAIRS] for k in (None, *USELESS)},
            n=sample(scale), marks={LIGHTGCN: without},
        ),
    ]  # fmt: skip
    tables.append(
        Table(
            "What gates of whole modalities become: 0 closed, 1 open, in alphabetical order, the useless one last",
            ["repair", "useless modality", "openness, mean over seeds"],
            [
                [r, k or "none", _open(found, useless(scale, k, r))]
                for r in ("gate that can close", "learned graph weight")
                for k in (None, *USELESS)
            ],
        )
    )
    others = [*contrasts, *removed, *files, *gaps, *fills, *harms.values(), *repaired, *wrong.values(), *mended]
    return Outcome(answer, [*more_, *taken, harm, filling], others, panels, tables)


def _told(contrasts: list[Contrast], way: str) -> str:
    shown = [c for c in contrasts if getattr(c, way)]
    if shown:
        return (
            f"{way} in {len(shown)} of {len(contrasts)} cases, most {min(c.effect.mean / c.base for c in shown):+.1%}"
        )
    return f"{NOT_SHOWN}, at most {at_most(contrasts)}"


def knocked_cells(scale: Scale) -> list[tuple[str, list[Cell]]]:
    """By place, models of which content is taken away."""
    files = [(folder, _kept(scale, folder, every, every)) for folder, every in _files(scale).items()]
    return [("built-in data", _many(scale, 2)), *files]


def knocked(found: Found, cells: list[Cell], place: str) -> list[Contrast]:
    """Content of each modality and of all of them removed, and exchanged, in trained models, against as they were."""
    out = []
    base = float(np.mean([found[c].recall.mean() for c in cells]))
    arrays = [name for name in found[cells[0]].arrays if name.startswith("recall ")]
    for change in ("removed", "exchanged"):
        names = [name.removeprefix(f"recall {change} ") for name in arrays if name.startswith(f"recall {change} ")]
        for m in names:
            lost = np.stack([found[c].arrays[f"recall {change} {m}"] - found[c].recall for c in cells])
            of = "all" if m == "all" or len(names) == 1 else m
            label = f"{place}: {of} content {change} at inference against kept"
            out.append(Contrast(label, base, crossed(lost), inference=True))
    return out


def _open(found: Found, cells: list[Cell]) -> str:
    return ", ".join(f"{v:.2f}" for v in np.mean([found[c].arrays["open"] for c in cells], axis=0))


STUDY = Study("modalities", "How many modalities help, and what do missing and useless ones do?", cells, conclude)
