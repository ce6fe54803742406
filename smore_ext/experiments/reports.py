"""A comparison as files: CSV, JSON, Markdown, and a plot where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from smore_ext.evaluation.protocol import MASKED
from smore_ext.experiments.comparison import Comparison, Row
from smore_ext.experiments.tables import csv_of, markdown_of
from smore_ext.runs.records import write_json
from smore_ext.training.files import replacing, write_text

STEM = "comparison"
_SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def write_reports(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the files into `folder` and returns them; the plot is left out where matplotlib is not installed."""
    files = [folder / f"{STEM}.{ending}" for ending in ("json", "csv", "md")]
    write_json(files[0], asdict(comparison))
    write_text(files[1], csv_text(comparison))
    write_text(files[2], markdown(comparison))
    try:
        plot(comparison, folder / f"{STEM}.svg")
    except ImportError:
        return files
    return [*files, folder / f"{STEM}.svg"]


def shown_metrics(comparison: Comparison) -> list[str]:
    """The metrics of the short table: the usual ones that were reported, and the one that selects."""
    names = comparison.rows[0].test
    return list(dict.fromkeys([*(name for name in _SHOWN if name in names), comparison.metric]))


def csv_text(comparison: Comparison) -> str:
    """One line a model, all metrics, numbers unrounded."""
    metrics = list(comparison.rows[0].test)
    ends = ["difference", "low", "high", "p", "p_corrected", "seconds_training", "peak_bytes"]
    rows = []
    for row in comparison.rows:
        values = [row.test[m][part] for m in metrics for part in ("mean", "std")]
        compared = [*(row.difference or (None,) * 4), row.p_corrected]
        rows.append([row.model, " ".join(map(str, row.seeds)), *values, *compared, row.seconds, row.memory])
    return csv_of(["model", "seeds", *(f"{m} {part}" for m in metrics for part in ("mean", "std")), *ends], rows)


def table(comparison: Comparison, brief: bool = False) -> list[list[str]]:
    """The short table as texts, head first; `brief`: for 80 columns, with one metric and without intervals."""
    metrics = [comparison.metric] if brief else shown_metrics(comparison)
    against = "against" if brief else f"{comparison.metric} against"
    head = ["model", "runs", *metrics, f"{against} {comparison.rows[0].model}", "p (Holm)", "training, s", "peak, MB"]
    return [head, *([row.model, str(len(row.seeds)), *_numbers(row, metrics, brief)] for row in comparison.rows)]


def _numbers(row: Row, metrics: Sequence[str], brief: bool) -> list[str]:
    cells = []
    for name in metrics:
        mean, std = row.test[name]["mean"], row.test[name]["std"]
        cells.append(f"{mean:.4f}" + (f" ±{std:.4f}" if std is not None else ""))
    d = row.difference
    against = "" if d is None else f"{d.mean:+.4f}" + ("" if brief else f" ({d.low:+.4f} to {d.high:+.4f})")
    p = "" if row.p_corrected is None else f"{row.p_corrected:.4f}"
    return [*cells, against, p, f"{row.seconds:.1f}", "" if row.memory is None else f"{row.memory / 1e6:,.0f}"]


def notes(comparison: Comparison) -> list[str]:
    """What the numbers are of, one sentence a line."""
    data, masked = comparison.dataset, MASKED[comparison.protocol]
    widths = ", ".join(f"{name} {shape[1]}" for name, shape in data["features"].items()) or "none"
    told = [
        f"Data set {data['name']}: {data['n_users']:,} users, {data['n_items']:,} items, features {widths}.",
        f"Test metrics of the best epoch by {comparison.metric} on validation; "
        f"protocol {comparison.protocol} ({masked}).",
        "Mean and sample standard deviation over runs; a closed form has one run.",
        f"Differences: paired bootstrap over {comparison.users:,} users, of their means over runs, with 95 % interval; "
        f"p-values corrected by Holm for the number of comparisons, {len(comparison.rows) - 1}.",
    ]
    return told + [f"Left out: {name}: {why}." for name, why in comparison.failed.items()]


def markdown(comparison: Comparison) -> str:
    head, *rows = table(comparison)
    lines = [f"# Models on {comparison.dataset['name']}", "", *(f"- {note}" for note in notes(comparison)), ""]
    lines += [markdown_of(head, rows, numbers=True), "", "Settings:", ""]
    lines += [f"- {row.model}: {', '.join(('defaults', *row.settings_from))}" for row in comparison.rows]
    return "\n".join(lines) + "\n"


def plot(comparison: Comparison, file: Path) -> None:
    """Bars of the selecting metric on test with deviations over runs, best on top. `ImportError` without matplotlib."""
    import matplotlib

    matplotlib.use("svg")  # no display needed
    from matplotlib import pyplot

    def of(row: Row, part: str) -> float:
        return row.test[comparison.metric][part] or 0.0

    rows = sorted(comparison.rows, key=lambda row: of(row, "mean"))
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.35 * len(rows)), layout="constrained")
    means, names = [of(row, "mean") for row in rows], [row.model for row in rows]
    bars = axes.barh(names, means, xerr=[of(row, "std") for row in rows], color="0.7", ecolor="0.2", capsize=2)
    axes.bar_label(bars, [f"{mean:.4f}" for mean in means], padding=6)
    axes.margins(x=0.15)
    axes.set_xlabel(f"test {comparison.metric}, {comparison.dataset['name']}, protocol {comparison.protocol}")
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})
    pyplot.close(figure)
