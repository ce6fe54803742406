"""Peak memory of training: python -m benchmarks.train_memory [SIZE] (elec; Linux). Its own process, nothing else in it.

Three steps with trained image and text features, all interactions of the size, and random item graphs of k = 10 that
the data set brings. The peak counts from before the model is built, so it holds parameters, moments, graphs and all
that a step needs, but not the data set. The limit: parameters + two moments + 1 GB.
"""

from __future__ import annotations

import os
import sys
import time

import torch

from benchmarks.inputs import SIZES, dataset
from benchmarks.memory import peak, restart_peak, status
from benchmarks.training import as_trained, make_step
from smore_ext import SMOREConfig

STEPS, KNN_K, ALLOWED_MB = 3, 10, 1024


def main(name: str) -> int:
    torch.set_num_threads(int(os.environ.get("SMORE_BENCH_THREADS", "2")))
    size = SIZES[name]
    data = dataset(size, KNN_K, every_pair=True)
    before = restart_peak()
    with as_trained():
        model, _, step = make_step(data, SMOREConfig(n_ui_layers=3, knn_k=KNN_K), "native", True)
        built, begin = status("VmRSS") - before, time.perf_counter()
        for _ in range(STEPS):
            step()
        seconds = (time.perf_counter() - begin) / STEPS
        highest = peak() - before
    parameters = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20
    limit = 3 * parameters + ALLOWED_MB
    verdict = "met" if highest <= limit else "NOT met"
    print(
        f"{name}: {size.users} users, {size.items} items, {len(data.train.users)} interactions; data set and "
        f"libraries {before:.0f} MB\nmodel and graphs built: {built:.0f} MB, parameters {parameters:.0f} MB\n"
        f"peak of {STEPS} steps: {highest:.0f} MB = parameters + two moments + {highest - 3 * parameters:.0f} MB; "
        f"limit {limit:.0f} MB: {verdict}\n{seconds:.2f} s a step on {torch.get_num_threads()} threads"
    )
    return int(highest > limit)


if __name__ == "__main__":
    if len(sys.argv) > 2 or not set(sys.argv[1:]) <= set(SIZES):
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1] if sys.argv[1:] else "elec"))
