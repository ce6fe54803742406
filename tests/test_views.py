"""Negated and conjugated views, expanded and aliased tensors, odd places in memory: every op."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.testing import CASES, OpCase, differentiable_tensors, map_tensors, on
from smore_ext.testing.checks import is_empty

ONE_EACH = list({case.op: case for case in reversed(CASES) if not is_empty(case)}.values())
GRADIENT_CASES = [case for case in ONE_EACH if case.differentiable]


def negated(t: Tensor) -> Tensor:
    return torch._neg_view(-t)


def imaginary(t: Tensor) -> Tensor:
    """The imaginary part of a conjugated tensor: torch's own way to a negation that is still to be done."""
    return torch.complex(torch.zeros_like(t), -t).conj().imag


def odd(t: Tensor) -> Tensor:
    """Three elements into other memory."""
    wide = torch.full((t.numel() + 6,), torch.nan, dtype=t.dtype, device=t.device)
    wide[3 : 3 + t.numel()] = t.reshape(-1)
    return wide[3 : 3 + t.numel()].view(t.shape)


VIEWS: tuple[Callable[[Tensor], Tensor], ...] = (negated, imaginary, odd)


def arguments(case: OpCase, device: torch.device) -> list[object]:
    return on(device, case.make(torch.float32, torch.Generator().manual_seed(7)))


def same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_a_view_counts_as_its_values(case: OpCase, view: Callable[[Tensor], Tensor], device: torch.device) -> None:
    args = arguments(case, device)
    kept = args[: case.in_place]  # may not be views that are still to be computed
    assert same(case.call(ops, [*kept, *map_tensors(args[case.in_place :], view)]), case.call(ops, args))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
@pytest.mark.parametrize("case", GRADIENT_CASES, ids=str)
def test_gradients_of_a_view_are_those_of_its_values(
    case: OpCase, view: Callable[[Tensor], Tensor], device: torch.device
) -> None:
    def gradients(change: Callable[[Tensor], Tensor], incoming: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        args = map_tensors(arguments(case, device), lambda t: change(t).detach().requires_grad_())
        outputs = [o for o in case.call(ops, args) if o.requires_grad]
        return torch.autograd.grad(outputs, differentiable_tensors(case, args), [incoming(o) for o in outputs])

    def ones(t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def expanded(t: Tensor) -> Tensor:
        return torch.ones((), dtype=t.dtype, device=t.device).expand(t.shape)

    plain = gradients(lambda t: t, ones)
    assert same(gradients(view, lambda t: view(ones(t))), plain)
    assert same(gradients(view, expanded), plain)


@pytest.mark.parametrize("case", ONE_EACH, ids=str)
def test_expanded_rows_count_as_their_copies(case: OpCase, device: torch.device) -> None:
    args = arguments(case, device)
    kept, rest = args[: case.in_place], args[case.in_place :]
    expanded = map_tensors(rest, lambda t: t[:1].expand(t.shape) if t.ndim else t)
    assert same(case.call(ops, [*kept, *expanded]), case.call(ops, [*kept, *map_tensors(expanded, Tensor.contiguous)]))


def test_one_tensor_may_be_several_arguments(device: torch.device) -> None:
    x, ids = torch.randn(6, 6, device=device), torch.arange(6, device=device)
    for call in (
        lambda a, b: ops.bpr_loss(a, b, ids, ids, ids),
        lambda a, b: (ops.info_nce(a, b, 0.2),),
        lambda a, b: ops.masked_topk(a, b, 3),
        lambda a, b: ops.knn(a, 3, b),
        lambda a, b: (ops.table_linear(a, b, a[0]),),
    ):
        assert same(call(x, x), call(x, x.clone()))
        assert same(call(x.T, x), call(x.T.clone(), x.clone()))


def adam(device: torch.device, **other: Tensor) -> dict[str, object]:
    zeros = {name: torch.zeros(4, 6, device=device) for name in ("param", "exp_avg", "exp_avg_sq")}
    factors = {"grad_rows": torch.ones(4, 2, device=device), "factor": torch.ones(2, 6, device=device)}
    return {**zeros, **factors, "step": torch.ones((), device=device), "lr": 0.1, **other}


@pytest.mark.parametrize("name", ["param", "exp_avg", "exp_avg_sq"])
def test_what_is_written_must_hold_its_values(name: str, device: torch.device) -> None:
    """torch's fallback writes back what an op returns: of one that returns nothing, the next word of its stack."""
    zeros = torch.zeros(4, 6, device=device)
    for view in (torch._neg_view(zeros), torch.complex(zeros, zeros).conj()):
        given = adam(device)
        if view.is_complex():  # all of them, so that they have one dtype
            given |= {n: t.to(view.dtype) for n, t in given.items() if isinstance(t, Tensor) and t.ndim}
        with pytest.raises(
            ValueError, match=f"factored_adam_: {name} must hold its values .*, got a view that negates"
        ):
            ops.factored_adam_(**(given | {name: view}))


def test_what_is_written_shares_memory_with_nothing(device: torch.device) -> None:
    both = torch.zeros(44, device=device)
    clashes = {
        "param and exp_avg": {"param": both[:24].view(4, 6), "exp_avg": both[20:].view(4, 6)},
        "exp_avg and exp_avg_sq": {"exp_avg": both[:24].view(4, 6), "exp_avg_sq": both[:24].view(4, 6)},
        "param and grad_rows": {"param": both[:24].view(4, 6), "grad_rows": both[:24].view(4, 6)[:, :2]},
        "exp_avg_sq and factor": {"exp_avg_sq": both[:24].view(4, 6), "factor": both[12:24].view(2, 6)},
        "param and step": {"param": both[:24].view(4, 6), "step": both[3]},
    }
    for names, clash in clashes.items():
        with pytest.raises(ValueError, match=f"factored_adam_: {names} must not share memory"):
            ops.factored_adam_(**adam(device, **clash))
    beside = adam(device, param=both[:24].view(4, 6), grad_rows=both[24:32].view(4, 2) + 1)
    plain = adam(device)
    assert torch.equal(ops.factored_adam_(**beside), ops.factored_adam_(**plain))
    assert torch.equal(plain["param"], both[:24].view(4, 6))


def test_an_expanded_parameter_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="param must be contiguous"):
        ops.factored_adam_(**adam(device, param=torch.zeros(1, 6, device=device).expand(4, 6)))
