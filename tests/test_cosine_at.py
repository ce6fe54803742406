"""cosine_at where it is hard: knn's own bits, zero rows, rows with themselves, popular rows, any magnitude, NaN."""

from __future__ import annotations

import pytest
import torch

from smore_ext import ops, reference


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def index(rows: int, k: int, limit: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(limit, (rows, k), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 7, 64, 301])
def test_bits_of_knn(dtype: torch.dtype, width: int, device: torch.device) -> None:
    x, queries = randn(90, width).to(device, dtype), randn(40, width, seed=2).to(device, dtype)
    x[10:25] = x[10]
    x[[3, 60]] = 0
    for exclude_self in (False, True):
        similarity, neighbours = ops.knn(x, 20, exclude_self=exclude_self)
        assert torch.equal(ops.cosine_at(x, neighbours), similarity)
    similarity, neighbours = ops.knn(queries, x, 20)
    assert torch.equal(ops.cosine_at(queries, neighbours, x), similarity)


def test_zero_rows_and_a_row_with_itself_have_no_gradient(device: torch.device) -> None:
    x = randn(5, 6).to(device)
    x[2] = 0
    x.requires_grad_()
    named = torch.tensor([[0, 2], [1, 2], [0, 1], [3, 2], [4, 4]], device=device)
    similarity = ops.cosine_at(x, named)
    assert similarity.tolist() == [[1, 0], [1, 0], [0, 0], [1, 0], [1, 1]]
    assert not torch.autograd.grad(similarity.sum(), x)[0].any()


def test_gradients_of_the_tables_that_need_one(device: torch.device) -> None:
    x, base, named = randn(30, 12), randn(20, 12, seed=2), index(30, 4, 20)
    leaves = [t.to(device).requires_grad_() for t in (x, base)]
    both = torch.autograd.grad(ops.cosine_at(leaves[0], named.to(device), leaves[1]).sum(), leaves)
    for one in (0, 1):
        given = [t if i == one else t.detach() for i, t in enumerate(leaves)]
        (alone,) = torch.autograd.grad(ops.cosine_at(given[0], named.to(device), given[1]).sum(), leaves[one])
        assert torch.equal(alone, both[one])
    same = ops.cosine_at(leaves[0], (named % 20).to(device), leaves[0])  # one table as both
    (ours,) = torch.autograd.grad(same.sum(), leaves[0])
    exact = x.double().requires_grad_()
    (wanted,) = torch.autograd.grad(reference.cosine_at(exact, named % 20, exact).sum(), exact)
    torch.testing.assert_close(ours.cpu().double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_row_that_all_name(device: torch.device) -> None:
    x, named = randn(4000, 16), torch.zeros(4000, 3, dtype=torch.int64)
    named[:, 1] = torch.arange(4000)
    named[:, 2] = 3999
    exact = x.double().requires_grad_()
    (wanted,) = torch.autograd.grad(reference.cosine_at(exact, named).sum(), exact)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = x.to(device).requires_grad_()
        results += torch.autograd.grad(ops.cosine_at(leaf, named.to(device)).sum(), leaf)
    assert all(torch.equal(results[0], other) for other in results[1:])
    torch.testing.assert_close(results[0].cpu().double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_rows_whose_squares_leave_float32(scale: float, device: torch.device) -> None:
    x = randn(20, 9) * torch.tensor([scale, 1.0]).repeat(10)[:, None]
    named, exact = index(20, 4, 20), x.double().requires_grad_()
    leaf = x.to(device).requires_grad_()
    ours = ops.cosine_at(leaf, named.to(device))
    torch.testing.assert_close(ours.cpu().double(), reference.cosine_at(exact, named), rtol=0, atol=1e-6)
    (grad,) = torch.autograd.grad(ours.sum(), leaf)
    (wanted,) = torch.autograd.grad(reference.cosine_at(exact, named).sum(), exact)
    size = wanted.abs().amax(dim=1, keepdim=True)
    assert ((grad.cpu().double() - wanted).abs() <= 1e-5 * size).all()


def test_raw_backward_refuses_another_dtype(device: torch.device) -> None:
    x = randn(4, 6).to(device)
    with pytest.raises(TypeError, match="cosine_at_backward: similarity must have the dtype of features"):
        torch.ops.smore_ext.cosine_at_backward(x, x, torch.zeros_like(x).long(), None, x.double())


def test_nan_is_not_hidden(device: torch.device) -> None:
    x = randn(4, 3).to(device)
    x[1, 2] = float("nan")
    assert ops.cosine_at(x, torch.tensor([[2], [3], [1], [0]], device=device)).isnan()[:, 0].tolist() == [0, 1, 1, 0]
