"""Plots of experiments: panels side by side in one PNG, with the same colours for the same things throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from smore_ext.training.files import replacing

Interval = tuple[float, float, float]  # mean, low, high

# Okabe and Ito (2008) first: told apart with any colour vision, and in grey by their lightness. Then others as far from
# those before as CIELAB has them.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B2A400", "#0000FF", "#00E100",
    "#FF00E1", "#2D0078", "#FF005A", "#69000F", "#3C4B00", "#B478FF", "#FFA587", "#3C960F", "#D20087", "#5A0F4B",
    "#C3C387", "#FF0000", "#003CE1", "#004B3C", "#00E178", "#96691E", "#B42DFF", "#0078F0", "#C3B4FF", "#5AD2D2",
)  # fmt: skip
_COLUMNS = 3  # panels side by side, so that a page of usual width shows what is written on them
FAINT = "#8C8C8C"  # differences that are not shown


class Colours:
    """The colour of a label: the same in all plots of a report, in the order in which labels come, and of no other
    label; `same` names labels that are one thing under two names."""

    def __init__(self, same: Mapping[str, str] | None = None) -> None:
        self._same, self._of = dict(same or {}), dict[str, str]()

    def __getitem__(self, label: str) -> str:
        label = self._same.get(label, label)
        if label not in self._of:
            number = len(self._of)
            if number >= len(PALETTE):
                raise ValueError(
                    f"colours: expected at most {len(PALETTE)} labels, got {label!r}; PALETTE needs another"
                )
            self._of[label] = PALETTE[number]
        return self._of[label]


def shades(number: int) -> list[str]:
    """Of series in an order, from dark to light: steps of one scale, no colours of labels."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["cividis"](0.85 * place / max(1, number - 1))) for place in range(number)]


@dataclass
class Panel:
    """Part of a plot.

    Attributes:
        kind: "lines" (x against y), "bars" (labels against y), "heat" (rows against columns) or "forest" (intervals,
            one below the other).
        x, y: what the axes show, with units.
        at: places of the lines' points, labels of the bars, or columns of the heat map.
        series: of each line or group of bars by label, or of each row of a heat map, the values at each place; a mean
            with an interval, or a number; None where there is none.
        log: whether x is logarithmic.
        n: what the values are means of: sample sizes.
        marks: lines across, by label.
        ordered: whether the series are steps of one quantity, and have shades in place of colours of their own.
    """

    kind: str
    title: str
    x: str
    y: str
    at: Sequence[Any]
    series: Mapping[str, Sequence[Interval | float | None]]
    log: bool = False
    n: str = ""
    marks: Mapping[str, float] = field(default_factory=dict)
    ordered: bool = False

    def colours(self, colours: Colours) -> list[str]:
        """Of the series."""
        return shades(len(self.series)) if self.ordered else [colours[label] for label in self.series]


