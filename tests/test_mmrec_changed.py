"""What is put off is what it was then, or an error; copies are copies; calls may name their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mmrec_tools import ROOT, load, run, tree
from torch import Tensor, nn

from smore_ext.compat import mmrec
from smore_ext.compat.mmrec.layers import LazyStack
from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.compat.mmrec.lazy_gram import LazyGram
from smore_ext.compat.mmrec.lazy_sparse import LazySparse
from smore_ext.compat.mmrec.proof import by_place
from smore_ext.compat.mmrec.report import Report

N, K = 30, 4


def rows() -> Tensor:
    return nn.functional.normalize(torch.randn(N, 6, generator=torch.Generator().manual_seed(2)), dim=1)


def sparse() -> LazySparse:
    value, index = (rows() @ rows().T).topk(K)
    return LazySparse.from_neighbours(index, value, (N, N))


@pytest.fixture
def patched() -> Iterator[None]:
    with tree(), mmrec.patch(root=ROOT):
        yield


@pytest.mark.parametrize("use", [lambda m: m[0, 0], lambda m: m.mean(dim=1), lambda m: m.topk(2)])
@pytest.mark.parametrize("make", [lambda x: LazyGram.of(x, Report()), lambda x: LazyStack.of([x * 1, x])])
def test_what_is_made_of_changed_rows_is_an_error(make: Callable[[Tensor], Lazy], use: Callable[[Any], Any]) -> None:
    x = rows()
    lazy = make(x)
    x.zero_()
    with pytest.raises(RuntimeError, match="what it is made of was changed in place.*patch.pieces"):
        use(lazy)


@pytest.mark.parametrize("make", [lambda x: LazyGram.of(x, Report()), lambda x: LazyStack.of([x * 1, x])])
def test_what_was_formed_before_the_rows_changed_stays(make: Callable[[Tensor], Lazy]) -> None:
    x = rows()
    lazy, wanted = make(x), make(rows()).dense().clone()
    assert torch.equal(lazy + 0, wanted)
    x.zero_()
    torch.testing.assert_close(lazy.sum(dim=1), wanted.sum(dim=1))
    torch.testing.assert_close(lazy.mean(dim=1), wanted.mean(dim=1))
    assert torch.equal(lazy.topk(2).values, wanted.topk(2).values)


def test_a_view_that_is_written_to_counts() -> None:
    matrix = sparse()
    dense = matrix.dense().clone()
    matrix[0].zero_()
    dense[0].zero_()
    torch.testing.assert_close(matrix @ rows(), dense @ rows())


@pytest.mark.parametrize(
    "copy",
    [
        lambda m: m.clone(),
        lambda m: m.to(torch.float32, copy=True),
        lambda m: m.to(torch.float32, False, True),
        lambda m: m.clone(memory_format=torch.contiguous_format),
    ],
)
def test_a_copy_is_a_copy(copy: Callable[[Any], Any]) -> None:
    matrix = sparse()
    before = matrix.dense().clone()
    other = copy(matrix)
    other[0, 0] = 3.0
    other.mul_(2)
    assert torch.equal(matrix.dense(), before) and float(other[0, 0]) == 6.0
    torch.testing.assert_close(matrix @ rows(), before @ rows())


def test_a_hook_is_heard() -> None:
    x = rows().requires_grad_()
    stack = LazyStack.of([x * 1, x * 2])
    stack.register_hook(lambda grad: grad * 0)
    stack.mean(dim=1).sum().backward()
    assert x.grad is not None and not x.grad.any()


def test_ways_of_calling_that_a_rule_does_not_know() -> None:
    matrix = sparse()
    dense = matrix.dense().clone()
    assert torch.equal(matrix.mul(other=2.0), dense * 2)
    assert torch.equal(matrix.add(other=matrix), dense * 2)
    assert torch.equal(torch.div(matrix, 2, rounding_mode=None), dense / 2)
    zeros = torch.zeros_like(LazyGram.of(rows(), Report()))
    assert float(zeros.scatter_(-1, torch.zeros(N, 1, dtype=torch.int64), value=1.0).sum()) == N


def test_parameters_hold_the_values(patched: None) -> None:
    x = rows()
    for matrix in (x @ x.T, torch.stack([x, x * 2], dim=1), sparse()):
        assert isinstance(matrix, Lazy)
        parameter = nn.Parameter(matrix, requires_grad=False)
        assert type(parameter) is nn.Parameter and torch.equal(parameter, matrix.dense())
        parameter.zero_()
        assert not matrix.sum(dim=1).any()
    table = nn.Embedding.from_pretrained(x @ x.T)
    torch.testing.assert_close(table(torch.tensor([3])), (x @ x.T).dense()[3:4])


def test_transforms_and_autocast_are_left_to_torch(patched: None) -> None:
    x = rows()
    torch.testing.assert_close(torch.vmap(lambda a: (a @ a.T).topk(3)[0])(x[None])[0], (x @ x.T).topk(3)[0])
    sums = torch.func.grad(lambda a: (torch.stack([a, a * 2], dim=1).mean(dim=1)).sum())(x)
    torch.testing.assert_close(sums, torch.full_like(x, 1.5))
    wide = torch.ones(4096, 2)
    assert torch.func.grad(lambda a: nn.functional.dropout(a, 0.5).sum())(wide).shape == wide.shape
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x.T).dtype == torch.bfloat16


def test_arguments_come_by_their_place() -> None:
    def original(model: Any, view1: Any, view2: Any, temperature: float = 0.2) -> Any:
        return "original", view1, view2, temperature

    ours = by_place(original, lambda *args: ("ours", *args))
    for call in (ours(0, 1, 2), ours(0, view2=2, view1=1), ours(0, 1, view2=2, temperature=0.2)):
        assert call == ("ours", 0, 1, 2, 0.2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'view3'"):
        ours(0, 1, view3=2)


def forked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An evaluation of a fork's: another argument, and other users in test."""
    trainer = load("common.trainer").Trainer
    as_is = trainer.evaluate

    def evaluate(self: Any, eval_data: Any, is_test: bool = False, idx: int = 0, load_best_model: bool = False) -> Any:
        found = dict(as_is(self, eval_data, is_test, idx))
        return {name: value / 2 for name, value in found.items()} if is_test else found

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    return trainer


