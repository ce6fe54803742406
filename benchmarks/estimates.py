"""What `train --dry-run` says beside what a run then takes: peak memory and time of a step.

`python -m benchmarks.estimates -d lfm2k --data-path data -m SMORE`. The estimate looks at random data of up to
`--largest` of the size, as the command does within its minute; the run is of the data itself. Each is a process of its
own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from smore_ext import runs
from smore_ext.experiments.estimate import Counts, Point, estimate, run_point
from smore_ext.experiments.jobs import Job, run_jobs
from smore_ext.experiments.measured import peak_bytes, telling
from smore_ext.settings.config import RunConfig


def run(config: Mapping[str, Any], folder: Path, file: Path, told: Connection) -> None:
    with telling(told):
        settings = RunConfig.from_dict(config)
        file.write_text(json.dumps(dataclasses.asdict(run_point(settings, runs.open_dataset(settings), folder, 1.0))))


def compared(config: RunConfig, largest: float) -> tuple[Point, Point]:
    """(what was said, what it took)."""
    counts = Counts.of(runs.open_dataset(config))
    said = estimate(counts, config, largest=largest, reading=peak_bytes("cpu"))
    for point in said.points:
        print(f"  {point.share:.3f} {point.memory / 1e6:9.1f} MB {1e3 * point.step:9.2f} ms")
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "point.json"
        job = Job("run", run, (config.to_dict(), Path(place) / "run", file))
        for _, wrong in run_jobs([job], 1, lambda _: 0, lambda: None, alone=True):
            if wrong is not None:
                raise RuntimeError(wrong)
        took = Point(**json.loads(file.read_text()))
    return Point(1.0, said.memory, said.step, said.evaluation, said.checkpoint), took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", default="synthetic")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("-m", "--models", default="SMORE,LightGCN", help="names with commas between")
    parser.add_argument("--largest", type=float, default=1.0)
    options = parser.parse_args()
    place = {"dataset": options.dataset, **({"data_path": options.data_path} if options.data_path else {})}
    for model in options.models.split(","):
        said, took = compared(runs.resolve({"model": model, "threads": 1, **place}), options.largest)
        for name, unit, scale in (("memory", "MB", 1e-6), ("step", "ms", 1e3), ("checkpoint", "MB", 1e-6)):
            first, second = getattr(said, name) * scale, getattr(took, name) * scale
            where = f"{options.dataset} {model:10} {name:10}"
            print(f"{where} said {first:9.2f} {unit}, took {second:9.2f}: {first / second:.2f}", flush=True)


if __name__ == "__main__":
    main()
