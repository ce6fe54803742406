"""A training run on a machine that is not ours alone: time beside busy processes over time alone.

`python -m benchmarks.crowded`. The command trains SMORE on the built-in data for a few epochs, by itself and beside
as many busy loops as there are cores, of the same priority, in turns; the seconds are those that the run reports for
training and evaluation. Two loops on two cores leave a run of two threads half of each core: 2 would be a fair share.
Ways: as the command starts (how long a waiting thread spins is set before torch loads), as OpenMP is without that
(libgomp spins for about a millisecond), and with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# 300,000 is what libgomp takes where it has a core for each thread
WAYS = {
    "as it starts": ({}, ()),
    "as OpenMP is": ({"GOMP_SPINCOUNT": "300000"}, ()),
    "one thread": ({}, ("--threads", "1")),
}
LOOP = "while True: pass"


@contextmanager
def busy(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds(way: str, epochs: int) -> float:
    """Of training and evaluation in one run."""
    variables, flags = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "smore_ext.train",
            "--epochs",
            str(epochs),
            "-q",
            "-o",
            f"{folder}/run",
            *flags,
        ]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | variables)
        spent = json.loads((Path(folder) / "run" / "result.json").read_text())["seconds"]
    return float(spent["training"] + spent["evaluating"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=len(os.sched_getaffinity(0)), help="loops; default one a core")
    options = parser.parse_args()
    taken: dict[tuple[str, int], list[float]] = {(way, count): [] for way in WAYS for count in (0, options.busy)}
    for _ in range(options.rounds):
        for (way, count), values in taken.items():
            with busy(count):
                values.append(seconds(way, options.epochs))
    print(
        f"{options.epochs} epochs, {options.rounds} rounds, {options.busy} busy loops; seconds: median (least to most)"
    )
    print("| | alone | beside busy loops | ratio |\n|---|---|---|---|")
    for way in WAYS:
        cells = []
        for count in (0, options.busy):
            values = taken[way, count]
            cells.append(f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        ratio = statistics.median(taken[way, options.busy]) / statistics.median(taken[way, 0])
        print(f"| {way} | {' | '.join(cells)} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