def draw(panels: Sequence[Panel], file: Path, colours: Colours) -> None:
    """Writes the panels as a PNG. `ImportError` without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    forest = panels[0].kind == "forest"
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    size = (8.0, 0.9 + 0.19 * len(panels[0].at)) if forest else (4.6 * columns, 3.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(rows, columns, squeeze=False).flat
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(places, panels, strict=False):
        {"lines": _lines, "bars": _bars, "heat": _heat, "forest": _forest}[panel.kind](axes, panel, colours)
        axes.set_title(panel.title, fontsize=10, loc="left")
        axes.set_xlabel(panel.x + (f"\n{panel.n}" if panel.n else ""), fontsize=9)
        axes.tick_params(labelsize=7 if forest else 8)
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})


def _parts(values: Sequence[Interval | float | None]) -> tuple[list[int], list[float], list[list[float]]]:
    """Places with a value, the values, and how far their intervals reach down and up."""
    triples = _triples(values)
    reach = [[max(0.0, m - low) for m, low, _ in triples], [max(0.0, high - m) for m, _, high in triples]]
    return [place for place, value in enumerate(values) if value is not None], [m for m, _, _ in triples], reach


def _lines(axes: Any, panel: Panel, colours: Colours) -> None:
    for (label, values), colour in zip(panel.series.items(), panel.colours(colours), strict=True):
        places, means, reach = _parts(values)
        x = [panel.at[place] for place in places]
        axes.errorbar(x, means, yerr=reach, label=label, color=colour, marker="o", ms=3, lw=1.4, capsize=2)
    _across(axes, panel, colours)
    if panel.log:
        axes.set_xscale("log")
        axes.minorticks_off()
        near = [False, *(b / a < 1.1 for a, b in pairwise(panel.at))]  # its number would lie on that before
        axes.set_xticks(
            list(panel.at), ["" if hidden else f"{place:g}" for place, hidden in zip(panel.at, near, strict=True)]
        )
    axes.set_ylabel(panel.y, fontsize=9)
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize=7, frameon=False)


def _bars(axes: Any, panel: Panel, colours: Colours) -> None:
    width, chosen = 0.8 / max(1, len(panel.series)), panel.colours(colours)
    for number, (label, values) in enumerate(panel.series.items()):
        places, means, reach = _parts(values)
        x = [place + width * (number - (len(panel.series) - 1) / 2) for place in places]
        axes.bar(x, means, width, yerr=reach, label=label, color=chosen[number], ecolor="0.2", capsize=2)
    _across(axes, panel, colours)
    axes.set_xticks(range(len(panel.at)), [str(label) for label in panel.at], rotation=30, ha="right", fontsize=7)
    axes.set_ylabel(panel.y, fontsize=9)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    triples = [triple for values in panel.series.values() for triple in _triples(values)]
    lowest, highest = min(low for _, low, _ in triples), max(high for _, _, high in triples)
    if lowest > 0.6 * highest > 0:  # bars that differ by little: the axis says that it does not begin at 0
        axes.set_ylim(bottom=lowest - 0.5 * (highest - lowest))
        axes.set_ylabel(f"{panel.y} (axis cut)", fontsize=9)
    if len(panel.series) > 1 or panel.marks:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.25 * (high - low))  # room for the legend
        axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper left")


def _triples(values: Sequence[Interval | float | None]) -> list[Interval]:
    return [v if isinstance(v, tuple) else (v, v, v) for v in values if v is not None]


def _heat(axes: Any, panel: Panel, _: Colours) -> None:
    grid = [
        [float("nan") if v is None else v[0] if isinstance(v, tuple) else v for v in row]
        for row in panel.series.values()
    ]
    image = axes.imshow(grid, cmap="cividis", aspect="auto")
    axes.set_xticks(range(len(panel.at)), [str(label) for label in panel.at])
    axes.set_yticks(range(len(panel.series)), list(panel.series))
    axes.set_ylabel(panel.y, fontsize=9)
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            shade = image.norm(value)
            axes.text(
                column, row, f"{value:.3f}", ha="center", va="center", fontsize=6, color="w" if shade < 0.6 else "k"
            )


def _forest(axes: Any, panel: Panel, _: Colours) -> None:
    for (label, values), colour in zip(panel.series.items(), ("#000000", FAINT), strict=False):
        places, means, reach = _parts(values)
        axes.errorbar(means, places, xerr=reach, label=label, color=colour, fmt="o", ms=3, lw=1.2, capsize=2)
    axes.axvline(0, color="0.4", lw=1)
    axes.set_yticks(range(len(panel.at)), list(panel.at))
    axes.set_ylim(len(panel.at) - 0.4, -0.6)
    axes.grid(axis="x", color="0.9")
    axes.legend(fontsize=7, frameon=False, loc="best")


def _across(axes: Any, panel: Panel, colours: Colours) -> None:
    for label, value in panel.marks.items():
        axes.axhline(value, color=colours[label], ls="--", lw=1, label=label)
