"""Draws docs/images/ratios.png from committed results, and prints the table of docs/speed.md.

python -m benchmarks.plot_ratios            the plot (needs matplotlib)
python -m benchmarks.plot_ratios --table    the table, as markdown

A line is one op against one peer. Its ratio is time(peer) / time(ours), above 1 where ours is faster; over its cases
the plot shows the smallest, the geometric mean and the largest. The floor is what the machine's measured rates allow,
in units of our time. Where ours stays below it in a case it bounds nothing (the rate of gathers that it takes is too
low there) and is left out.
"""

from __future__ import annotations

import json
import sys
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "docs" / "images" / "ratios.png"
RESULTS = {
    "AMD EPYC (Zen 4)": "cpu-2026-11-25",
    "Intel Xeon": "cpu-intel-2026-11-25",
    "NVIDIA H200": "gpu-h200-2026-11-26",
}
GPU_PREFIX = "CUDA "  # of the rows of cases on a GPU

LEFT, RIGHT = 0.04, 45  # of the time axis
OURS, PEER = "#222222", "#1f5fa8"
FLOOR = {"color": "#c8501e", "marker": "|", "markersize": 11, "markeredgewidth": 2, "linewidth": 0}
FLOOR_OUTSIDE = {"color": "#c8501e", "marker": "<", "markersize": 7, "linewidth": 0}


class Line(NamedTuple):
    """An op against a peer: the row's name in the results, without a GPU's prefix, size or data set."""

    row: str
    peer: str
    label: str
    shown: str  # what the plot calls the peer; "" leaves the line out of it


F, FB = "forward", "forward + backward"
LINES = (
    Line(f"spectrum_fusion, {F}", "torch.fft", "`spectrum_fusion`, f", ""),
    Line(f"spectrum_fusion, {FB}", "torch.fft", "`spectrum_fusion`, fb", "torch.fft"),
    Line(f"spectral_filter, {F}", "torch.fft", "`spectral_filter`, f", "torch.fft"),
    Line(f"spectral_filter, {FB}", "torch.fft", "`spectral_filter`, fb", ""),
    Line(f"spmm, {F}", "torch COO", "`spmm`, f", ""),
    Line(f"spmm, {F}", "torch CSR", "`spmm`, f", "torch CSR"),
    Line(f"spmm, {F}", "torch_sparse", "`spmm`, f", ""),
    Line(f"spmm, {FB}", "torch COO", "`spmm`, fb", ""),
    Line(f"spmm, {FB}", "torch CSR", "`spmm`, fb", "torch CSR"),
    Line(f"spmm, {FB}", "torch CSR, stored transpose", "`spmm`, fb", ""),
    Line(f"propagate, {FB}", "torch COO", "`propagate`, fb", ""),
    Line(f"propagate, {FB}", "torch CSR", "`propagate`, fb", "torch CSR"),
    Line(f"propagate in bfloat16, {FB}", "own float32", "`propagate`, rows in bfloat16, fb", ""),
    Line("knn", "faiss", "`knn`", "faiss"),
    Line("knn", "torch mm + topk", "`knn`", "mm + topk"),
    Line("masked_topk", "torch matmul + mask + topk", "`masked_topk`", "matmul, mask, topk"),
    Line("sample_negatives", "Python loop", "`sample_negatives`", ""),
    Line("sample_negatives", "vectorised torch", "`sample_negatives`", "vectorised torch"),
    Line(f"info_nce, {FB}", "eager torch", "`info_nce`, fb", "eager torch"),
    Line(f"bpr_loss, {FB}", "eager torch", "`bpr_loss` with gathers, fb", "eager torch"),
    Line("feature table step", "fused Adam", "feature table and Adam", "fused Adam"),
    Line("feature table step", "default Adam", "feature table and Adam", ""),
    Line("training step", "published", "SMORE training step", "published structure"),
    Line("training step", "csr-fused", "SMORE training step", "CSR, fused Adam"),
    Line("training step", "compiled, fused Adam", "SMORE training step", "torch.compile, fused Adam"),
)


class Range(NamedTuple):
    least: float
    mean: float
    most: float
    floor: float | None  # over our time; None where it bounds nothing


def mean(values: list[float]) -> float:
    """Geometric."""
    return prod(values) ** (1 / len(values))


