"""A search as files: CSV, JSON, and a plot of each setting where matplotlib is installed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from smore_ext.experiments.search import Search, names_of
from smore_ext.experiments.tables import csv_of
from smore_ext.runs.records import write_json
from smore_ext.training.files import replacing, write_text

STEM = "search"


def write_reports(found: Search, folder: Path) -> list[Path]:
    """Writes the files into `folder` and returns them."""
    files = [folder / f"{STEM}.json", folder / f"{STEM}.csv"]
    write_json(files[0], asdict(found))
    write_text(files[1], csv_text(found))
    try:
        plot(found, folder / f"{STEM}.svg")
    except ImportError:
        return files
    return [*files, folder / f"{STEM}.svg"]


def csv_text(found: Search) -> str:
    """A line a trial, best on validation first."""
    names = names_of(found.rows)
    head = ["trial", "state", f"validation {found.metric}", "best_epoch", "seconds", *names, "why"]
    rows = []
    for row in found.rows:
        own = [row.settings.get(name) for name in names]
        rows.append([row.number, row.state, row.value, row.best_epoch, f"{row.seconds:.1f}", *own, row.why])
    return csv_of(head, rows)


def plot(found: Search, file: Path) -> None:
    """Validation by the value of each setting. `ImportError` without matplotlib."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = names_of(found.rows)
    figure = Figure(figsize=(3.6 * len(names), 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False, sharey=True)[0], names, strict=True):
        tried = [row.settings[name] for row in found.rows if name in row.settings]  # lists too, which no set holds
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried)
        order = sorted({str(value) for value in tried})
        for state, colour in (("pruned", "0.75"), ("done", "#0072B2")):
            rows = [row for row in found.rows if row.state == state and row.value is not None and name in row.settings]
            values = [row.settings[name] for row in rows]
            places = values if numeric else [order.index(str(value)) for value in values]
            axes.plot(places, [row.value for row in rows], "o", color=colour, label=state)
        if not numeric:
            axes.set_xticks(range(len(order)), order)
        numbers = [row.settings[name] for row in found.rows if isinstance(row.settings.get(name), float)]
        if numbers and min(numbers) > 0 and max(numbers) > 50 * min(numbers):
            axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(f"validation {found.metric}")
    figure.axes[0].legend(fontsize=8, frameon=False)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})
