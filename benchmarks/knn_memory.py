"""Peak memory of `ops.knn` beyond inputs and outputs: python benchmarks/knn_memory.py ROWS WIDTH K (Linux)."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from smore_ext import ops


def status(key: str) -> float:
    """A figure of this process's memory, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def main(rows: int, width: int, k: int) -> None:
    ops.knn(torch.randn(64, width), min(k, 64))  # the libraries' own buffers
    features = torch.randn(rows, width)
    Path("/proc/self/clear_refs").write_text("5")  # restarts the peak
    before, begin = status("VmRSS"), time.perf_counter()
    outputs = ops.knn(features, k)
    held = sum(o.numel() * o.element_size() for o in outputs) / 2**20
    extra = status("VmHWM") - before - held
    print(
        f"{rows} x {width}, k = {k}: {extra:.1f} MB beyond inputs ({features.numel() / 2**18:.0f} MB) and "
        f"outputs ({held:.0f} MB), {time.perf_counter() - begin:.0f} s on {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*map(int, sys.argv[1:]))
