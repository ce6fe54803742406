"""The device of bench_cuda.py: what SMORE_BENCH_DEVICE names, CUDA by default.

"cpu" is the smoke form: every line runs, on the CPU and at a sixteenth of the size. Its figures say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

import smore_ext

CPU = torch.device("cpu")


def chosen() -> torch.device:
    return torch.device(os.environ.get("SMORE_BENCH_DEVICE", "cuda"))


def is_smoke() -> bool:
    return chosen().type == "cpu"


def why_not() -> str | None:
    """Why nothing can be measured on the chosen device; None where it can."""
    if is_smoke():
        return None
    if not torch.cuda.is_available():
        return "no CUDA device here (SMORE_BENCH_DEVICE=cpu runs the smoke form)"
    return None if smore_ext.build_info()["cuda"] else "smore_ext is built without its CUDA kernels"


def name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "smoke form on the CPU: figures say nothing"


def synchronize(device: torch.device) -> None:
    """Waits for what the device still has to do; the CPU has nothing left."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_mb(run: Callable[[], object], device: torch.device) -> float | None:
    """Memory that one run takes on a GPU at its peak, results included, beyond what is held before; None elsewhere."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20
