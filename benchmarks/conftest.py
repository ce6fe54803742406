"""Benchmark set-up: a pinned thread count, ceilings of the machine, modes and the report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import smore_ext
from benchmarks import device as devices
from benchmarks import summary
from benchmarks.ceilings import measured, measured_on
from benchmarks.interleave import Case, Setting, compare

THREADS = int(os.environ.get("SMORE_BENCH_THREADS", "2"))
SHRINK_IN_SMOKE = 16  # with --benchmark-disable every count is divided by this (inputs.py says which)
SECONDS_A_CASE, SECONDS_A_QUICK_CASE, SECONDS_A_SMOKE_CASE = 4.0, 1.0, 0.05
RESULTS = pytest.StashKey[list[dict[str, Any]]]()
DEVICE = pytest.StashKey[dict[str, Any]]()  # what was measured on besides the CPU
PACKAGES = ("numpy", "scipy", "faiss-cpu", "torch-sparse", "pytest-benchmark")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="benchmarks: a few cases of each kind, under 3 minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--quick"):
        return
    left_out = [item for item in items if hasattr(item, "callspec") and not item.callspec.params["case"].quick]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True, scope="session")
def pinned_threads(request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(THREADS)
    if not request.config.getoption("benchmark_disable"):
        measured()


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any, tmp_path: Path) -> Callable[..., None]:
    """Runs one case, on the CPU or on a device, and keeps its result for the report at the end."""
    config = request.config
    quick = config.getoption("--quick")

    def run(case: Case, device: torch.device | None = None) -> None:
        smoke = benchmark.disabled or (device is not None and devices.is_smoke())
        setting = Setting(SHRINK_IN_SMOKE if smoke else 1, THREADS, tmp_path, device or devices.CPU)
        torch.manual_seed(0)
        if device is None:
            info = compare(case, setting, benchmark, SECONDS_A_QUICK_CASE if quick else SECONDS_A_CASE)
        else:
            seconds = SECONDS_A_SMOKE_CASE if smoke else SECONDS_A_QUICK_CASE
            ceilings = partial(measured_on, device, setting.shrink)
            info = compare(case, setting, benchmark, seconds, ceilings)
            if info is not None:
                config.stash[DEVICE] = {"name": devices.name(device), "ceilings": ceilings().as_dict()}
        if info is not None:
            stats = benchmark.stats.stats
            native = {"median": stats.median, "iqr": stats.iqr, "rounds": stats.rounds}
            config.stash[RESULTS].append(summary.case_result(info, native))

    return run


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    words = [Path(word).name if Path(word).is_absolute() else word for word in config.invocation_params.args]
    machine_info["smore_ext"] = smore_ext.build_info()
    machine_info["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: found for package in PACKAGES if (found := version(package))},
    }
    machine_info["threads"] = THREADS
    machine_info["ceilings"] = measured().as_dict()
    if DEVICE in config.stash:
        machine_info["device"] = config.stash[DEVICE]
    machine_info["command"] = shlex.join(["python", "-m", "pytest", *words])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    if results:
        terminalreporter.section("ratios: time of the peer / time of ours")
        terminalreporter.write_line(summary.text(results))