def test_an_evaluation_of_another_kind_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for use in (False, True):
        with tree():
            forked(monkeypatch)
            patch = mmrec.patch(["evaluation"], ROOT) if use else None
            trainer, _ = run("propagating.Propagating", epochs=1)
            _, valid, test = load("utils.dataset").make_loaders(trainer.config)
            calls = [
                trainer.evaluate(valid),
                trainer.evaluate(eval_data=valid),
                trainer.evaluate(valid, load_best_model=False),
                trainer.evaluate(test, is_test=True),
                trainer.evaluate(test, True, 0),
            ]
            outcomes.append([float(call["recall@5"]) for call in calls])
            if patch is not None:
                patch.undo()
            monkeypatch.undo()
    np.testing.assert_allclose(outcomes[1], outcomes[0], atol=1e-4)
    assert outcomes[0][0] == outcomes[0][1] == outcomes[0][2]


def test_values_changed_behind_torchs_back_are_seen() -> None:
    outcomes = []
    for use in (False, True):
        with tree():
            patch = mmrec.patch(["evaluation"], ROOT) if use else None
            trainer, _ = run("propagating.Propagating", epochs=1)
            _, valid, _ = load("utils.dataset").make_loaders(trainer.config)
            found = [trainer.evaluate(valid)["recall@5"]]
            for seed in (3, 4):
                for p in trainer.model.parameters():
                    p.data.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
                found.append(trainer.evaluate(valid)["recall@5"])
            valid.eval_items_per_u = [items[::-1][:1] for items in valid.eval_items_per_u]
            valid.eval_len_list = np.ones(len(valid.eval_items_per_u), dtype=np.int64)
            found.append(trainer.evaluate(valid)["recall@5"])
            outcomes.append([float(value) for value in found])
            if patch is not None:
                patch.undo()
    np.testing.assert_allclose(outcomes[1], outcomes[0], atol=1e-4)
    assert len(set(outcomes[0])) == 4
