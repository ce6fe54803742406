"""What attention and preference gates do: by user segment, by temperature, and whether they collapse; the filters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from smore_ext.experiments.audit import COLLAPSED, UNIFORM
from smore_ext.experiments.cells import Cell, Data, Record
from smore_ext.experiments.charts import Panel
from smore_ext.experiments.significance import LEVEL, crossed
from smore_ext.experiments.studies.common import N, built_in, cells_of, sample
from smore_ext.experiments.studies.smore_probes import TEMPERATURES, preference_gates, quartiles
from smore_ext.experiments.studies.smore_probes import attention as probe
from smore_ext.experiments.study import Answer, Contrast, Found, Outcome, Scale, Study, Table, interval
from smore_ext.experiments.verdicts import NO_CLAIM, at_most, largest, listed

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
    segments: dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
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
            segments |= {
                f"{what} by {name}, {place}": (values, part)
                for what, values in (("entropy", entropy), ("preference gate", gate))
            }
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
                log=True, n="\n".join(sample(scale, data) for data in places(scale).values()),
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

    gaps = {name: gap(*segment, of=len(segments)) for name, segment in segments.items()}

    def answer() -> Answer:
        entropies = " and ".join(f"{e:.2f} ({place})" for place, (_, e, _) in verdicts.items())
        spreads = " and ".join(f"{d:.2f} ({place})" for place, (_, _, d) in verdicts.items())
        told = listed(list(dict.fromkeys(v for v, _, _ in verdicts.values())))
        alive = {v == "diverse" for v, _, _ in verdicts.values()}
        differ = [f"{name} {low:+.3f} to {high:+.3f}" for name, (_, low, high) in gaps.items() if low * high > 0]
        alike = [name for name, (_, low, high) in gaps.items() if low * high <= 0]
        moved_ = [c for c in contrasts if c.shown]
        scaled = f"{len(moved_)} of {len(contrasts)} temperatures change recall"
        if not moved_:
            scaled = f"no temperature from {TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g} times that of training is shown "
            scaled += f"to change recall by more than {at_most(contrasts)}"
        verdict = "yes" if alive == {True} else "no" if alive == {False} else "mixed"
        brief = (
            f"Attention is {told}: entropy {entropies}, where 1 is uniform and 0 one dimension. Last quarter of the "
            f"users less first: {'; '.join(differ) or 'no difference shown'}. Scaled at inference: {scaled}."
        )
        text = (
            f"Uniform is a relative entropy of at least {UNIFORM}, collapsed at most {COLLAPSED}; users are alike "
            f"where the mean total variation distance from the mean attention is below {ALIKE} (1: nothing in common); "
            f"it is {spreads}. Quarters are compared "
            f"by 95 % intervals over users, corrected for {len(gaps)} comparisons"
            + (f"; no difference is shown in {listed(alike)}." if alike else ".")
        )
        return Answer(verdict, brief, NO_CLAIM, [largest(contrasts)], text, contrasts)

    return Outcome(
        answer, [], contrasts, panels,
        [Table("By user segment", ["data", "segment", "users", "entropy of attention", "preference gate"], rows)],
    )  # fmt: skip


def gap(values: NDArray[np.float64], part: NDArray[np.int64], of: int) -> tuple[float, float, float]:
    """The mean of the last quarter less that of the first, with its interval over users as one of `of` comparisons."""
    first, last = values[part == 0], values[part == part.max()]
    mean = float(last.mean() - first.mean())
    error = math.sqrt(sum(x.var(ddof=1) / len(x) for x in (first, last)))
    reach = NormalDist().inv_cdf(1 - LEVEL / (2 * of)) * error
    return mean, mean - reach, mean + reach


def _recall(record: Record, name: str, temperature: float) -> np.ndarray:
    return record.recall if temperature == 1.0 else record.arrays[f"{name} {temperature:g}"]


STUDY = Study("attention", "Are attention and gates alive, and for whom?", cells, conclude)
