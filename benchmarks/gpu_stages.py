"""The stages of gpu_check.py: what each runs, for how long at most, and how its output is read."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import gpu_reports as reports

PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
OUR_KERNELS = "kns=smore"  # kernels whose name has this; the others are torch's and NVIDIA's
GPU_QUERY = "--query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader"
KNN_SIZE = ("63001", "4096", "40")

# What the sanitizers run: they slow a kernel down by a factor of ten to a hundred, so the large cases are left out.
SANITIZED = (
    "(test_forward_matches or test_gradients_match or test_bfloat16_is_storage) "
    "and not (1025x64 or 1027x64 or 300x200 or 250x or 700x40 "
    "or 1300x20 or 130x501 or 290x1100 or 41x4100)"
)
# In the smoke form, on the CPU, a few cases of each kind.
SMOKE_TESTS = ["tests/test_ops.py", "-k", "forward_matches and spmm"]
SMOKE_BENCHMARKS = "fusion-large-forward-N or filter-forward-d-64 or knn10-baby or CUDA-knn or step-baby"
# In processes of their own: an access that fails on a GPU spoils all that follows in its process.
BENCHMARKS = {
    "bench-spectral": "spectr",
    "bench-sparse": "spmm or propagate",
    "bench-other": "not (spectr or spmm or propagate or training)",
    "bench-step": "training",
}


@dataclass(frozen=True)
class Stage:
    """One subprocess. group: a name that several stages share; skip: why it does not run."""

    name: str
    command: list[str]
    limit: float  # seconds
    read: Callable[[str, Path], reports.Reading]
    group: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    skip: str | None = None


def compute_capability() -> str | None:
    """Of the first GPU, as TORCH_CUDA_ARCH_LIST wants it; None: there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True).stdout.split()
    return found[0] if found and found[0].replace(".", "").isdigit() else None


def compute_sanitizer() -> str | None:
    """Its path: on PATH, in CUDA_HOME, or beside nvcc."""
    folders = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")] + ["/usr/local/cuda"]
    places = [os.path.join(folder, "bin") for folder in folders if folder]
    if (nvcc := shutil.which("nvcc")) is not None:
        places.append(os.path.dirname(os.path.realpath(nvcc)))
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(places))


VERSIONS = f"""
echo "python: $({PYTHON} --version 2>&1)"
echo "torch: $({PYTHON} -c 'import torch; print(torch.__version__, torch.version.cuda)' 2>&1 | tail -n 1)"
echo "gpu: $(nvidia-smi {GPU_QUERY} 2>&1 | head -n 1)"
echo "nvcc: $(nvcc --version 2>/dev/null | tail -n 1)"
echo "compiler: $(${{CXX:-c++}} --version 2>&1 | head -n 1)"
echo "commit: $(git rev-parse HEAD 2>/dev/null)"
echo "changed: $(git status --porcelain 2>/dev/null | wc -l) files"
"""


def training_stage(name: str, device: str, folder: Path, epochs: int | None, *options: str) -> Stage:
    """epochs: None for a whole run, to the end of its patience."""
    command = [
        PYTHON,
        "-m",
        "smore_ext.train",
        "-q",
        "--device",
        device,
        *(["--epochs", str(epochs)] if epochs else []),
    ]
    command += ["--output-dir", str(folder / name / "run"), *options]
    return Stage(name, command, 60, reports.training, "training")


def profile_stage(device: str, folder: Path, smoke: bool) -> Stage:
    """What a step consists of, at the published sizes and, on a CPU, at a small one."""
    sizes = ["--shrink", "16", "baby"] if smoke else ["baby", "sports", "clothing"]
    command = [PYTHON, "-m", "benchmarks.gpu_profile", device, str(folder / "profile" / "profile.json"), *sizes]
    return Stage("profile", command, 90, reports.step_profile)


