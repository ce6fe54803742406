"""Dropout under the patch: other draws of the same chance, and torch's own where it is not worth it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mmrec_tools import ROOT, tree
from torch import nn
from torch.nn import functional as F

from smore_ext.compat import mmrec

LARGE, SMALL = torch.ones(300, 64), torch.ones(10, 6)


@pytest.fixture(autouse=True)
def tiny_tree() -> Iterator[None]:
    with tree():
        yield
        mmrec.undo()


def ops_called(run: object) -> bool:
    with torch.profiler.profile() as profile:
        run()  # type: ignore[operator]
    return any(event.name == "smore_ext::dropout" for event in profile.events())


def test_modules_and_functions_are_reached() -> None:
    layer = nn.Dropout(0.4)
    with mmrec.patch("dropout", ROOT) as report:
        assert report.replaced == ["F.dropout"]
        assert ops_called(lambda: layer(LARGE)) and ops_called(lambda: F.dropout(LARGE, 0.4))
        y = layer(LARGE)
        assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.6)]
        assert abs(float((y == 0).double().mean()) - 0.4) < 0.02
    assert not ops_called(lambda: layer(LARGE))


def test_draws_follow_torchs_seed_and_differ_between_calls() -> None:
    with mmrec.patch("dropout", ROOT):
        torch.manual_seed(5)
        first, second = F.dropout(LARGE), F.dropout(LARGE)
        torch.manual_seed(5)
        assert torch.equal(F.dropout(LARGE), first) and not torch.equal(first, second)


def test_the_proof_draws_nothing_from_outside() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with mmrec.patch("dropout", ROOT):
        assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_those_of_what_is_kept() -> None:
    x = LARGE.clone().requires_grad_()
    with mmrec.patch("dropout", ROOT):
        y = F.dropout(x, 0.25)
        (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y.detach())


@pytest.mark.parametrize(
    "arguments",
    [
        (SMALL, 0.5),
        (LARGE, 0.0),
        (LARGE, 1.0),
        (LARGE, 0.5, False),
        (LARGE.clone(), 0.5, True, True),
        (LARGE.half(), 0.5),
    ],
)
def test_what_is_left_to_torch(arguments: tuple) -> None:
    value, *more = arguments
    torch.manual_seed(1)
    theirs = F.dropout(value.clone(), *more)
    with mmrec.patch("dropout", ROOT):
        torch.manual_seed(1)
        assert torch.equal(F.dropout(value.clone(), *more), theirs)
        assert not ops_called(lambda: F.dropout(value.clone(), *more))


def test_torchs_own_errors_stay() -> None:
    with mmrec.patch("dropout", ROOT), pytest.raises(ValueError, match="dropout probability"):
        F.dropout(LARGE, 1.5)
