"""Where an op cannot do what is asked it says so: tensors on two devices, gradients that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn

from smore_ext import Graph, ops, reference
from smore_ext.testing import CASES, OpCase, differentiable_tensors, map_tensors
from smore_ext.testing.checks import is_empty

ROWS = torch.randn(4, 3)
SEEN = Graph.from_edges(torch.tensor([0]), torch.tensor([1]), None, (4, 4))
IDS = torch.tensor([0, 1, 1, 0])
META = torch.device("meta")

MIXED: dict[str, tuple[Callable[[], object], str]] = {
    "masked_topk": (lambda: ops.masked_topk(ROWS, ROWS.to(META), 2), "items must be on the device of users"),
    "masked_topk-seen": (lambda: ops.masked_topk(ROWS, ROWS, 2, SEEN.to(META)), "seen_rowptr must be on the device"),
    "sample_negatives": (
        lambda: ops.sample_negatives(IDS, SEEN.to(META), torch.arange(4), 1),
        "seen_rowptr must be on the device of users",
    ),
    "factored_adam_": (
        lambda: ops.factored_adam_(
            *(torch.zeros(2, 3) for _ in range(3)),
            torch.ones(2, 1, device=META),
            torch.ones(1, 3),
            torch.tensor(1.0),
            0.1,
        ),
        "grad_rows must be on the device of param",
    ),
    "factored_adam_-step": (
        lambda: ops.factored_adam_(
            *(torch.zeros(2, 3) for _ in range(3)), torch.ones(2, 1), torch.ones(1, 3), torch.ones((), device=META), 0.1
        ),
        "step must be on the device of param",
    ),
    "factored_adam_-lr": (
        lambda: ops.factored_adam_(
            *(torch.zeros(2, 3) for _ in range(3)),
            torch.ones(2, 1),
            torch.ones(1, 3),
            torch.ones(()),
            torch.ones((), device=META),
        ),
        "lr_tensor must be on the device of param",
    ),
    "table_linear_backward": (
        lambda: torch.ops.smore_ext.table_linear_backward(ROWS, ROWS.to(META)),
        "table must be on the device of grad",
    ),
    "spectral_filter_backward": (
        lambda: torch.ops.smore_ext.spectral_filter_backward(ROWS, ROWS.to(META), torch.ones(2, 2)),
        "x must be on the device of grad",
    ),
    "info_nce_backward": (
        lambda: torch.ops.smore_ext.info_nce_backward(torch.ones(()), ROWS.to(META), ROWS, torch.ones(4), 0.2),
        "x must be on the device of grad",
    ),
    "info_nce_backward-counted": (
        lambda: torch.ops.smore_ext.info_nce_backward.counted(
            torch.ones(()), ROWS, ROWS, torch.ones(4).long().to(META), torch.ones(4), 0.2
        ),
        "counts must be on the device of grad",
    ),
    "info_nce-counts": (
        lambda: ops.info_nce(ROWS, ROWS, 0.2, counts=torch.ones(4).long().to(META)),
        "counts must be on the device of x",
    ),
    "bpr_loss": (lambda: ops.bpr_loss(ROWS, ROWS.to(META), IDS, IDS, IDS), "item_embeddings must be on the device"),
    "knn": (lambda: ops.knn(ROWS, 2, ROWS.to(META)), "base must be on the device of features"),
    "cosine_at": (lambda: ops.cosine_at(ROWS, IDS[:, None].to(META)), "index must be on the device of features"),
    "cosine_at-base": (
        lambda: ops.cosine_at(ROWS, IDS[:, None], ROWS.to(META)),
        "base must be on the device of features",
    ),
    "cosine_at_backward": (
        lambda: torch.ops.smore_ext.cosine_at_backward(
            torch.ones(4, 1), ROWS.to(META), IDS[:, None], None, torch.ones(4, 1)
        ),
        "must be on the device of",
    ),
    "spmm": (lambda: ops.spmm(SEEN, ROWS.to(META)), "must be on the device"),
}


@pytest.mark.parametrize("name", MIXED)
def test_one_tensor_on_another_device_is_refused(name: str) -> None:
    call, message = MIXED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_an_undefined_tensor_is_named_by_the_fake_kernel_too() -> None:
    with pytest.raises(TypeError, match="table_linear_backward: grad must be a tensor, got none"):
        torch.ops.smore_ext.table_linear_backward(None, ROWS.to(META))


def test_a_ranking_has_no_gradient_and_backward_says_so() -> None:
    rows = ROWS.clone().requires_grad_()
    score, index = ops.masked_topk(rows, rows, 2)
    assert not index.requires_grad
    with pytest.raises(RuntimeError, match="masked_topk is not implemented"):
        (score.sum() + rows.sum()).backward()
    with torch.no_grad():
        assert not ops.masked_topk(rows, rows, 2)[0].requires_grad


def test_neighbours_have_no_gradient_and_backward_says_so() -> None:
    rows = ROWS.clone().requires_grad_()
    for given in ((rows, 2), (rows, 2, rows), (rows, 2, None, True)):
        similarity, index = ops.knn(*given)
        assert not index.requires_grad
        with pytest.raises(RuntimeError, match="knn is not implemented"):
            (similarity.sum() + rows.sum()).backward()
    assert ops.cosine_at(rows, ops.knn(rows, 2)[1]).requires_grad


ONE_EACH = list({case.op: case for case in reversed(CASES) if not is_empty(case)}.values())


@pytest.mark.parametrize("case", [case for case in ONE_EACH if case.op != "sample_negatives"], ids=str)
def test_forward_mode_is_refused(case: OpCase) -> None:
    args = case.make(torch.float32, torch.Generator().manual_seed(1))
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="jvp|forward AD|tangents"):
        case.call(ops, map_tensors(args, lambda t: forward_ad.make_dual(t, torch.ones_like(t))))


LINEAR = {
    "edge_dot",
    "spmm",
    "propagate",
    "poly_filter",
    "spectral_filter",
    "table_linear",
    "gather_rows",
    "dropout",
}  # test_transforms.py
OTHERS = [case for case in ONE_EACH if case.differentiable and case.op not in LINEAR]


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_function_transforms_are_refused(case: OpCase) -> None:
    args = case.make(torch.float32, torch.Generator().manual_seed(1))
    leaves = differentiable_tensors(case, args)

    def total(first: torch.Tensor, of: ModuleType) -> torch.Tensor:
        given = map_tensors(args, lambda t: first if t is leaves[0] else t)
        return sum(o.sum() for o in case.call(of, given) if o.is_floating_point())

    for transform in (torch.func.grad, lambda f: lambda x, of: torch.func.jvp(lambda x: f(x, of), (x,), (x,))[1]):
        with pytest.raises(
            RuntimeError, match=f"{case.op}: torch.func's grad, .*use torch.autograd.grad, or smore_ext.r"
        ):
            transform(total)(leaves[0], ops)
    leaf = leaves[0].clone().requires_grad_()
    ours = torch.autograd.grad(total(leaf, ops), leaf)[0]
    torch.testing.assert_close(torch.func.grad(total)(leaves[0], reference), ours, rtol=1e-4, atol=1e-5)


def test_a_learned_step_or_rate_is_refused() -> None:
    tables = [torch.zeros(2, 3) for _ in range(3)]
    factors = torch.ones(2, 1), torch.ones(1, 3)
    one = torch.tensor(1.0, requires_grad=True)
    for step, lr in ((one, 0.1), (one.detach(), one)):
        with pytest.raises(RuntimeError, match="tensors must not require grad where gradients are recorded"):
            ops.factored_adam_(*tables, *factors, step, lr)


def test_learned_coefficients_in_a_list_get_their_gradient() -> None:
    learned = torch.tensor([0.5, 2.0], requires_grad=True)
    plain = torch.autograd.grad(ops.poly_filter(SEEN, ROWS, learned).sum(), learned)[0]
    first, second = learned.unbind()
    assert torch.equal(torch.autograd.grad(ops.poly_filter(SEEN, ROWS, [first, second]).sum(), learned)[0], plain)
    mixed = ops.poly_filter(SEEN, ROWS, [0.5, second])
    assert torch.equal(mixed, ops.poly_filter(SEEN, ROWS, [0.5, 2.0]))
    assert torch.autograd.grad(mixed.sum(), learned)[0].tolist() == [0.0, plain[1].item()]


def test_a_learned_temperature_gets_its_gradient() -> None:
    for temperature in (torch.tensor(0.2, requires_grad=True), nn.Parameter(torch.tensor([0.2]))):
        loss = ops.info_nce(ROWS, 2 - ROWS, temperature)
        loss.backward()
        plain = temperature.detach().clone().requires_grad_()
        reference.info_nce(ROWS, 2 - ROWS, plain).backward()
        torch.testing.assert_close(temperature.grad, plain.grad)
        torch.testing.assert_close(loss, ops.info_nce(ROWS, 2 - ROWS, 0.2))
    assert torch.equal(ops.info_nce(ROWS, ROWS, temperature.detach()), ops.info_nce(ROWS, ROWS, 0.2))


def test_a_step_of_dropout_that_is_changed_before_backward_is_noticed() -> None:
    step, x = torch.tensor(3), ROWS.clone().requires_grad_()
    y = ops.dropout(x, 0.5, 1, step)
    assert torch.equal(y, ops.dropout(x, 0.5, 1, 3)) and not torch.equal(y, ops.dropout(x, 0.5, 1, 4))
    step += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
