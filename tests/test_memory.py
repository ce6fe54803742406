"""Peak memory of the ops that promise never to hold a quadratic matrix, measured in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import sys, torch
from smore_ext import Graph, ops

def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024

def peak(prepare, run):
    torch.manual_seed(0)
    run(*prepare(64))  # the libraries' own buffers
    args = prepare(None)
    open("/proc/self/clear_refs", "w").write("5")  # restarts the peak
    before = status("VmRSS")
    outputs = run(*args)
    return status("VmHWM") - before - sum(o.numel() * o.element_size() for o in outputs) / 2**20

torch.set_num_threads(2)
{case}
print(peak(prepare, run))
"""

CASES = {
    # 20,000 x 20,000 similarities would take 1,526 MB.
    "knn": (
        "prepare = lambda n: (torch.randn(n or 20000, 256),)\nrun = lambda x: ops.knn(x, 40)",
        64,
    ),
    "knn in a base": (
        "prepare = lambda n: (torch.randn(n or 20000, 256), torch.randn(n or 20000, 256))\n"
        "run = lambda x, y: ops.knn(x, y, 40)",
        64,
    ),
    # The 100,000 x 10 rows that are named would take 244 MB.
    "cosine_at": (
        "prepare = lambda n, size=10**5: (\n"
        "    torch.randn(n or size, 64, requires_grad=True), torch.randint(n or size, (n or size, 10)))\n"
        "run = lambda x, i: torch.autograd.grad(ops.cosine_at(x, i).sum(), x)",
        64,
    ),
    # 20,000 x 7,050 scores would take 538 MB.
    "masked_topk": (
        "prepare = lambda n: (torch.randn(n or 20000, 64), torch.randn(7050, 64))\n"
        "run = lambda u, i: ops.masked_topk(u, i, 50)",
        32,
    ),
    # 8,192 x 8,192 scores would take 256 MB.
    "info_nce": (
        "prepare = lambda n: (torch.randn(n or 8192, 64, requires_grad=True), torch.randn(n or 8192, 64))\n"
        "run = lambda x, y: torch.autograd.grad(ops.info_nce(x, y, 0.2), x)",
        32,
    ),
    # 2,048 x 60,000 scores would take 492 MB.
    "info_nce with keys": (
        "prepare = lambda n: (torch.randn(n or 2048, 64), torch.randn(n or 60000, 64, requires_grad=True))\n"
        "run = lambda x, k: torch.autograd.grad(ops.info_nce(x, x, 0.2, k), k)",
        96,
    ),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("op", CASES)
def test_no_quadratic_matrix(op: str) -> None:
    case, limit = CASES[op]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.replace("{case}", case)], capture_output=True, text=True, check=True
    )
    extra = float(done.stdout)
    assert extra <= limit, f"{op} took {extra:.0f} MB beyond inputs and outputs, at most {limit} MB are allowed"
