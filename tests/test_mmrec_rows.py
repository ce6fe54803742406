"""Losses by rows: the values and gradients of the whole matrices, whatever is done between."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from mmrec_tools import ROOT, tree
from torch import Tensor, nn
from torch.nn import functional as F

from smore_ext import ops
from smore_ext.compat import mmrec
from smore_ext.compat.mmrec import deferred
from smore_ext.compat.mmrec.deferred import Asked, Deferred, Step
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.row_rules import RULES
from smore_ext.compat.mmrec.rows import Rows
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.compat.mmrec.tree import Tree

N, D = 60, 6
OWN = frozenset({"dropout", "normalize"})
INDEX = torch.tensor([3, 17, 3, 59, 0])
WEIGHT, BIAS = torch.randn(4, D, generator=torch.Generator().manual_seed(1)).double(), torch.ones(4).double()
LIVE = WEIGHT.clone().requires_grad_()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "LEAST", 40)


def table(seed: int = 0, n: int = N) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()


def both(function: Callable[..., Any], *tensors: Tensor) -> tuple[Step, list[Any]]:
    """The same by torch and in a step: values and gradients are compared. Gives the step, and what the function did."""
    outcomes, given, step = [], [], Step(RULES, set(), OWN)
    for inside in (False, True):
        leaves = [t.detach().clone().requires_grad_(t.requires_grad) for t in tensors]
        if inside:
            with step:
                found = function(*leaves)
                given.append(found)
                value = formed(found)
        else:
            value = function(*leaves)
        total = (value * torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape)).sum()
        grads = torch.autograd.grad(total, [t for t in leaves if t.requires_grad], allow_unused=True)
        outcomes.append((value.detach(), [torch.zeros(()) if g is None else g for g in grads]))
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-12, atol=1e-13)
    return step, given


BY_ROWS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "linear": lambda x, y: F.linear(x, WEIGHT, BIAS)[INDEX],
    "product": lambda x, y: (x @ WEIGHT.T).tanh()[INDEX, :],
    "gate": lambda x, y: (x.sigmoid() * y + 0.5 * x - 1.0).index_select(0, INDEX),
    "reversed": lambda x, y: (1.0 / (2.0 + x.exp()) - (3.0 - y) ** 2)[INDEX],
    "softmax": lambda x, y: (torch.softmax(x, dim=-1) * F.log_softmax(y, 1))[INDEX],
    "unit": lambda x, y: (F.normalize(x) + F.normalize(y, p=2, dim=-1))[INDEX],
    "lengths": lambda x, y: (x * torch.norm(y, p=2, dim=-1, keepdim=True) + y.norm(dim=1).unsqueeze(-1))[INDEX],
    "scores": lambda x, y: (x * y).sum(dim=1)[INDEX],
    "columns": lambda x, y: (x[:, 0].unsqueeze(dim=1) * y + x[:, 1:2] * y)[INDEX],
    "viewed": lambda x, y: ((x * y).sum(-1).view(-1, 1) * x)[INDEX],
    "beside": lambda x, y: torch.cat([x, y, x * y], dim=-1)[INDEX],
    "below": lambda x, y: torch.cat([x * 2, y, x.exp()])[torch.tensor([0, 61, 178, 59, 60])],
    "mean of layers": lambda x, y: torch.stack([x, y, x * y], dim=1).mean(dim=1, keepdim=False)[INDEX],
    "mean of views": lambda x, y: torch.mean(torch.stack([x, y, x * y]), dim=0)[INDEX],
    "halves": lambda x, y: torch.cat([h[INDEX % 20] for h in torch.split(x * y, [20, 40])]),
    "slices": lambda x, y: (x * y)[:25][INDEX % 25] + (x + y)[30:, :][INDEX % 30, :],
    "bent": lambda x, y: F.leaky_relu(F.elu(x) + torch.relu(y)).clone()[INDEX],
    "one row for all": lambda x, y: (x * y[:1].detach().clone() + WEIGHT[0])[INDEX],
    "frozen times trained": lambda x, y: (y.detach() @ LIVE.T + F.linear(y.detach(), LIVE, BIAS))[INDEX],
    "embedding": lambda x, y: F.embedding(INDEX, x) * y[INDEX],
    "added in place": lambda x, y: _added(x * 2, y.exp())[INDEX],
    "no dropout": lambda x, y: F.dropout(x * y, 0.0)[INDEX] + F.dropout(x + y, 0.5, training=False)[INDEX],
    "half without gradients": lambda x, y: (x * _frozen(x * y))[INDEX],
    "looked at without gradients": lambda x, y: _looked_at((x * y)[INDEX]),
}


def _added(x: Tensor, y: Tensor) -> Tensor:
    x += y
    x /= 3
    return x.mul_(2).sub_(y)


@torch.no_grad()
def _frozen(x: Tensor) -> Tensor:
    return x * 2 + x.detach()


def _looked_at(rows: Tensor) -> Tensor:
    with torch.no_grad():
        rows.sum().item()
    return rows


@pytest.mark.parametrize("name", BY_ROWS)
def test_rows_alone(name: str) -> None:
    step, _ = both(BY_ROWS[name], table(), table(1))
    assert step.asked and not step.whole_before


WHOLE: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "sums over rows": lambda x, y: (x * y).sum(0),
    "softmax over rows": lambda x, y: (x * y).softmax(0)[INDEX],
    "in order": lambda x, y: (x * y).cumsum(0)[INDEX],
    "all": lambda x, y: (x * y).pow(2).sum() + (x * y).norm(p=2),
    "transposed": lambda x, y: (x * y).T @ y,
    "to the right": lambda x, y: torch.mm(y.T, x * y),
    "each with each": lambda x, y: ((x * y) @ (x + y).T)[INDEX],
    "from the end": lambda x, y: (x * y)[INDEX - 60],
    "by a mask": lambda x, y: (x * y)[torch.arange(60) % 2 == 0],
    "every other": lambda x, y: (x * y)[::2],
    "one": lambda x, y: (x * y)[7],
    "reshaped": lambda x, y: (x * y).view(-1, 2 * D)[:30],
    "folded": lambda x, y: (x * y).view(N // 2, 2, D).sum(1),
    "in a list": lambda x, y: torch.einsum("nd,nd->n", [x * y, x + y]),
    "stacked": lambda x, y: torch.stack([x * y, x]).max(0).values,
    "written into": lambda x, y: _written(x * y),
    "halved": lambda x, y: (x * y).float().double()[INDEX],
    "aligned otherwise": lambda x, y: (x * y)[:, 0] * (x + y)[:, 1].view(-1, 1),
}


def _written(x: Tensor) -> Tensor:
    x[3] = 0.0
    return x


@pytest.mark.parametrize("name", WHOLE)
def test_anything_else_is_torchs(name: str) -> None:
    both(WHOLE[name], table(), table(1))


def test_errors_are_torchs() -> None:
    x = table()
    for wrong in (
        lambda x: (x * 2)[torch.tensor([60])],
        lambda x: (x * 2)[:30][torch.tensor([30])],
        lambda x: x * torch.ones(N, D + 1),
        lambda x: F.linear(x * 2, WEIGHT[:, 1:]),
        lambda x: (x * 2).no_such_name,
    ):
        with pytest.raises((IndexError, RuntimeError, AttributeError)) as theirs:
            wrong(x)
        with pytest.raises(theirs.type), Step(RULES, set(), OWN):
            formed(wrong(x))


def test_results_that_go_into_a_given_place() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        h = x * 2
        before, place, product = h + 1, y.detach().clone(), torch.empty(N, 4).double()
        other = x + place
        torch.add(y.detach(), 5.0, out=place)
        F.leaky_relu(h, 0.3, inplace=True)
        torch.mm(y.detach(), WEIGHT.T, out=product)
        return torch.cat([before[INDEX], h[INDEX], other[INDEX], product[INDEX] @ WEIGHT], 1)

    both(loss, table(), table(1))


def test_a_batch_of_most_rows_makes_all() -> None:
    both(lambda x: (x * 2).exp()[torch.arange(50)], table())


def test_what_a_matrix_was_before_it_was_written_into() -> None:
    def before_and_after(x: Tensor, y: Tensor) -> Tensor:
        h = x * y
        before = h.sigmoid()
        h += 1
        plain = y.detach().clone()
        given = x + plain
        plain.mul_(3)
        part = (x + y)[:30]
        copy = x * 3
        copy.view(3, -1).mul_(2)
        return torch.cat([before[INDEX], h[INDEX], given[INDEX], part[INDEX % 30], copy[INDEX]])

    both(before_and_after, table(), table(1))


@pytest.mark.parametrize(
    "view",
    [
        lambda h: h[10:50],
        lambda h: h[10:, :],
        lambda h: h[:, 1:4],
        lambda h: h.unsqueeze(1),
        lambda h: h.view(-1, 2, 3),
    ],
)
def test_views_and_what_they_show_share_what_is_written(view: Callable[[Tensor], Tensor]) -> None:
    def into_whole(x: Tensor) -> Tensor:
        h = x * 2
        part = view(h)
        h += 1
        return part.sum() + h[INDEX].sum()

    def into_part(x: Tensor) -> Tensor:
        h = x * 2
        part = view(h)
        part *= 3
        return h[INDEX]

    both(into_whole, table())
    both(into_part, table())


def test_rows_that_are_asked_for_together_are_made_once() -> None:
    calls: list[int] = []

    def watched(x: Tensor) -> Tensor:
        calls.append(x.shape[0])
        return x * 2

    with Step(RULES, set(), OWN) as step:
        h = step.apply(N, watched, (step.node_of(table()),), {})
        u, i = h.split([20, 40])
        calls.clear()  # two rows are tried
        asked = [u[INDEX % 20], i[INDEX % 40], i[INDEX % 7], h[INDEX % 20]]
        assert all(type(a) is Asked for a in asked)
        (asked[0] * asked[1]).sum()
        later = u[INDEX % 20].exp()  # known
        del h, u, i
    assert type(later) is Tensor
    assert calls == [len({*(INDEX % 20).tolist(), *(INDEX % 40 + 20).tolist(), *(INDEX % 7 + 20).tolist()})]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_contrast_of_rows_that_come_several_times(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from smore_ext.compat.mmrec.contrast import Contrast

    class Contrasting(nn.Module):
        def InfoNCE(self, x: Tensor, y: Tensor, temperature: float) -> Tensor:  # noqa: N802
            x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
            own, every = (x * y).sum(1) / temperature, (x @ y.T / temperature).exp().sum(1)
            return getattr(every.log() - own, reduction)()

    with tree():
        swaps, found = Swaps(Tree(ROOT)), Report()
        module = ModuleType(__name__)
        vars(module).update(Contrasting=Contrasting)
        model, theirs = Contrasting(), Contrasting.InfoNCE
        Contrast(found, swaps).visit(module)
        index = torch.tensor([3, 17, 3, 59, 3, 0, 17])

        def loss(x: Tensor, y: Tensor) -> Tensor:
            side, content = x * 2, x + y
            contrast = model.InfoNCE if deferred.in_step() else lambda *a: theirs(model, *a)
            return contrast(side[:40][index % 40], content[:40][index % 40], 0.5) + contrast(
                side[index], content[index * 2 % 60], 0.5
            )

        seen, whole = [], ops.info_nce

        def watched(x: Tensor, *more: Any, counts: Tensor | None = None) -> Tensor:
            seen.append((len(x), None if counts is None else counts.tolist()))
            return whole(x, *more, counts=counts)

        monkeypatch.setattr(ops, "info_nce", watched)
        both(loss, table(), table(1))
        swaps.undo()
    assert found.replaced and seen[-2:] == [(4, [1, 3, 2, 1]), (7, None)]


def test_dropout_drops_the_same_of_a_row_wherever_it_is_named() -> None:
    x = torch.ones(N, 64).requires_grad_()
    with Step(RULES, set(), OWN):
        h = F.dropout(x * 2, 0.5)
        first, second = h[torch.tensor([4, 9, 4])], h[torch.tensor([9, 5])]
        rows = torch.cat([first, second])
        torch.testing.assert_close(rows[0], rows[2], rtol=0, atol=0)
        torch.testing.assert_close(rows[1], rows[3], rtol=0, atol=0)
        assert rows.unique().tolist() == [0.0, 4.0] and not torch.equal(rows[0], rows[1])
    torch.manual_seed(3)
    theirs = F.dropout(x * 2, 0.5)[:2]
    torch.manual_seed(3)
    with Step(RULES, set(), frozenset()):
        torch.testing.assert_close(formed(F.dropout(x * 2, 0.5)[torch.tensor([0, 1])]), theirs)


def test_a_later_pass_makes_at_once_what_was_made_whole() -> None:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        item = x.sigmoid() * y
        product = torch.mm(torch.eye(N).double(), item)
        return (product.exp() + item)[INDEX].sum()

    x, y, whole = table(), table(1), set()  # type: Tensor, Tensor, set[int]
    for _ in range(3):
        with Step(RULES, whole, OWN):
            value = formed(loss(x, y))
        torch.testing.assert_close(value, loss(x, y))
    assert whole == {0, 1}  # the sigmoid and what is multiplied; neither exp nor sum


class Model(nn.Module):
    """A loss as trees have it, which also keeps its matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(N, D), nn.Embedding(N, D)
        self.layer, self.drop = nn.Linear(D, D), nn.Dropout(0.3)
        self.register_buffer("calls", torch.zeros(()))
        self.times = 0

    def forward(self) -> Tensor:
        nodes = torch.cat([self.user.weight, self.item.weight], dim=0)
        self.result = self.drop(torch.sigmoid(self.layer(nodes))) * nodes
        return self.result

    def calculate_loss(self, batch: Tensor) -> Any:
        self.times += 1
        self.calls += 1
        users, items = self.forward().split([N, N])
        return -F.logsigmoid((users[batch[0]] * items[batch[1]]).sum(1)).mean()


