"""What attention and preference gates do: by user segment, by temperature, and whether they collapse; the filters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from smore_ext.experiments.audit import COLLAPSED, UNIFORM
from smore_ext.experiments.cells import Cell, Data, Record
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.significance import crossed
from smore_ext.experiments.studies.common import N, built_in, cells_of, sample
from smore_ext.experiments.studies.smore_probes import TEMPERATURES, preference_gates, quartiles
from smore_ext.experiments.studies.smore_probes import attention as probe
from smore_ext.experiments.study import Answer, Contrast, Found, Outcome, Scale, Study, Table, interval

SEGMENTS = ("activity", "taste purity")
SCALED = {"attention": "temperature", "preference gates": "gate temperature"}  # names of their arrays
PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 99)
ALIKE = 0.01  # mean total variation distance of users' attention from its mean below which all users have the same


def _cells(scale: Scale, data: Data) -> list[Cell]:
    return cells_of(scale, data, probes=[probe, preference_gates])


def _pure(scale: Scale) -> Data:
    return built_in(scale, taste_purity=1.0)


def places(scale: Scale) -> dict[str, Data]:
    return {"built-in": _pure(scale), **{folder: Data(folder) for folder in scale.folders}}


def cells(scale: Scale) -> Iterable[Cell]:
    for data in places(scale).values():
        yield from _cells(scale, data)


def collapse(entropy: float, variation: float) -> str:
    """What the thresholds say of attention of this mean relative entropy and variation between users."""
    if entropy >= UNIFORM:
        return "uniform"
    if entropy <= COLLAPSED:
        return "one dimension"
    return "the same for all users" if variation < ALIKE else "diverse"


def conclude(found: Found, scale: Scale) -> Outcome:
    contrasts: list[Contrast] = []
    panels, rows, verdicts, spread = [], [], {}, {}
    for place, data in places(scale).items():
        cells_ = _cells(scale, data)
        records = [found[cell] for cell in cells_]
        entropy = np.mean([r.arrays["entropy"] for r in records], axis=0)
        gate = np.mean([r.arrays["preference"] for r in records], axis=0)
        variation = float(np.mean([r.figures["attention_variation"] for r in records]))
        spread[place] = [float(v) for v in np.percentile(entropy, PERCENTS)]
        verdicts[place] = (collapse(float(entropy.mean()), variation), float(entropy.mean()), variation)
        for name in [name for name in SEGMENTS if name in records[0].arrays]:
            part = quartiles(records[0].arrays[name])
            for quarter in range(4):
                chosen = part == quarter
                rows.append(
                    [place, f"{name}, quartile {quarter + 1}", str(int(chosen.sum())), f"{entropy[chosen].mean():.4f}",
                     f"{gate[chosen].mean():.3f}"]
                )  # fmt: skip
        base = float(np.mean([r.recall.mean() for r in records]))
        for what, name in SCALED.items():
            for t in (t for t in TEMPERATURES if t != 1.0):
                lost = np.stack([r.arrays[f"{name} {t:g}"] - r.recall for r in records])
                label = f"{place}: temperature of {what} times {t:g} against 1"
                contrasts.append(Contrast(label, base, crossed(lost), inference=True))
    panels.append(
        Panel(
            "lines", "Entropy of attention over users", "percentile of users", "entropy / largest", PERCENTS, spread,
            n=f"mean over {len(scale.seeds)} seeds",
        )
    )  # fmt: skip
    first = [found[cell] for cell in _cells(scale, _pure(scale))]
    filters = {name: value for name, value in first[0].arrays.items() if name.startswith("filter ")}
    for what, name in SCALED.items():
        panels.append(
            Panel(
                "lines", f"Temperature of {what} at inference", "temperature, times that of training", N, TEMPERATURES,
                {
                    place: [
                        interval(np.stack([_recall(found[c], name, t) for c in _cells(scale, data)]))
                        for t in TEMPERATURES
                    ]
                    for place, data in places(scale).items()
                },
                log=True, n=sample(scale),
            )
        )  # fmt: skip
    for number, unit in enumerate(("magnitude", "phase, rad")):
        panels.append(
            Panel(
                "lines", f"Learned filters: {unit.partition(',')[0]}", "frequency (bin)", unit,
                list(range(next(iter(filters.values())).shape[1])),
                {name.removeprefix("filter "): [float(v) for v in value[number]] for name, value in filters.items()},
                n=f"built-in data, seed {scale.seeds[0]}",
            )
        )  # fmt: skip

    def answer() -> Answer:
        told = [
            f"{place} {v} (entropy {e:.3f} of the largest, variation {d:.4f})" for place, (v, e, d) in verdicts.items()
        ]
        brief = f"Attention is {'; '.join(told)}."
        moved = [c for c in contrasts if c.shown]
        text = (
            f"Uniform is a relative entropy of at least {UNIFORM}, collapsed at most {COLLAPSED}; users are alike "
            f"where the mean total variation distance from the mean attention is below {ALIKE}. "
            f"{len(moved)} of {len(contrasts)} other temperatures are shown to change recall."
        )
        return Answer(brief, text, contrasts)

    return Outcome(
        answer, contrasts, panels,
        [Table("By user segment", ["data", "segment", "users", "entropy of attention", "preference gate"], rows)],
    )  # fmt: skip


def _recall(record: Record, name: str, temperature: float) -> np.ndarray:
    return record.recall if temperature == 1.0 else record.arrays[f"{name} {temperature:g}"]


STUDY = Study("attention", "Are attention and gates alive, and for whom?", cells, conclude)
