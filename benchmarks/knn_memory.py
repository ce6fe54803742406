"""Peak memory of `ops.knn` beyond inputs and outputs: python -m benchmarks.knn_memory ROWS WIDTH K [DEVICE].

On the CPU, the default, from /proc (Linux); on a GPU what torch has allocated.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.device import peak_mb
from benchmarks.memory import peak, restart_peak
from smore_ext import ops


def taken(run: Callable[[], object], device: torch.device) -> float:
    """Memory that `run` takes at its peak, MB."""
    if device.type == "cuda":
        return peak_mb(run, device)
    before = restart_peak()
    run()
    return peak() - before


def main(rows: int, width: int, k: int, where: str = "cpu") -> None:
    device = torch.device(where)
    ops.knn(torch.randn(64, width, device=device), min(k, 64))  # the libraries' own buffers
    features = torch.randn(rows, width, device=device)
    outputs: list[Tensor] = []
    begin = time.perf_counter()
    at_peak = taken(lambda: outputs.extend(ops.knn(features, k)), device)
    seconds = time.perf_counter() - begin
    held = sum(o.numel() * o.element_size() for o in outputs) / 2**20
    by = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(
        f"{rows} x {width}, k = {k}: {at_peak - held:.1f} MB beyond inputs ({features.numel() / 2**18:.0f} MB) and "
        f"outputs ({held:.0f} MB), {seconds:.3g} s on {by}"
    )


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        raise SystemExit(__doc__)
    main(*map(int, sys.argv[1:4]), *sys.argv[4:])