def load(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def belongs(case: dict[str, Any], line: Line) -> bool:
    """Whether a case is one of the line's: on a GPU, rows are split by size or data set."""
    row = case["row"].removeprefix(GPU_PREFIX)
    if row.startswith("training step, "):
        row = "training step"
    return row.replace(" large,", ",").replace(" small,", ",") == line.row and line.peer in case["peers"]


def measured(results: dict[str, Any], line: Line) -> Range | None:
    """Ratios of a line in one file of results; None where nothing was measured."""
    cases = [case for case in results["cases"] if belongs(case, line)]
    if not cases:
        return None
    ratios = [case["peers"][line.peer]["ratio"] for case in cases]
    floors = [1 / case["floor"]["times"] for case in cases]
    return Range(min(ratios), mean(ratios), max(ratios), mean(floors) if max(floors) <= 1 else None)


def span(found: Range | None) -> str:
    """ "2.0-3.3x": the smallest and the largest ratio."""
    if found is None:
        return ""
    least, most = (f"{value:.0f}" if value >= 100 else f"{value:.1f}" for value in (found.least, found.most))
    return f"{least}x" if least == most else f"{least}-{most}x"


def table() -> list[str]:
    """Every line against every machine, as markdown."""
    every = {machine: load(name) for machine, name in RESULTS.items()}
    rows = [f"| op | peer | {' | '.join(every)} |", "|" + "---|" * (2 + len(every))]
    for line in LINES:
        spans = [span(measured(results, line)) for results in every.values()]
        rows.append(f"| {line.label} | {line.peer} | {' | '.join(spans)} |")
    return rows


def title(machine: str, results: dict[str, Any]) -> str:
    torch = results["versions"]["torch"].partition("+")[0]
    on_gpu = "device" in results
    return f"{machine}\n{results['date']}, torch {torch}, " + ("1 GPU" if on_gpu else f"{results['threads']} threads")


def draw_line(panel: Any, place: int, found: Range | None) -> None:
    """Peer and floor of one line at height `place`."""
    if found is None:
        panel.text(1.15, place, "not measured", va="center", fontsize=8.5, color="#999999")
        return
    panel.plot([found.least, found.most], [place, place], color=PEER, linewidth=5, alpha=0.35, solid_capstyle="butt")
    panel.plot(found.mean, place, "o", color=PEER, markersize=6)
    panel.text(max(found.most, found.mean * 1.1) * 1.15, place, f"{found.mean:.1f}x", va="center", color=PEER)
    if found.floor is None:
        return
    if found.floor < LEFT * 1.3:
        panel.plot(LEFT * 1.3, place, **FLOOR_OUTSIDE)
    else:
        panel.plot(found.floor, place, **FLOOR)


def draw_panel(panel: Any, heading: str, results: dict[str, Any], lines: list[Line]) -> None:
    panel.set_xscale("log")
    panel.set_xlim(LEFT, RIGHT)
    panel.set_xticks([0.1, 0.3, 1, 3, 10, 30], ["0.1", "0.3", "1", "3", "10", "30"])
    panel.minorticks_off()
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#dddddd", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.axvline(1, color=OURS, linewidth=1.4)
    panel.set_title(title(heading, results), fontsize=11)
    for place, line in enumerate(lines):
        if place % 2 == 0:
            panel.axhspan(place - 0.5, place + 0.5, color="#f4f4f4", zorder=0)
        draw_line(panel, place, measured(results, line))


def draw(path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")  # no display needed
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    lines = [line for line in LINES if line.shown]
    every = {machine: load(name) for machine, name in RESULTS.items()}
    figure, panels = pyplot.subplots(1, len(every), figsize=(12, 6), sharey=True, layout="constrained")
    for panel, (machine, results) in zip(panels, every.items(), strict=True):
        draw_panel(panel, machine, results, lines)
    labels = [f"{line.label.replace('`', '')}  |  {line.shown}" for line in lines]
    panels[0].set_yticks(range(len(lines)), labels)
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    figure.supxlabel(
        "time, ours = 1 (logarithmic): peers right of 1 take longer. f: forward, fb: forward + backward", fontsize=10
    )
    peer = {"color": PEER, "marker": "o", "linewidth": 5, "alpha": 0.6}
    handles = [
        pyplot.Line2D([], [], color=OURS, linewidth=1.4, label="smore_ext"),
        pyplot.Line2D([], [], **peer, label="peer: geometric mean and range over the cases"),
        pyplot.Line2D([], [], **FLOOR, label="floor: what the machine's measured rates allow"),
        pyplot.Line2D([], [], **FLOOR_OUTSIDE, label="floor, further left"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        print("\n".join(table()))
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        draw(IMAGE)