class Named(Model):
    def calculate_loss(self, batch: Tensor) -> Any:
        nodes = _named_dropout(self.user.weight * 2, 0.5)
        return super().calculate_loss(batch) + nodes[batch[0]].sum()


class Failing(Model):
    def calculate_loss(self, batch: Tensor) -> Any:
        loss = super().calculate_loss(batch)
        if self.times > 3:
            raise ZeroDivisionError
        return loss


_named_dropout = F.dropout  # a name that nobody can replace here
BATCH = torch.stack([INDEX % 40, (INDEX * 7) % 40])


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Iterator[Report]:
    """The classes above, patched as a tree's are."""
    monkeypatch.setattr(deferred, "LEAST", 40)
    found, swaps = Report(), Swaps(Tree(ROOT))
    module = ModuleType(__name__)
    vars(module).update(Model=Model, Named=Named, Failing=Failing)
    Rows(found, swaps, OWN).visit(module)
    yield found
    swaps.undo()


def test_a_model_is_tried_and_left_as_it_was(report: Report) -> None:
    model = Model()
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.calculate_loss(BATCH).backward()
    assert report.replaced == ["Model.calculate_loss"]
    assert model.times == 1 and model.calls.item() == 1
    before["calls"] += 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(torch.get_rng_state(), state)  # dropout was drawn, of the pass that counts
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_what_a_model_keeps_is_of_the_parameters_of_its_pass(report: Report) -> None:
    model = Model().eval()
    model.calculate_loss(BATCH).backward()
    assert isinstance(model.result, Deferred)
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    kept = model.result[:5].detach()
    assert type(kept) is Tensor and model.result.requires_grad
    again = model.forward()[:5]
    assert not torch.allclose(kept, again)
    with torch.no_grad():
        for p in model.parameters():
            assert p.grad is not None
            p += p.grad
    torch.testing.assert_close(kept, model.forward()[:5].detach())


