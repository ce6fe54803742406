"""smore_ext.testing on an op of somebody else: a right one passes every check, and each fault is found by its own.

This is how to test an op that you write outside this package: a case, the op, its twin in plain PyTorch, and check_op.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from smore_ext.testing import CASES, OpCase, check_op, check_table, checks, rand, registered_call


def row_scale_case(n: int, d: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> list[Tensor]:
        return [rand(g, dtype, n, d), rand(g, dtype, n)]

    return OpCase("row_scale", f"{n}x{d}", make, (0, 1), small=0 < n * d <= 20, autocast="float32")


ROW_SCALE = [row_scale_case(*size) for size in ((4, 3), (0, 5), (70, 33))]
REFERENCE = SimpleNamespace(row_scale=lambda x, scale: x * scale[:, None])


@torch.library.custom_op("toy::row_scale", mutates_args=())
def row_scale(x: Tensor, scale: Tensor) -> Tensor:
    if x.dtype not in (torch.float32, torch.float64) or scale.dtype != x.dtype:
        raise TypeError(f"row_scale: x and scale must be both float32 or both float64, got {x.dtype}, {scale.dtype}")
    if x.ndim != 2 or scale.shape != x.shape[:1]:
        raise ValueError(f"row_scale: scale must have an element for each row, got {scale.shape} for {x.shape}")
    return torch.mul(x, scale[:, None])


@row_scale.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:
    if scale.device != x.device:
        raise ValueError(f"row_scale: scale must be on the device of x ({x.device}), got {scale.device}")
    return torch.empty_like(x)


def save(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
    x, scale = ctx.saved_tensors
    return grad * scale[:, None], (grad * x).sum(dim=1)


row_scale.register_autograd(backward, setup_context=save)
for device_type in ("cpu", "cuda"):
    torch.library.register_autocast(row_scale, device_type, torch.float32)
OPS = SimpleNamespace(row_scale=row_scale)


@pytest.mark.parametrize("case", ROW_SCALE, ids=str)
def test_a_right_op_passes_every_check(case: OpCase, device: torch.device) -> None:
    check_op(case, OPS, REFERENCE, device)


def test_a_complete_table_passes() -> None:
    check_table(ROW_SCALE, ["row_scale"], REFERENCE)


@pytest.mark.parametrize(
    "cases, names, reference, fault",
    [
        (ROW_SCALE, ["row_scale", "other"], REFERENCE, "other: no case"),
        (ROW_SCALE, [], REFERENCE, "row_scale-4x3: a case of an op that is not there"),
        (ROW_SCALE, ["row_scale"], SimpleNamespace(), "row_scale: no twin"),
        (ROW_SCALE[::2], ["row_scale"], REFERENCE, "row_scale: no case with an empty tensor"),
        (ROW_SCALE[1:], ["row_scale"], REFERENCE, "row_scale: no case that is small enough"),
    ],
)
def test_what_a_table_lacks_is_named(cases, names, reference, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_table(cases, names, reference)


def faulty(function: Callable[..., Tensor]) -> SimpleNamespace:
    return SimpleNamespace(row_scale=function)


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return x * scale[:, None]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return grad * scale[:, None] * 1.01, (grad * x).sum(dim=1)


def ignores_strides(x: Tensor, scale: Tensor) -> Tensor:
    return torch.as_strided(x, x.shape, (x.shape[1], 1)) * scale[:, None]


def counts_threads(x: Tensor, scale: Tensor) -> Tensor:
    return x * scale[:, None] + torch.get_num_threads()


def breaks_the_graph(x: Tensor, scale: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return row_scale(x, scale)


def takes_scalars(x: Tensor, scale: Tensor) -> Tensor:
    return row_scale(x, scale) if x.ndim else x


def forgets_the_device(x: Tensor, scale: Tensor) -> Tensor:
    return row_scale(x, scale.to(x.device) if not scale.is_meta else torch.ones_like(x[:, 0]))


def leaves_a_row(x: Tensor, scale: Tensor) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype)
    out[:-1] = x.detach()[:-1]
    return out + 0 * row_scale(x, scale)


def coarse(x: Tensor, scale: Tensor) -> Tensor:
    return (x.bfloat16() * scale.bfloat16()[:, None]).to(x.dtype)


@pytest.mark.parametrize(
    "check, function, message",
    [
        (checks.check_forward, coarse, r"output 0: error .*, plain PyTorch .* is granted"),
        (checks.check_forward, lambda x, s: (x * s[:, None])[:-1], r"must have dtype and shape .*\(70, 33\)"),
        (checks.check_forward, lambda x, s: x * s[:, None] / (s[:, None] > 0), "must be finite exactly where"),
        (checks.check_float64, coarse, "not close"),
        (checks.check_gradients, WrongGradient.apply, "gradient 0: error"),
        (checks.check_layouts, ignores_strides, "_spread_out input 0 must have the same bits"),
        (checks.check_threads, counts_threads, "with 2 threads instead of 1, result 0 must have the same bits"),
        (checks.check_written, leaves_a_row, "in memory full of NaN, result 0 must have the same bits"),
        (checks.check_autocast, lambda x, s: x * s[:, None], "under autocast to bfloat16, output 0 must have"),
        (checks.check_errors, lambda x, s: row_scale(x.float(), s), "input 0 of dtype int64 must be a TypeError, and"),
        (checks.check_errors, takes_scalars, "input 0 without dimensions must be a ValueError, and passed"),
        (checks.check_errors, forgets_the_device, "input 0 on another device must be a ValueError, and passed"),
        (checks.check_compile, breaks_the_graph, "graph"),
    ],
)
def test_each_check_finds_its_fault(check, function: Callable[..., Tensor], message: str) -> None:
    takes_reference = check in (checks.check_forward, checks.check_float64, checks.check_gradients)
    with pytest.raises((AssertionError, torch._dynamo.exc.Unsupported), match=message):
        check(ROW_SCALE[2], faulty(function), *([REFERENCE] if takes_reference else []))


def test_gradcheck_finds_a_wrong_gradient() -> None:
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        checks.check_gradcheck(ROW_SCALE[0], faulty(WrongGradient.apply))


def test_a_function_without_a_registered_op_is_named() -> None:
    with pytest.raises(LookupError, match="row_scale must call a registered op of its own name, called: none"):
        registered_call(ROW_SCALE[0], REFERENCE, [torch.ones(2, 3), torch.ones(2)])


@torch.library.custom_op("toy::double_", mutates_args=("x",))
def double_(x: Tensor) -> None:
    x.mul_(2)


def test_in_place_ops_are_checked_on_copies() -> None:
    def reference(x: Tensor) -> Tensor:
        return x.mul_(2)

    case = OpCase("double_", "5x2", lambda dtype, g: [rand(g, dtype, 5, 2)], in_place=1)
    args = case.make(torch.float32, torch.Generator().manual_seed(1))
    before = args[0].clone()
    assert torch.equal(case.call(SimpleNamespace(double_=reference), args)[0], before * 2)
    assert torch.equal(args[0], before)
    checks.check_forward(case, SimpleNamespace(double_=double_), SimpleNamespace(double_=reference))
    with pytest.raises(AssertionError, match="must return its first argument"):
        checks.check_in_place(case, SimpleNamespace(double_=double_))


def test_cases_have_names_of_their_own() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)
