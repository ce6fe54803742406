"""Losses by rows when something is changed between: what was put off is of the values that there were."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT, tree
from test_mmrec_rows import BATCH, INDEX, OWN, D, Model, N, both, table
from torch import Tensor, nn
from torch.nn import functional as F

from smore_ext.compat.mmrec import deferred
from smore_ext.compat.mmrec.deferred import Asked, Deferred, Step
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.row_rules import RULES
from smore_ext.compat.mmrec.rows import Rows
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.compat.mmrec.tree import Tree


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "LEAST", 40)


def test_a_row_has_one_mask_in_a_pass() -> None:
    x = torch.ones(N, 64).requires_grad_()
    with Step(RULES, set(), OWN):
        h = F.dropout(x * 2, 0.5)
        first = formed(h[torch.tensor([4, 9])])
        second = formed(h[torch.tensor([7, 4])])  # another set of rows, in which 4 stands elsewhere
        every = h.sum(0) * 0 + h.T.T  # all of them
        assert torch.equal(second[1], first[0]) and torch.equal(every[[4, 9, 7]], torch.stack([*first, second[0]]))
        assert not torch.equal(second[0], first[0]) and len({tuple(row.tolist()) for row in every.detach()}) == N
        (grad,) = torch.autograd.grad(every.sum(), x, retain_graph=True)
    torch.testing.assert_close(grad, every.detach())


def test_two_readers_of_a_dropout_read_the_same() -> None:
    x, y = torch.ones(N, 64).requires_grad_(), torch.ones(N, 64).requires_grad_()
    with Step(RULES, set(), OWN):
        h = F.dropout(x * 2, 0.5)
        one, other = (h + y)[torch.tensor([4, 9])], (h * y)[torch.tensor([30, 9])]
        assert torch.equal(formed(one)[1] - 1, formed(other)[1])


class Tracing(Model):
    """One that changes itself in each pass, in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(D))
        self.copied = nn.Parameter(torch.zeros(D), requires_grad=False)
        self.memory, self.losses = torch.zeros(D), []

    def calculate_loss(self, batch: Tensor) -> Any:
        loss = super().calculate_loss(batch)
        step = 1.0 + self.mean.sum() + self.copied.sum() + self.memory.sum() + len(self.losses)
        self.mean = self.mean + 1
        self.copied.data.mul_(0.5).add_(1)
        self.memory[2] += 1
        self.losses.append(0)
        return loss * step


def test_a_trial_leaves_no_trace() -> None:
    module, report = ModuleType(__name__), Report()
    vars(module).update(Tracing=Tracing)
    with tree():
        swaps = Swaps(Tree(ROOT))
        Rows(report, swaps, OWN).visit(module)
        model = Tracing().eval()
        version = model.user.weight._version
        ours = [model.calculate_loss(BATCH) for _ in range(2)]
        swaps.undo()
    assert "Tracing.calculate_loss" in report.replaced and model.user.weight._version == version
    twin = Tracing().eval()
    names = ("user.weight", "item.weight", "layer.weight", "layer.bias")
    twin.load_state_dict({name: model.state_dict()[name] for name in names}, strict=False)
    torch.testing.assert_close(ours, [twin.calculate_loss(BATCH) for _ in range(2)])
    assert model.losses == [0, 0] and torch.equal(model.memory, twin.memory) and torch.equal(model.copied, twin.copied)


def test_a_matrix_of_an_earlier_pass() -> None:
    x, y = table(), table(1)
    with Step(RULES, set(), OWN):
        kept = x * y
    with Step(RULES, set(), OWN):
        h = x + y
        rows = [formed((h - kept)[INDEX]), formed((kept - h)[INDEX]), formed(torch.cat([h, kept], 1)[INDEX])]
    whole = [x + y - x * y, x * y - x - y, torch.cat([x + y, x * y], 1)]
    torch.testing.assert_close(rows, [w[INDEX] for w in whole])