def test_a_loss_that_cannot_be_compared_is_left(report: Report) -> None:
    model = Named()
    model.calculate_loss(BATCH).backward()
    assert "differs" in report.left["Named.calculate_loss"] and "Named.calculate_loss" not in report.replaced


def test_an_error_of_the_loss_is_its_own_and_ends_the_step(report: Report) -> None:
    model = Failing().eval()
    for _ in range(3):
        model.calculate_loss(BATCH)
    with pytest.raises(ZeroDivisionError):
        model.calculate_loss(BATCH)
    assert not deferred.in_step()
    assert type(model.user.weight * 2) is Tensor


def test_nothing_of_a_step_outlives_it(report: Report) -> None:
    model = Model()
    steps: list[weakref.ref[Step]] = []
    seen = Step.__enter__

    def watched(step: Step) -> Step:
        steps.append(weakref.ref(step))
        return seen(step)

    Step.__enter__ = watched  # type: ignore[method-assign]
    try:
        for _ in range(3):
            model.calculate_loss(BATCH).backward()
    finally:
        Step.__enter__ = seen  # type: ignore[method-assign]
    model.result = None  # type: ignore[assignment]
    gc.collect()
    assert steps and not any(ref() for ref in steps)


class Writing(Model):
    def calculate_loss(self, batch: Tensor) -> Any:
        batch[1] += 1
        return super().calculate_loss(batch)


