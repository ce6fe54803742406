"""torch_scatter's sums and means under the patch, against torch_scatter or what stands for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT, load, tree
from torch import Tensor

from smore_ext.compat import mmrec

N, E, WIDTH = 9, 40, 8


@pytest.fixture(autouse=True)
def tiny_tree() -> Iterator[None]:
    with tree():
        fixes = mmrec.fix_environment()
        yield
        mmrec.undo()
        fixes.undo()


def index_of(seed: int = 0) -> Tensor:
    return torch.randint(N - 1, (E,), generator=torch.Generator().manual_seed(seed))  # the last row gets nothing


def outcome(function: Any, index: Tensor, n: int = N, width: int = WIDTH) -> list[Tensor]:
    rows = torch.randn(index.shape[0], width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = function(rows, index, n)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), rows)]


@pytest.mark.parametrize("name", ["total", "mean"])
def test_values_and_gradients_are_the_same(name: str) -> None:
    function = getattr(load("models.scattering"), name)
    theirs = outcome(function, index_of())
    with mmrec.patch("scatter", ROOT) as report:
        for _ in range(3):  # sorted the second time, known the third
            torch.testing.assert_close(outcome(function, index_of()), theirs)
        assert {"torch_scatter.scatter", "torch_scatter.scatter_add"} <= set(report.replaced)
    assert all(torch.equal(a, b) for a, b in zip(outcome(function, index_of()), theirs, strict=True))


def test_an_index_that_comes_again_is_summed_by_a_product() -> None:
    function = load("models.scattering").total
    with mmrec.patch("scatter", ROOT):
        called = []
        for _ in range(3):
            with torch.profiler.profile() as profile:
                outcome(function, index_of())
            called.append(any(event.name == "smore_ext::spmm" for event in profile.events()))
        assert called == [False, True, True]


def test_what_differs_in_size_or_content_is_not_mixed_up() -> None:
    function = load("models.scattering").total
    cases = [(index_of(), N), (index_of(), N + 3), (index_of(5), N), (index_of()[:-1], N)]
    theirs = [outcome(function, *case) for case in cases]
    with mmrec.patch("scatter", ROOT):
        for _ in range(3):
            torch.testing.assert_close([outcome(function, *case) for case in cases], theirs)


def test_narrow_rows_and_bad_indices_are_left_to_the_library() -> None:
    function, wrong = load("models.scattering").total, index_of().clone()
    wrong[3] = N
    theirs = outcome(function, index_of(), width=2)
    with mmrec.patch("scatter", ROOT):
        for _ in range(2):
            assert all(torch.equal(a, b) for a, b in zip(outcome(function, index_of(), width=2), theirs, strict=True))
            with pytest.raises(RuntimeError, match="out of bounds"):
                outcome(function, wrong)


def test_the_library_is_as_before_after_undo() -> None:
    load("models.scattering")
    before = dict(vars(sys.modules["torch_scatter"]))
    with mmrec.patch("scatter", ROOT):
        assert dict(vars(sys.modules["torch_scatter"])) != before
    assert dict(vars(sys.modules["torch_scatter"])) == before
