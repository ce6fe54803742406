"""Peak memory of `ops.knn` beyond inputs and outputs: python benchmarks/knn_memory.py ROWS WIDTH K (Linux)."""

from __future__ import annotations

import sys
import time

import torch
from memory import peak, restart_peak

from smore_ext import ops


def main(rows: int, width: int, k: int) -> None:
    ops.knn(torch.randn(64, width), min(k, 64))  # the libraries' own buffers
    features = torch.randn(rows, width)
    before, begin = restart_peak(), time.perf_counter()
    outputs = ops.knn(features, k)
    held = sum(o.numel() * o.element_size() for o in outputs) / 2**20
    extra = peak() - before - held
    print(
        f"{rows} x {width}, k = {k}: {extra:.1f} MB beyond inputs ({features.numel() / 2**18:.0f} MB) and "
        f"outputs ({held:.0f} MB), {time.perf_counter() - begin:.0f} s on {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*map(int, sys.argv[1:]))
