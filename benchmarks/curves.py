"""Cost over size, on log-log axes: python -m benchmarks.curves [STEM] (benchmarks/results/curves). Needs matplotlib.

Writes STEM.svg and STEM.json and prints the fitted slopes: 1 is linear, 2 quadratic. The fit takes the larger half of
the sizes, where fixed costs no longer count.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.inputs import SIZES, WIDTH, power_law, seen_items
from smore_ext import ops

REPEATS, SECONDS_A_POINT = 7, 2.0
KNN_WIDTH, K = 512, 10


@dataclass(frozen=True)
class Curve:
    """`prepare(n)` makes inputs of size n and returns the call to time; `expected` is the slope of the algorithm."""

    label: str
    axis: str
    sizes: tuple[int, ...]
    expected: int
    prepare: Callable[[int], Callable[[], object]]


def fusion(n: int) -> Callable[[], object]:
    xs, filters = [torch.randn(n, WIDTH) for _ in range(2)], torch.randn(3, WIDTH // 2 + 1, 2)
    return lambda: ops.spectrum_fusion(xs, [filters[0], filters[1]], filters[2])


def spmm(edges: int) -> Callable[[], object]:
    """Ten edges a node, so rows grow with edges."""
    graph = power_law(edges // 10, edges)
    x = torch.randn(graph.n_cols, WIDTH)
    return lambda: ops.spmm(graph, x)


def knn(n: int) -> Callable[[], object]:
    features = torch.randn(n, KNN_WIDTH)
    return lambda: ops.knn(features, K)


def topk(users: int, items: int) -> Callable[[], object]:
    size = SIZES["baby"]._replace(users=users, items=items, train=6 * users)
    rows, columns, seen = torch.randn(users, WIDTH), torch.randn(items, WIDTH), seen_items(size)
    return lambda: ops.masked_topk(rows, columns, 50, seen)


def sample(draws: int) -> Callable[[], object]:
    size = SIZES["baby"]
    seen, users = seen_items(size), torch.randint(size.users, (draws,))
    candidates = torch.arange(size.items)
    return lambda: ops.sample_negatives(users, seen, candidates, seed=1)


def powers(first: int, last: int) -> tuple[int, ...]:
    return tuple(2**exponent for exponent in range(first, last + 1))


CURVES = (
    Curve("spectrum_fusion", "rows N", powers(11, 18), 1, fusion),
    Curve("spmm", "edges", powers(15, 22), 1, spmm),
    Curve(f"knn, width {KNN_WIDTH}", "rows N", powers(10, 15), 2, knn),
    Curve("masked_topk, 7,050 items", "users", powers(8, 14), 1, lambda n: topk(n, SIZES["baby"].items)),
    Curve("masked_topk, 1,024 users", "items", powers(10, 17), 1, lambda n: topk(1024, n)),
    Curve("sample_negatives", "draws", powers(13, 20), 1, sample),
)


def median_seconds(run: Callable[[], object]) -> float:
    run()
    seconds: list[float] = []
    while len(seconds) < REPEATS and (len(seconds) < 2 or sum(seconds) < SECONDS_A_POINT):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


def measured(curve: Curve) -> dict[str, object]:
    seconds = [median_seconds(curve.prepare(n)) for n in curve.sizes]
    fitted = slope(curve.sizes, seconds)
    print(f"{curve.label} over {curve.axis}: slope {fitted:.2f} (expected {curve.expected})", flush=True)
    points = {"sizes": list(curve.sizes), "seconds": seconds, "slope": fitted, "expected": curve.expected}
    return {"label": curve.label, "axis": curve.axis, **points}


def draw(curves: list[dict], path: Path, pyplot) -> None:
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 7), layout="constrained")
    for axis, curve in zip(axes.flat, curves, strict=True):
        sizes, seconds = np.array(curve["sizes"]), np.array(curve["seconds"])
        ideal = seconds[-1] * (sizes / sizes[-1]) ** curve["expected"]
        axis.loglog(sizes, ideal * 1e3, "--", color="grey", label=f"slope {curve['expected']}")
        axis.loglog(sizes, seconds * 1e3, "o-", label=f"measured, slope {curve['slope']:.2f}")
        axis.set(title=curve["label"], xlabel=curve["axis"], ylabel="ms")
        axis.legend()
    figure.savefig(path)


def main(stem: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("curves.py draws with matplotlib, which is not installed: pip install matplotlib") from None
    matplotlib.use("svg")  # no display needed
    from matplotlib import pyplot

    threads = int(os.environ.get("SMORE_BENCH_THREADS", "2"))
    torch.set_num_threads(threads)
    with torch.no_grad():
        curves = [measured(curve) for curve in CURVES]
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps({"threads": threads, "curves": curves}, indent=1) + "\n")
    draw(curves, stem.with_suffix(".svg"), pyplot)


if __name__ == "__main__":
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "results" / "curves")
