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


def _useless(scale: Scale, kind: str | None, repair: str) -> list[Cell]:
    """With a third modality that says nothing; None: without it."""
    model, settings = REPAIRS[repair]
    data = built_in(scale)
    if kind:
        change = dict(USELESS[kind])
        data = data.changed(change.pop("kind"), only=["text"], name="useless", **change)
    return cells_of(scale, data, model, [gates_open], **settings)


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
            yield from _useless(scale, kind, repair)
    yield from cells_of(scale, built_in(scale), LIGHTGCN)


def conclude(found: Found, scale: Scale) -> Outcome:
    numbers = scale.some((1, 2, 3, 4, 5, 6))
    shares, whole = scale.some(SHARES), _missing(scale, 0.0, "zero")
    plain = cells_of(scale, built_in(scale), LIGHTGCN)
    contrasts = [
        contrast(found, f"{n} modalities against {numbers[0]}", _many(scale, n), _many(scale, numbers[0]))
        for n in numbers[1:]
    ]
    knocked = _knocked(found, _many(scale, 2), "built-in data")
    gaps = [
        contrast(
            found, f"{share:.0%} of features missing ({filled}) against none", _missing(scale, share, filled), whole
        )
        for filled in FILLED
        for share in shares
    ]
    useless = {
        (kind, repair): contrast(
            found, f"a {kind} third modality against none, {repair}",
            _useless(scale, kind, repair), _useless(scale, None, repair),
        )
        for kind in USELESS
        for repair in REPAIRS
    }  # fmt: skip
    repaired = [
        contrast(
            found, f"{repair} against as it is, with a {kind} third modality",
            _useless(scale, kind, repair), _useless(scale, kind, "as it is"),
        )
        for kind in USELESS
        for repair in list(REPAIRS)[1:]
    ]  # fmt: skip
    files: list[Contrast] = []
    panels, tables = [], []
    for folder, every in _files(scale).items():
        groups, base = _groups(every), cells_of(scale, Data(folder), LIGHTGCN)
        files += [
            contrast(found, f"{folder}: {' + '.join(g)} against LightGCN", _kept(scale, folder, g, every), base)
            for g in groups
        ]
        knocked += _knocked(found, _kept(scale, folder, every, every), folder)
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
    without = mean_of(found, plain)[0]

    def answer() -> Answer:
        harmed = [c for c in useless.values() if c.worse]
        helps = [c for c in repaired if c.better]
        gains = [c for c in contrasts if c.better]
        brief = (
            f"More modalities are better than {numbers[0]} in {len(gains)} of {len(contrasts)} cases; a trained model "
            f"is shown to lose recall without its content in {sum(c.worse for c in knocked)} of {len(knocked)}; "
            f"a useless modality does harm in {len(harmed)} of {len(useless)}; "
            f"{'no repair is shown to help' if not helps else f'{len(helps)} of {len(repaired)} repairs help'}."
        )
        lost = [c for c in gaps if c.worse]
        by = {filled: sum(f"({filled})" in c.label for c in lost) for filled in FILLED}
        told = ", ".join(f"{number} of {len(shares)} ({filled})" for filled, number in by.items())
        text = (
            f"LightGCN, without features, has {without:.4f}. Features missing of {shares[0]:.0%} to {shares[-1]:.0%} "
            f"of the items are shown to cost recall at so many of the shares, by what takes their place: {told}."
        )
        said = [*contrasts, *knocked, *(c for c in files if c.shown), *lost, *(c for c in repaired if c.shown), *harmed]
        return Answer(brief, text, said)

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
            {k or "none": [mean_of(found, _useless(scale, k, r)) for r in REPAIRS] for k in (None, *USELESS)},
            n=sample(scale), marks={LIGHTGCN: without},
        ),
    ]  # fmt: skip
    tables.append(
        Table(
            "What gates of whole modalities become: 0 closed, 1 open, in alphabetical order, the useless one last",
            ["repair", "useless modality", "openness, mean over seeds"],
            [
                [r, k or "none", _open(found, _useless(scale, k, r))]
                for r in ("gate that can close", "learned graph weight")
                for k in (None, *USELESS)
            ],
        )
    )
    return Outcome(answer, [*contrasts, *knocked, *files, *gaps, *useless.values(), *repaired], panels, tables)


def _knocked(found: Found, cells: list[Cell], place: str) -> list[Contrast]:
    """All content removed, and exchanged, in trained models, against as they were."""
    out = []
    for change in ("removed", "exchanged"):
        lost = np.stack([found[c].arrays[f"recall {change} {_all(found, c)}"] - found[c].recall for c in cells])
        base = float(np.mean([found[c].recall.mean() for c in cells]))
        out.append(
            Contrast(f"{place}: content {change} at inference against kept", base, crossed(lost), inference=True)
        )
    return out


def _all(found: Found, cell: Cell) -> str:
    names = [name.removeprefix("recall removed ") for name in found[cell].arrays if name.startswith("recall removed ")]
    return "all" if "all" in names else names[0]


def _open(found: Found, cells: list[Cell]) -> str:
    return ", ".join(f"{v:.2f}" for v in np.mean([found[c].arrays["open"] for c in cells], axis=0))


STUDY = Study("modalities", "How many modalities help, and what do missing and useless ones do?", cells, conclude)
