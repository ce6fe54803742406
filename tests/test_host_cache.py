"""Reuse of host memory: same results, memory that comes back, and nothing kept when it is off."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from smore_ext import ops
from smore_ext.backends import host_cache
from smore_ext.training.device import reuse_memory

LARGE = 3 << 20  # elements: 12 MB


@pytest.fixture(autouse=True)
def as_before_afterwards() -> Iterator[None]:
    before = host_cache.max_bytes, host_cache.every_tensor
    host_cache.every_tensor = True
    yield
    host_cache.max_bytes, host_cache.every_tensor = before


def test_freed_memory_serves_the_next_tensor() -> None:
    host_cache.max_bytes = 64 << 20
    first = torch.ones(LARGE)
    at = first.data_ptr()
    del first
    again = torch.zeros(LARGE - 7)
    assert again.data_ptr() == at and not again.any()


def test_living_tensors_never_share_memory() -> None:
    host_cache.max_bytes = 64 << 20
    for _ in range(3):
        tensors = [torch.full((LARGE + i,), float(i)) for i in range(6)]
        assert all((t == i).all() for i, t in enumerate(tensors))
        del tensors


def test_tensors_outlive_the_setting() -> None:
    before = torch.arange(LARGE)
    host_cache.max_bytes = 64 << 20
    during = torch.arange(LARGE)
    host_cache.max_bytes = 0
    after = torch.arange(LARGE)
    assert torch.equal(before, during) and torch.equal(during, after)
    during.resize_(2 * LARGE)[LARGE:] = 1
    assert torch.equal(during[:LARGE], after)


def test_more_than_the_limit_goes_back_to_the_system() -> None:
    host_cache.max_bytes = 8 << 20
    for _ in range(4):
        tensor = torch.ones(LARGE)  # larger than the limit: never kept
        assert tensor.sum() == LARGE
        del tensor


def test_threads_may_allocate_together() -> None:
    from concurrent.futures import ThreadPoolExecutor

    host_cache.max_bytes = 64 << 20

    def work(seed: int) -> bool:
        return all(bool((torch.full((1 << 19,), float(seed + i)) == seed + i).all()) for i in range(30))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(0, 400, 100)))


def test_results_of_ops_are_reused_by_default_and_not_when_it_is_off() -> None:
    def filtered(n: int) -> tuple[int, torch.Tensor]:
        y = ops.spectral_filter(torch.ones(n, 64), torch.ones(33, 2))
        return y.data_ptr(), y

    host_cache.clear()
    host_cache.every_tensor, host_cache.max_bytes = False, 128 << 20
    at, y = filtered(8192)
    copy = y.clone()
    del y
    again, y = filtered(8192)
    assert again == at and torch.equal(y, copy)
    other, z = filtered(8192)
    assert other != again and torch.equal(z, y)
    y.resize_(1 << 20)  # a result is an ordinary tensor
    assert torch.equal(y.view(-1)[: z.numel()], z.view(-1))
    host_cache.max_bytes = 0
    assert torch.equal(z, copy)


def test_the_state_at_the_start_and_torchs_allocator_is_replaced_only_when_asked() -> None:
    code = """
import torch
from smore_ext.backends import host_cache
assert (host_cache.max_bytes, host_cache.every_tensor, host_cache.kept_bytes) == (128 << 20, False, 0)
host_cache.max_bytes = 1 << 30
torch.ones(3 << 20)
assert host_cache.kept_bytes == 0 and not host_cache.every_tensor
host_cache.every_tensor = True
torch.ones(3 << 20)
assert host_cache.kept_bytes == 12 << 20 and host_cache.max_bytes == 1 << 30
host_cache.every_tensor = False
torch.ones(3 << 20)
assert host_cache.kept_bytes == 12 << 20  # neither used nor given back: the limit is as it was
host_cache.clear()
assert host_cache.kept_bytes == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_asks_for_every_tensor_and_leaves_the_setting_as_it_was() -> None:
    host_cache.every_tensor, host_cache.max_bytes = False, 5 << 20
    with reuse_memory():
        assert host_cache.every_tensor and host_cache.max_bytes > 5 << 20
    assert not host_cache.every_tensor and host_cache.max_bytes == 5 << 20


def test_a_negative_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_bytes must be at least 0, got -1"):
        host_cache.max_bytes = -1