def test_what_was_kept_when_a_pass_failed() -> None:
    x, y, kept = table(), table(1), []
    with pytest.raises(ZeroDivisionError), Step(RULES, set(), OWN):
        kept.append(x * y)
        raise ZeroDivisionError
    before = (x * y).detach()
    with torch.no_grad():
        x.mul_(3)
    torch.testing.assert_close(kept[0].detach(), before)


def test_an_index_and_small_tensors_that_are_written_into() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        index, scale, bank = INDEX.clone() % 40, torch.ones(D).double(), y.detach().clone()
        h = x + scale
        with torch.no_grad():
            u = h[index]
        index += 7
        similar = h + bank
        scale += 2
        with torch.no_grad():
            bank[INDEX] = h[INDEX]
        return torch.cat([u, h[index], similar[index], (x + scale)[index]])

    both(loss, table(), table(1))


def test_rows_that_are_written_into() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        h = x * y
        u, v, w = h[INDEX], h[INDEX], h[INDEX % 30]
        u += 1
        with torch.no_grad():
            t = h[INDEX]
            t.mul_(0)
        w *= 2
        return torch.cat([u, v, w])

    both(loss, table(), table(1))


def test_in_place_without_gradients_keeps_the_history() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        h = x + y
        with torch.no_grad():
            h.mul_(0.5)
        return h[INDEX]

    both(loss, table(), table(1))


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


def test_functions_of_autograd_see_the_history() -> None:
    with tree():
        swaps = Swaps(Tree(ROOT))
        Rows(Report(), swaps, OWN)
        both(lambda x, y: Reversed.apply(x * y)[INDEX] + Reversed.apply((x + y)[INDEX]), table(), table(1))
        swaps.undo()
    assert "apply" in vars(torch.autograd.Function) and torch.autograd.Function.apply.__module__.startswith("torch")


def test_a_stack_holds_what_its_parts_were() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        a, b = x * 2, x * y
        layers = torch.stack([a, b], 1)
        a += 1
        return torch.cat([layers.mean(1)[INDEX], a[INDEX], layers.max(1).values[INDEX]])

    both(loss, table(), table(1))
    x = table()
    with Step(RULES, set(), OWN):
        kept = torch.stack([x, x * 2], dim=1)
    before = torch.stack([x, x * 2], dim=1).detach()
    with torch.no_grad():
        x.mul_(3)
    torch.testing.assert_close(kept.detach(), before)


def test_other_names_of_arguments() -> None:
    weight = torch.ones(2, D, 3).double()
    both(lambda x, y: torch.cat([x * 2, y], axis=1)[INDEX], table(), table(1))
    both(lambda x, y: torch.stack([x * 2, y], axis=1).mean(1)[INDEX], table(), table(1))
    both(lambda x, y: ((x * y) @ weight).mean(1), table(), table(1))
    both(lambda x, y: torch.dropout(x * y, 0.5, train=False)[INDEX], table(), table(1))
    with pytest.raises(IndexError), Step(RULES, set(), OWN):
        formed(torch.cat([table() * 2, table()], dim=2))


def test_rows_looked_at_in_inference_mode() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        u = (x * y)[INDEX]
        with torch.inference_mode():
            u.norm().item()
        return u

    both(loss, table(), table(1))


def test_a_step_is_of_one_thread() -> None:
    found: list[Any] = []
    with Step(RULES, set(), OWN):
        thread = threading.Thread(target=lambda: found.extend([deferred.in_step(), type(table() * 2)]))
        thread.start()
        thread.join()
        assert deferred.in_step() and type(table() * 2) is Deferred
    assert found == [False, Tensor]


def test_what_is_kept_holds_no_more_than_itself() -> None:
    x = table()
    with Step(RULES, set(), OWN):
        rows = (x * 2)[INDEX]
    assert type(rows) is Asked and not hasattr(rows, "request")
