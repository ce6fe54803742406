"""Plans of the spectral ops: made beside other threads and forks, for any width in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from smore_ext import ops, reference
from smore_ext.testing.checks import assert_within

# A thread makes a plan of half a second; meanwhile this one uses another, and a child of it does.
FORK = """
import os, threading, time, torch
from smore_ext import ops
torch.set_num_threads(1)
wide, wide_filter = torch.randn(1, 2**22), torch.randn(2**21 + 1, 2)
x, weight = torch.randn(4, 8), torch.randn(5, 2)
planning = threading.Thread(target=lambda: ops.spectral_filter(wide, wide_filter), daemon=True)
planning.start()
time.sleep(0.1)
begun = time.monotonic()
ops.spectral_filter(x, weight)
print("stalled" if time.monotonic() - begun > 0.25 else "went on", "planning" if planning.is_alive() else "too late")
child = os.fork()
if child == 0:
    ops.spectral_filter(x, weight)
    ops.spectral_filter(torch.randn(4, 10), torch.randn(6, 2))
    os._exit(0)
print("child", os.waitpid(child, 0)[1], flush=True)
os._exit(0)
"""


def test_a_plan_that_is_being_made_holds_up_nobody() -> None:
    ran = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert ran.stdout.strip() == "went on planning\nchild 0", ran.stdout + ran.stderr


PRIMES = [257, 2 * 263, 3 * 509, 997, 10_007]


@pytest.mark.parametrize("d", PRIMES)
def test_widths_with_a_large_prime_factor_keep_the_tolerance_rule(d: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    xs = [torch.randn(5, d, generator=generator) for _ in range(2)]
    weights = [torch.randn(d // 2 + 1, 2, generator=generator) for _ in range(3)]

    def run(module, dtype, where):
        given = [x.to(where, dtype).requires_grad_() for x in xs]
        *filters, fusion = (w.to(where, dtype).requires_grad_() for w in weights)
        filtered, fused = module.spectrum_fusion(given, filters, fusion, d // 3)
        grads = torch.autograd.grad(sum(f.square().sum() for f in (*filtered, fused)), [*given, *filters, fusion])
        return [t.detach().cpu() for t in (*filtered, fused, *grads)]

    exact = run(reference, torch.float64, "cpu")
    ours, plain = run(ops, torch.float32, device), run(reference, torch.float32, "cpu")
    assert_within(ours[:3], plain[:3], exact[:3], 2, "output")
    assert_within(ours[3:], plain[3:], exact[3:], 4, "gradient")
    for mine, wanted in zip(run(ops, torch.float64, device), exact, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-11, atol=1e-11)


def test_a_large_prime_width_takes_seconds_not_minutes(device: torch.device) -> None:
    x, weight = torch.randn(2, 100_003, device=device), torch.randn(50_002, 2, device=device)
    begun = time.monotonic()
    ours = ops.spectral_filter(x, weight)
    assert time.monotonic() - begun < 10  # 30 s by the definition, on an idle processor
    torch.testing.assert_close(ours, reference.spectral_filter(x, weight), rtol=1e-4, atol=1e-4)


def test_the_children_of_a_busy_process_can_work() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if ops.spectral_filter(torch.ones(1, 6), torch.ones(4, 2)).shape == (1, 6) else 1)
    assert os.waitpid(child, 0)[1] == 0