def seeds_stage(device: str, folder: Path, smoke: bool) -> Stage:
    """Runs of a small data set side by side against one."""
    jobs = "2" if smoke else "16"
    command = [PYTHON, "-m", "benchmarks.gpu_seeds", device, str(folder / "seeds"), "--jobs", jobs]
    return Stage("seeds", command, 90, reports.seeds_side_by_side)


def benchmark_stages(folder: Path, cores: int, smoke: bool) -> list[Stage]:
    stages = []
    for name, cases in BENCHMARKS.items():
        command = [*PYTEST, "benchmarks/bench_cuda.py", "--benchmark-json", str(folder / name / "bench.json")]
        command += ["-k", f"({cases}) and ({SMOKE_BENCHMARKS})" if smoke else cases]
        environment = {"SMORE_BENCH_THREADS": str(min(cores, 8))}
        stages.append(Stage(name, command, 120, reports.benchmarks, "bench", environment))
    return stages


def sanitizer_stages(smoke: bool) -> list[Stage]:
    program = compute_sanitizer()
    skip = "smoke form" if smoke else None if program else "compute-sanitizer was not found"
    stages = []
    for tool in SANITIZERS:
        command = [program or "compute-sanitizer", "--tool", tool, "--print-limit", "20", "--error-exitcode", "86"]
        # memcheck also watches what torch and cuFFT do for us; initcheck must see every kernel that writes.
        command += ["--kernel-regex", OUR_KERNELS] if tool in ("racecheck", "synccheck") else []
        command += [*PYTEST, "--device", "cuda", "tests/test_ops.py", "-k", SANITIZED]
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # else an access beyond a tensor still hits the cache
        stages.append(Stage(tool, command, 75, reports.sanitizer_run, "sanitizer", environment, skip))
    return stages


def all_stages(folder: Path, capability: str | None, smoke: bool) -> list[Stage]:
    """In the order in which they run; `folder / name` is a stage's own."""
    device, cores = ("cpu", 2) if smoke else ("cuda", os.cpu_count() or 1)
    build = [PYTHON, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-input", "-e", "."]
    build_environment = {
        "SMORE_CUDA": "1",
        "TORCH_CUDA_ARCH_LIST": capability or "",
        "MAX_JOBS": str(cores),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    tests = [*PYTEST, "--device", device, *(SMOKE_TESTS if smoke else [])]
    test_environment = {}
    if not smoke and importlib.util.find_spec("xdist") is not None:
        tests += ["-n", "4", "--dist", "worksteal"]  # most of a test is Python: four processes share the GPU
        test_environment = {"OMP_NUM_THREADS": str(max(cores // 4, 1))}
    agreement = [PYTHON, "-m", "benchmarks.gpu_agreement", device, str(folder / "agreement" / "agreement.json")]
    knn_size = ("1000", "512", "10") if smoke else KNN_SIZE
    return [
        Stage("versions", ["bash", "-c", VERSIONS], 60, reports.lines),
        Stage("build", build, 240, reports.nothing, "", build_environment, "smoke form" if smoke else None),
        Stage(
            "doctor",
            [PYTHON, "-m", "smore_ext.doctor", "--json", str(folder / "doctor" / "doctor.json")],
            60,
            reports.doctor,
        ),
        Stage("agreement", agreement, 90, reports.agreement),
        Stage("memory", [PYTHON, "-m", "benchmarks.knn_memory", *knn_size, device], 60, reports.knn_memory),
        training_stage("train", device, folder, 1 if smoke else 3),
        training_stage("train-fast", device, folder, 1 if smoke else 3, "--amp", "--tf32"),
        training_stage("train-whole", device, folder, 1 if smoke else None),
        profile_stage(device, folder, smoke),
        seeds_stage(device, folder, smoke),
        Stage("tests", tests, 180, reports.pytest_run, "", test_environment),
        *benchmark_stages(folder, cores, smoke),
        *sanitizer_stages(smoke),
    ]
