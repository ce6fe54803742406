"""Reuse of host memory: same results, memory that comes back, and nothing kept when it is off."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from smore_ext import ops
from smore_ext._native import set_host_cache

LARGE = 3 << 20  # elements: 12 MB


@pytest.fixture(autouse=True)
def off_afterwards() -> Iterator[None]:
    yield
    set_host_cache(None)


def test_freed_memory_serves_the_next_tensor() -> None:
    set_host_cache(64 << 20)
    first = torch.ones(LARGE)
    at = first.data_ptr()
    del first
    again = torch.zeros(LARGE - 7)
    assert again.data_ptr() == at and not again.any()


def test_living_tensors_never_share_memory() -> None:
    set_host_cache(64 << 20)
    for _ in range(3):
        tensors = [torch.full((LARGE + i,), float(i)) for i in range(6)]
        assert all((t == i).all() for i, t in enumerate(tensors))
        del tensors


def test_tensors_outlive_the_setting() -> None:
    before = torch.arange(LARGE)
    set_host_cache(64 << 20)
    during = torch.arange(LARGE)
    set_host_cache(0)
    after = torch.arange(LARGE)
    assert torch.equal(before, during) and torch.equal(during, after)
    during.resize_(2 * LARGE)[LARGE:] = 1
    assert torch.equal(during[:LARGE], after)


def test_more_than_the_limit_goes_back_to_the_system() -> None:
    set_host_cache(8 << 20)
    for _ in range(4):
        tensor = torch.ones(LARGE)  # larger than the limit: never kept
        assert tensor.sum() == LARGE
        del tensor


def test_threads_may_allocate_together() -> None:
    from concurrent.futures import ThreadPoolExecutor

    set_host_cache(64 << 20)

    def work(seed: int) -> bool:
        return all(bool((torch.full((1 << 19,), float(seed + i)) == seed + i).all()) for i in range(30))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(0, 400, 100)))


def test_results_of_ops_are_reused_by_default_and_not_when_it_is_off() -> None:
    def filtered(n: int) -> tuple[int, torch.Tensor]:
        y = ops.spectral_filter(torch.ones(n, 64), torch.ones(33, 2))
        return y.data_ptr(), y

    set_host_cache(0)
    set_host_cache(None)
    at, y = filtered(8192)
    copy = y.clone()
    del y
    again, y = filtered(8192)
    assert again == at and torch.equal(y, copy)
    other, z = filtered(8192)
    assert other != again and torch.equal(z, y)
    y.resize_(1 << 20)  # a result is an ordinary tensor
    assert torch.equal(y.view(-1)[: z.numel()], z.view(-1))
    set_host_cache(0)
    assert torch.equal(z, copy)


def test_a_negative_limit_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_bytes must be at least 0, got -1"):
        set_host_cache(-1)
