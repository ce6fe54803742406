"""Worse features in steps: how much does SMORE compensate, against VBPR, FREEDOM, and LightGCN without any?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from smore_ext.experiments.cells import Cell, Data
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.studies.common import (
    FREEDOM,
    LIGHTGCN,
    POPULARITY,
    SMORE,
    VBPR,
    N,
    built_in,
    cells_of,
    sample,
)
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
from smore_ext.experiments.verdicts import listed, moved, of_paper, word

MODELS = (SMORE, VBPR, FREEDOM)
WORSE: dict[str, tuple[dict[str, Any], ...]] = {  # from a little to much
    "rank": ({"to": 16}, {"to": 4}, {"to": 1}),
    "bits": ({"to": 4}, {"to": 1}),
    "shuffled": ({"share": 0.25}, {"share": 0.5}, {"share": 1.0}),
    "noise": ({"strength": 1.0}, {"strength": 4.0}),
}


def _data(scale: Scale, kind: str | None, how: dict[str, Any]) -> Data:
    data = built_in(scale)
    return data.changed(kind, **how) if kind else data


def _cells(scale: Scale, model: str, kind: str | None = None, **how: Any) -> list[Cell]:
    return cells_of(scale, _data(scale, kind, how), model)


def _frozen(scale: Scale, kind: str | None = None, **how: Any) -> list[Cell]:
    return cells_of(scale, _data(scale, kind, how), SMORE, freeze_features=True)


def _steps(scale: Scale) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, how) for kind, steps in WORSE.items() for how in (steps[-1:] if scale.quick else steps)]


def cells(scale: Scale) -> Iterable[Cell]:
    for model in (*MODELS, LIGHTGCN, POPULARITY):
        yield from _cells(scale, model)
    for kind, how in _steps(scale):
        for model in MODELS:
            yield from _cells(scale, model, kind, **how)
    yield from _frozen(scale)
    yield from _frozen(scale, "noise", strength=4.0)


def label(kind: str, how: dict[str, Any]) -> str:
    (value,) = how.values()
    return {"rank": f"rank {value}", "bits": f"{value} bits", "shuffled": f"{value:.0%} shuffled"}.get(
        kind, f"noise {value:g}"
    )


def conclude(found: Found, scale: Scale) -> Outcome:
    steps = _steps(scale)
    falls = {
        (model, label(kind, how)): contrast(
            found, f"{model}, {label(kind, how)} against true features",
            _cells(scale, model, kind, **how), _cells(scale, model),
        )
        for model in MODELS
        for kind, how in steps
    }  # fmt: skip
    plain = _cells(scale, LIGHTGCN)
    against = [
        contrast(found, f"{SMORE}, {label(kind, how)} against LightGCN", _cells(scale, SMORE, kind, **how), plain)
        for kind, how in steps
        if how in (WORSE[kind][-1],)
    ]
    frozen = [
        contrast(found, "frozen tables against trained ones", _frozen(scale), _cells(scale, SMORE)),
        contrast(
            found, "frozen tables against trained ones, noise 4",
            _frozen(scale, "noise", strength=4.0), _cells(scale, SMORE, "noise", strength=4.0),
        ),
    ]  # fmt: skip

    def loss(model: str, kind: str, how: dict[str, Any]) -> tuple[list[Cell], list[Cell]]:
        return _cells(scale, model, kind, **how), _cells(scale, model)

    harsher = {
        other: [
            pooled(
                found, f"{SMORE}'s change with {label(kind, WORSE[kind][-1])} less {other}'s",
                [loss(SMORE, kind, WORSE[kind][-1])], [loss(other, kind, WORSE[kind][-1])],
            )
            for kind in WORSE
        ]
        for other in MODELS[1:]
    }  # fmt: skip
    versus = [c for group in harsher.values() for c in group]
    worst = [(kind, how[-1]) for kind, how in WORSE.items()]
    fall = pooled(found, f"{SMORE}, the worst of each kind against true features", [loss(SMORE, *w) for w in worst])
    beyond = {
        other: pooled(
            found, f"{SMORE}'s change with the worst of each kind less {other}'s",
            [loss(SMORE, *w) for w in worst], [loss(other, *w) for w in worst],
        )
        for other in MODELS[1:]
    }  # fmt: skip
    floor = pooled(
        found, f"{SMORE}, the worst of each kind against LightGCN", [(loss(SMORE, *w)[0], plain) for w in worst]
    )
    head = [fall, *beyond.values(), floor]

    def answer() -> Answer:
        lost = {m: [c for (model, _), c in falls.items() if model == m and c.worse] for m in MODELS}
        most = {m: min((falls[m, label(*s)] for s in steps), key=lambda c: c.effect.mean / c.base) for m in MODELS}
        below = [c for c in against if c.worse]
        own = [c for (model, _), c in falls.items() if model == SMORE]
        kept = [label(*s) for s in steps if not falls[SMORE, label(*s)].shown]
        brief = (
            f"The worst of each of {len(WORSE)} kinds: {moved(fall)}; that change less that of "
            + "; of ".join(f"{other}: {moved(c)}" for other, c in beyond.items())
            + f"; against LightGCN, which has no features: {moved(floor)}. Shown in {len(lost[SMORE])} of {len(steps)} "
            f"degradations, not with {listed(kept) or 'none'}."
        )
        text = (
            f"With the worst of each kind, {SMORE} is below LightGCN in {len(below)} of {len(against)}. "
            f"A loss is shown in {', '.join(f'{len(lost[m])} ({m})' for m in MODELS)} of {len(steps)} degradations; "
            f"the largest: {', '.join(f'{m} {c.effect.mean:+.4f}, {moved(c)}' for m, c in most.items())}."
        )
        popular = mean_of(found, _cells(scale, POPULARITY))[0]
        lowest = min(mean_of(found, _cells(scale, VBPR, k, **h))[0] for k, h in steps)
        text += (
            f" {VBPR} is tuned for nothing here and falls to {lowest:.4f}, where popularity has {popular:.4f}: what it "
            f"loses says more of that than of features, and the paper's claim is judged by {FREEDOM} alone."
        )
        paper = of_paper([beyond[FREEDOM]], f"worse features cost it less than {FREEDOM}")
        return Answer(
            word([fall], "worse"), brief, paper, [fall, beyond[FREEDOM]], text,
            [*own, *against, *versus, *frozen],
        )  # fmt: skip

    names = ["true", *(label(*s) for s in steps)]
    return Outcome(
        answer,
        head,
        [*falls.values(), *against, *versus, *frozen],
        [
            Panel(
                "bars", "Recall by quality of the features", "features", N, names,
                {m: [mean_of(found, _cells(scale, m)), *(mean_of(found, _cells(scale, m, k, **h)) for k, h in steps)]
                 for m in MODELS},
                n=sample(scale), marks={LIGHTGCN: mean_of(found, plain)[0]},
            )
        ],
        [
            Table(
                "Recall@20", ["features", *MODELS, f"{SMORE}, frozen"],
                [["true", *(recall_text(found, _cells(scale, m)) for m in MODELS), recall_text(found, _frozen(scale))]]
                + [[label(k, h), *(recall_text(found, _cells(scale, m, k, **h)) for m in MODELS),
                    recall_text(found, _frozen(scale, k, **h)) if h == {"strength": 4.0} else ""] for k, h in steps],
            )
        ],
    )  # fmt: skip


STUDY = Study("feature-quality", "How much do worse features cost?", cells, conclude)
