"""`F.normalize` under the patch: torch's values and gradients of every order; torch's own where rows are not meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT, tree
from torch import Tensor
from torch.nn import functional as F

from smore_ext.compat import mmrec
from smore_ext.compat.mmrec.unit_rows import unit_rows


@pytest.fixture(autouse=True)
def tiny_tree() -> Iterator[None]:
    with tree():
        yield
        mmrec.undo()


def rows(dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x[2], x[3], x[4] = 0.0, 1e-14, 1e3
    return x.requires_grad_()


def ours(run: Any) -> bool:
    with torch.profiler.profile() as profile:
        run()
    return any(event.name == "_UnitRows" for event in profile.events())


@pytest.mark.parametrize("eps", [1e-12, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(dtype: torch.dtype, eps: float) -> None:
    x = rows(dtype)
    theirs = F.normalize(x, eps=eps)
    weights = torch.linspace(-1, 2, 40, dtype=dtype).view(8, 5)
    with mmrec.patch("normalize", ROOT) as report:
        assert report.replaced == ["F.normalize"]
        assert ours(lambda: F.normalize(x))
        value = F.normalize(x, 2, -1, eps)
    torch.testing.assert_close(value, theirs)
    (grad,) = torch.autograd.grad(value, x, weights)
    (own,) = torch.autograd.grad(theirs, x, weights)
    torch.testing.assert_close(grad, own)


def test_what_it_gives_may_be_written_into() -> None:
    x = rows()
    F.normalize(x).mul_(2).sum().backward()
    theirs, x.grad = x.grad, None
    with mmrec.patch("normalize", ROOT):
        F.normalize(x).mul_(2).sum().backward()
        torch.func.grad(lambda x: F.normalize(x).sum())(x.detach())
    torch.testing.assert_close(x.grad, theirs)


def test_gradients_of_gradients() -> None:
    x = rows().detach()[4:].requires_grad_()
    torch.autograd.gradcheck(unit_rows, x)
    torch.autograd.gradgradcheck(unit_rows, x)


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (rows(), {"p": 1}),
        (rows(), {"dim": 0}),
        (rows().detach(), {}),
        (rows().detach().view(2, 4, 5).requires_grad_(), {"dim": 2}),
        (rows().detach().half().requires_grad_(), {}),
        (rows(), {"dim": (0, 1)}),
        (rows(), {"eps": 0.0}),
    ],
)
def test_what_is_left_to_torch(x: Tensor, options: dict[str, Any]) -> None:
    theirs = F.normalize(x, **options)
    with mmrec.patch("normalize", ROOT):
        assert not ours(lambda: F.normalize(x, **options))
        torch.testing.assert_close(F.normalize(x, **options), theirs, rtol=0, atol=0, equal_nan=True)


def test_torchs_own_errors_stay() -> None:
    with mmrec.patch("normalize", ROOT), pytest.raises(IndexError):
        F.normalize(rows(), dim=2)
