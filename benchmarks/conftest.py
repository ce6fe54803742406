"""Benchmark set-up: the op table of the tests, a pinned thread count, and what every result states about the
machine."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import smore_ext  # noqa: E402

THREADS = int(os.environ.get("SMORE_BENCH_THREADS", "2"))


@pytest.fixture(autouse=True, scope="session")
def pinned_threads() -> None:
    torch.set_num_threads(THREADS)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    machine_info["smore_ext"] = smore_ext.build_info()
    machine_info["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
    machine_info["threads"] = THREADS
