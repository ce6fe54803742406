"""Runs of one small data set side by side: python -m benchmarks.gpu_seeds DEVICE FOLDER [--jobs N] [--epochs N]

One run alone, then as many seeds as jobs together, each with the same number of epochs on the built-in data set, by the
clock and with their start. Written to FOLDER/seeds.json: both times, and the throughput against one run's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def seconds(device: str, folder: Path, epochs: int, jobs: int) -> float:
    command = [sys.executable, "-m", "smore_ext.train", "-q", "--device", device, "--epochs", str(epochs)]
    command += ["--output-dir", str(folder), "--seeds", ",".join(map(str, range(1, jobs + 1))), "--jobs", str(jobs)]
    begin = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    alone = seconds(options.device, options.folder / "alone", options.epochs, 1)
    together = seconds(options.device, options.folder / "together", options.epochs, options.jobs)
    found = {"jobs": options.jobs, "epochs": options.epochs, "alone_s": alone, "together_s": together}
    found["throughput"] = options.jobs * alone / together
    (options.folder / "seeds.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{options.jobs} runs side by side: {found['throughput']:.2f} times one's throughput")


if __name__ == "__main__":
    main()
