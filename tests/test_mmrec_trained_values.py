"""Products under the patch with sparse matrices whose values receive gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT, tree
from torch import Tensor

from smore_ext.compat import mmrec

N, M, WIDTH = 9, 7, 5


@pytest.fixture(autouse=True)
def tiny_tree() -> Iterator[None]:
    with tree():
        yield
        mmrec.undo()


def edges(seed: int = 0) -> Tensor:
    """In no order, one of them twice."""
    pair = torch.randperm(N * M, generator=torch.Generator().manual_seed(seed))[:20]
    index = torch.stack([pair // M, pair % M])
    return torch.cat([index, index[:, 3:4]], dim=1)


def outcome(index: Tensor, product: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(index.shape[1], generator=generator).requires_grad_()
    x = torch.randn(M, WIDTH, generator=generator).requires_grad_()
    y = product(torch.sparse_coo_tensor(index, value * 2, (N, M)), x)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), [value, x])]


PRODUCTS = {
    "torch.sparse.mm": lambda a, x: torch.sparse.mm(a, x),
    "torch.mm": lambda a, x: torch.mm(a, x),
    "matmul": lambda a, x: a @ x,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_values_and_gradients_are_the_same(name: str) -> None:
    product = PRODUCTS[name]
    theirs = outcome(edges(), product)
    with mmrec.patch("products", ROOT) as report:
        for _ in range(2):
            torch.testing.assert_close(outcome(edges(), product), theirs, rtol=1e-5, atol=1e-6)
        with torch.profiler.profile() as profile:
            outcome(edges(), product)
    assert report.replaced and report.replaced[0].endswith(f"of sparse_coo {N} x {M}, trained") and not report.left
    assert any(event.name == "smore_ext::spmm" for event in profile.events())


def test_other_edges_are_not_mixed_up() -> None:
    product = PRODUCTS["torch.sparse.mm"]
    theirs = [outcome(edges(seed), product) for seed in range(3)]
    with mmrec.patch("products", ROOT):
        for _ in range(2):
            for seed, wanted in enumerate(theirs):
                torch.testing.assert_close(outcome(edges(seed), product), wanted, rtol=1e-5, atol=1e-6)


def test_csr_with_trained_values_is_left_and_named() -> None:
    dense = torch.eye(4)
    value = torch.ones(4, requires_grad=True)
    csr = torch.sparse_csr_tensor(torch.arange(5), torch.arange(4), value, (4, 4))
    with mmrec.patch("products", ROOT) as report:
        assert torch.equal((csr @ dense).detach(), dense)
    assert "no COO" in next(iter(report.left.values()))