def test_a_batch_that_the_loss_writes_into(report: Report) -> None:
    module = ModuleType(__name__)
    vars(module).update(Writing=Writing)
    swaps = Swaps(Tree(ROOT))
    Rows(report, swaps, OWN).visit(module)
    model, theirs = Writing().eval(), BATCH.clone()
    own = theirs.clone()
    value = model.calculate_loss(own)
    swaps.undo()
    torch.testing.assert_close(value, Writing.calculate_loss(model, theirs))
    assert torch.equal(own, theirs) and "Writing.calculate_loss" in report.replaced


def test_under_autocast_and_transforms() -> None:
    x, weight = table().float().detach().requires_grad_(), WEIGHT.float()
    with Step(RULES, set(), OWN) as step:
        h = F.linear(x, weight)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert F.linear(x, weight).dtype == torch.bfloat16  # as without a step
            assert formed(h[INDEX]).dtype == torch.float32  # what was before autocast is of before it
        asked = step.asked
        grad = torch.func.grad(lambda x: (x * 2)[INDEX].sum())(x)
        assert step.asked == asked
    expected = torch.zeros(N, D).index_add(0, INDEX, torch.full((len(INDEX), D), 2.0))
    torch.testing.assert_close(grad, expected)


def test_no_gradients_no_step(report: Report) -> None:
    with torch.no_grad():
        Model().calculate_loss(BATCH)
    assert not report.entries


def test_where_rounding_is_all_there_is(report: Report) -> None:
    """A bias whose gradient is zero but for rounding: the two ways differ there by all of it."""

    class Cancelling(Model):
        def calculate_loss(self, batch: Tensor) -> Any:
            h = torch.exp(self.layer(self.user.weight))
            h = h / (h.norm(dim=1, keepdim=True) + 1e-9)
            return ((h[batch[0]] - h[batch[1]]) * 3).sigmoid().sum()

    torch.manual_seed(0)
    module = ModuleType(__name__)
    vars(module).update(Cancelling=Cancelling)
    with tree():
        swaps = Swaps(Tree(ROOT))
        Rows(report, swaps, OWN).visit(module)
        Cancelling().calculate_loss(torch.stack([INDEX % 40, INDEX % 40]))
        swaps.undo()
    assert "Cancelling.calculate_loss" in report.replaced


def test_rows_are_a_piece() -> None:
    assert "rows" in mmrec.PIECES
