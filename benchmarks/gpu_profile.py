"""What a training step launches: python -m benchmarks.gpu_profile DEVICE FILE [--shrink N] SIZE ...

Written to FILE, for each size: kernels a step and their time (on a CPU: torch's ops), by name; the time of a step by
the clock, in float32 and with `--amp`. On a GPU the step is captured, as the trainer captures it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.device import synchronize
from benchmarks.inputs import dataset, published_config, size_of
from benchmarks.training import as_trained, make_step

WARM_UP, STEPS, ROUNDS, LONGEST = 12, 10, 7, 60


def milliseconds(step: Callable[[], None], device: torch.device) -> float:
    """Median over rounds of a step's time, several queued at a time."""
    times = []
    for _ in range(ROUNDS):
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(STEPS):
            step()
        synchronize(device)
        times.append((time.perf_counter() - begin) / STEPS * 1e3)
    return statistics.median(times)


def kernels(step: Callable[[], None], device: torch.device) -> list[dict[str, Any]]:
    """Name, milliseconds and launches of each kernel of a step, the longest first; on a CPU of each op."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as recorded:
        for _ in range(STEPS):
            step()
        synchronize(device)
    found = []
    for event in recorded.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent > 0 and (event.device_type == torch.autograd.DeviceType.CUDA or not on_gpu):
            found.append({"name": event.key[:200], "ms": spent / STEPS / 1e3, "launches": event.count / STEPS})
    return sorted(found, key=lambda one: -one["ms"])


def profiled(name: str, shrink: int, device: torch.device) -> dict[str, Any]:
    size, config = size_of(name, shrink), published_config(name)
    data, found = dataset(size, config.knn_k), {}
    for amp in (False, True):
        step = make_step(data, config, "native", True, device, amp=amp)[2]
        for _ in range(WARM_UP):
            step()
        found["amp_ms" if amp else "step_ms"] = milliseconds(step, device)
        if amp:
            continue
        parts = kernels(step, device)
        found |= {"kernels": sum(one["launches"] for one in parts), "kernel_ms": sum(one["ms"] for one in parts)}
        found["longest"] = parts[:LONGEST]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("file", type=Path)
    parser.add_argument("sizes", nargs="+")
    parser.add_argument("--shrink", type=int, default=1, help="sizes divided by this")
    options = parser.parse_args()
    found = {}
    for name in options.sizes:
        with as_trained():
            found[name] = profiled(name, options.shrink, torch.device(options.device))
        options.file.write_text(json.dumps(found, indent=1) + "\n")  # what is known if the time ends
        one = found[name]
        print(
            f"{name}: {one['kernels']:g} kernels, {one['kernel_ms']:.3g} ms; step {one['step_ms']:.3g} ms", flush=True
        )


if __name__ == "__main__":
    main()
