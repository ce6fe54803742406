"""Settings chosen on validation, by a walk over a grid; then more seeds of the best.

`python -m benchmarks.quality -d baby --data-path data -m SMORE --axis cl_weight=0,0.001,0.003,0.01
--axis dropout=0,0.1,0.2 --start cl_weight=0.003 dropout=0.1 -o runs/quality-smore`. With the first seed, each axis in
turn is walked from where we stand to the better neighbour, until on every axis both neighbours are worse. Test metrics
decide nothing. It is said where the best value is the last of its axis. A folder that holds runs goes on with them.
Written there: grid.md, every run in the order made.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from smore_ext import runs
from smore_ext.experiments.jobs import Job, run_jobs
from smore_ext.experiments.measured import run_measured
from smore_ext.settings.config import changed_settings
from smore_ext.training.files import replacing

Point = tuple[str, ...]  # a value on each axis


class Grid:
    """Runs of one model on one data set, by their place on the axes and their seed."""

    def __init__(self, folder: Path, axes: dict[str, list[str]], settings: dict[str, Any]) -> None:
        self.folder, self.axes, self.settings = folder, axes, settings
        self.results: dict[tuple[Point, int], dict[str, Any]] = {}

    def result(self, point: Point, seed: int) -> dict[str, Any]:
        if (point, seed) not in self.results:
            own = dict(zip(self.axes, point, strict=True))
            config = runs.resolve(self.settings | own | {"seed": seed, "threads": 1})
            folder = self.folder / "-".join([*(f"{name}={value}" for name, value in own.items()), f"seed={seed}"])
            if runs.RunFolder(folder).config.exists():
                stored = runs.stored_config(folder)
                for name, (old, new) in changed_settings(stored, config).items():
                    raise ValueError(f"{folder}: {name} was {old!r}, is {new!r}; write into another folder")
            job = Job("run", run_measured, (config.to_dict(), config.sources, folder, folder / "measured.npz"))
            for _, wrong in run_jobs([job], 1, lambda _: 0, lambda: None, alone=True):
                if wrong is not None:
                    raise RuntimeError(f"{folder}: {wrong}")
            self.results[point, seed] = found = runs.finished(folder, config) or {}
            print(row(point, seed, found), flush=True)
            self.write()
        return self.results[point, seed]

    def validation(self, point: Point, seed: int) -> float:
        return float(self.result(point, seed)["validation"]["recall@20"])

    def best(self, point: Point, seed: int) -> Point:
        """The place from which no step on one axis is better on validation."""
        moved = True
        while moved:
            moved = False
            for place, values in enumerate(self.axes.values()):
                while True:
                    at = values.index(point[place])
                    near = [values[to] for to in (at - 1, at + 1) if 0 <= to < len(values)]
                    points = [point, *((*point[:place], value, *point[place + 1 :]) for value in near)]
                    better = max(points, key=lambda one: self.validation(one, seed))
                    if better == point:
                        break
                    point, moved = better, True
        return point

    def write(self) -> None:
        lines = [
            f"| {' | '.join(self.axes)} | seed | best epoch | validation | test |",
            "|---" * (len(self.axes) + 4) + "|",
        ]
        lines += [row(point, seed, found) for (point, seed), found in self.results.items()]
        for point in dict.fromkeys(point for point, _ in self.results):
            tests = [one["test"]["recall@20"] for (own, _), one in self.results.items() if own == point]
            if len(tests) > 1:
                lines += ["", f"{shown(self.axes, point)}: test Recall@20 {statistics.mean(tests):.4f} "
                          f"({statistics.stdev(tests):.4f}) over {len(tests)} seeds"]  # fmt: skip
        with replacing(self.folder / "grid.md") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(point: Point, seed: int, found: dict[str, Any]) -> str:
    numbers = (f"{found[split]['recall@20']:.4f}" for split in ("validation", "test"))
    return f"| {' | '.join((*point, str(seed), str(found['best_epoch']), *numbers))} |"


def shown(axes: dict[str, list[str]], point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(axes, point, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", default="synthetic")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("-m", "--model", default="SMORE")
    parser.add_argument("--axis", action="append", required=True, metavar="NAME=A,B,C", help="values in order; repeat")
    parser.add_argument(
        "--start", nargs="+", required=True, metavar="NAME=VALUE", help="one of the values of each axis"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all runs")
    parser.add_argument("--seeds", default="1,2,3", help="the first decides; default 1,2,3")
    parser.add_argument("-o", "--output-dir", type=Path, required=True)
    options = parser.parse_args()
    axes = {name: values.split(",") for name, values in (text.split("=", 1) for text in options.axis)}
    start = dict(text.split("=", 1) for text in options.start)
    settings: dict[str, Any] = dict(text.split("=", 1) for text in options.set)
    settings |= {"model": options.model, "dataset": options.dataset}
    settings |= {"data_path": options.data_path} if options.data_path else {}
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if set(start) != set(axes) or any(start[name] not in values for name, values in axes.items()):
        parser.error(f"--start: expected one of the values of each axis, {axes}, got {start}")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    grid = Grid(options.output_dir, axes, settings)
    chosen = grid.best(tuple(start[name] for name in axes), seeds[0])
    for seed in seeds[1:]:
        grid.result(chosen, seed)
    for name, value in zip(axes, chosen, strict=True):
        if len(axes[name]) > 1 and value in (axes[name][0], axes[name][-1]):
            print(f"{name}: its best value, {value}, is the last of its axis")
    print((grid.folder / "grid.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
