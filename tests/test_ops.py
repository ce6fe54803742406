"""Every op of the table: right, differentiable, traceable, and the same bits whatever the threads.

Inputs are made on the CPU and moved to the device under test (`--device`); what they are compared with, plain PyTorch
in float32 and float64, is always computed on the CPU.
"""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing

from smore_ext import ops, reference
from smore_ext.testing import CASES, OpCase, checks, differentiable_tensors, in_bfloat16, map_tensors, on
from smore_ext.testing.checks import assert_within, is_empty

GRADIENT_CASES = [case for case in CASES if case.differentiable]
SMALL_CASES = [case for case in GRADIENT_CASES if case.small]
STORAGE_CASES = [case for case in CASES if case.autocast == "storage"]
ONE_EACH = list({case.op: case for case in reversed(CASES) if not is_empty(case)}.values())
ONCE_ONLY = [case for case in SMALL_CASES if not case.twice and case in ONE_EACH]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


def test_every_op_has_cases_and_a_twin() -> None:
    checks.check_table(CASES, ops.__all__, reference)


@over(CASES)
def test_forward_matches_reference(case: OpCase, device: torch.device) -> None:
    checks.check_forward(case, ops, reference, device)


@over(CASES)
def test_float64_matches_reference(case: OpCase, device: torch.device) -> None:
    checks.check_float64(case, ops, reference, device)


@over(GRADIENT_CASES)
def test_gradients_match_reference(case: OpCase, device: torch.device) -> None:
    checks.check_gradients(case, ops, reference, device)


@over(CASES)
def test_every_element_is_written(case: OpCase, device: torch.device) -> None:
    checks.check_written(case, ops, device)


@over(GRADIENT_CASES)
def test_what_backward_reads_is_saved(case: OpCase, device: torch.device) -> None:
    checks.check_saved(case, ops, device)


@over(SMALL_CASES)
def test_gradcheck(case: OpCase, device: torch.device) -> None:
    checks.check_gradcheck(case, ops, device)


@over([case for case in SMALL_CASES if case.twice])
def test_gradients_differentiate_again(case: OpCase, device: torch.device) -> None:
    checks.check_gradgradcheck(case, ops, device)


@over(ONCE_ONLY)
def test_double_backward_is_refused(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float64, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)
    grads = torch.autograd.grad(sum(o.sum() for o in case.call(ops, args)), tensors, create_graph=True)
    with pytest.raises(RuntimeError, match=f"smore_ext::{case.op}_backward is not implemented"):
        sum(g.sum() for g in grads).backward()


@over(CASES)
def test_opcheck(case: OpCase, device: torch.device) -> None:
    checks.check_opcheck(case, ops, device)


@over([*ONE_EACH, *(next(c for c in SMALL_CASES if c.op == op and c.sums) for op in ("spmm", "propagate"))])
def test_compiles_without_graph_break(case: OpCase, device: torch.device) -> None:
    checks.check_compile(case, ops, device)


@over([case for case in CASES if not case.in_place])
def test_any_memory_layout(case: OpCase, device: torch.device) -> None:
    checks.check_layouts(case, ops, device)


@over(CASES)
def test_same_bits_for_any_number_of_threads(case: OpCase, device: torch.device) -> None:
    checks.check_threads(case, ops, device)


@over([case for case in CASES if case.in_place])
def test_in_place_ops_return_their_first_argument(case: OpCase, device: torch.device) -> None:
    checks.check_in_place(case, ops, device)


@over([case for case in CASES if case.autocast != "none"])
def test_autocast(case: OpCase, device: torch.device) -> None:
    checks.check_autocast(case, ops, device)


@over(ONE_EACH)
def test_wrong_dtypes_and_shapes_are_errors_that_name_the_op(case: OpCase, device: torch.device) -> None:
    checks.check_errors(case, ops, device)


@over(STORAGE_CASES)
def test_bfloat16_is_storage_only(case: OpCase, device: torch.device) -> None:
    checks.check_storage(case, ops, reference, device)


@over([case for case in CASES if case.op == "spmm" and 2 not in case.differentiable or case.op == "edge_dot"])
def test_bfloat16_products_are_float32_ones_rounded_once(case: OpCase, device: torch.device) -> None:
    args = in_bfloat16(case, on(device, case.make(torch.float32, seeded())))
    (ours,), (wide,) = case.call(ops, args), case.call(ops, map_tensors(args, torch.Tensor.float))
    if case.op == "spmm":
        assert torch.equal(ours, wide.bfloat16())
    else:  # its result is float32, on a GPU of sums in another order
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, wide, rtol=1e-5, atol=1e-5)


@over([case for case in STORAGE_CASES if case.small and not is_empty(case)])
def test_gradients_under_autocast_have_the_dtype_of_the_input(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float32, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        (ours,) = case.call(ops, args)
    assert ours.dtype == case.call(ops, in_bfloat16(case, args))[0].dtype
    assert {g.dtype for g in torch.autograd.grad(ours.sum(), tensors)} == {torch.float32}


@over([case for case in STORAGE_CASES if case.small and not is_empty(case)])
def test_backward_inside_autocast_keeps_the_dtype_of_forward(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float32, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)
    loss = case.call(ops, args)[0].square().sum()
    outside = torch.autograd.grad(loss, tensors, retain_graph=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = torch.autograd.grad(loss, tensors)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


def test_factored_adam_takes_its_rate_as_a_tensor(device: torch.device) -> None:
    case = next(case for case in CASES if case.in_place and "0x" not in case.name)
    *args, lr = on(device, case.make(torch.float32, seeded()))
    plain, tensor = case.call(ops, [*args, lr]), case.call(ops, [*args, torch.tensor(lr, device=device).double()])
    assert all(torch.equal(a, b) for a, b in zip(plain, tensor, strict=True))


def test_info_nce_of_counts_names_the_row(device: torch.device) -> None:
    if device.type == "cpu":
        x = torch.ones(3, 2)
        with pytest.raises(ValueError, match="counts must be at least 1, got 0 at position 1"):
            ops.info_nce(x, x, 0.2, counts=torch.tensor([1, 0, -1]))


def test_info_nce_of_counts_is_that_of_rows_repeated() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 20, 7, generator=g).double()
    counts = torch.randint(1, 5, (20,), generator=g)
    repeated = [t.repeat_interleave(counts, dim=0) for t in (x, y)]
    for module in (ops, reference):
        torch.testing.assert_close(module.info_nce(x, y, 0.3, counts=counts), module.info_nce(*repeated, 0.3))


def test_info_nce_of_one_pair_that_comes_several_times() -> None:
    x, y = torch.rand(2, 1, 5, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(
        ops.info_nce(x, y, 0.5, counts=torch.tensor([7])), torch.tensor(7.0, dtype=torch.float64).log()
    )


def test_info_nce_of_counts_composed_is_that_of_the_kernel() -> None:
    """What a GPU computes, on the CPU."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, 9, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    counts = torch.randint(1, 5, (40,), generator=g)
    u, v, often = torch.nn.functional.normalize(x) / 0.2, torch.nn.functional.normalize(y), counts.double()
    columns = torch.cat([u, torch.ones(40, 1).double()], 1), torch.cat([v, often.log()[:, None]], 1)
    composed = (often * (ops.row_logsumexp(*columns) - (u * v).sum(1))).sum() / often.sum()
    kernel = ops.info_nce(x, y, 0.2, counts=counts)
    torch.testing.assert_close(composed, kernel)
    torch.testing.assert_close(torch.autograd.grad(composed, (x, y)), torch.autograd.grad(kernel, (x, y)))


def test_info_nce_of_a_single_row_is_zero(device: torch.device) -> None:
    x, y = (torch.randn(1, 8, device=device, requires_grad=True) for _ in range(2))
    loss = ops.info_nce(x, y, 0.5)
    assert abs(loss.item()) < 1e-6
    assert all(g.abs().max() < 1e-6 for g in torch.autograd.grad(loss, (x, y)))


def row_errors(ours, exact):
    """Largest error of each row, relative to the largest element of the row."""
    size = exact.abs().amax(dim=1).clamp_min(1e-300)
    return (ours.double() - exact).abs().amax(dim=1) / size


ROW_WIDTHS = pytest.mark.parametrize("d", [24, 64, 100])  # a kind of kernel each


@ROW_WIDTHS
def test_rows_of_very_different_size_do_not_disturb_each_other(d: int, device: torch.device) -> None:
    """Two rows travel through one complex FFT: the error of each must still be relative to itself."""
    generator = seeded()
    scale = 10.0 ** torch.linspace(-12, 12, 70)[torch.randperm(70, generator=generator)][:, None]
    xs = [torch.randn(70, d, generator=generator) * scale ** (0.5 * m) for m in (1, -1)]
    xs[0][3], xs[1][8] = 0, 0
    weights = [torch.randn(d // 2 + 1, 2, generator=generator) for _ in range(3)]
    cotangents = [torch.randn(70, d, generator=generator) * s for s in (scale.sqrt(), 1, 1 / scale.sqrt())]

    def run(module, dtype, where):
        tensors = [x.to(where, dtype).requires_grad_() for x in xs]
        *filters, fusion = (w.to(where, dtype) for w in weights)
        filtered, fused = module.spectrum_fusion(tensors, filters, fusion)
        outputs = [*filtered, fused]
        grads = torch.autograd.grad(outputs, tensors, [c.to(where, dtype) for c in cotangents])
        return [t.detach().cpu() for t in (*outputs, *grads)]

    for ours, exact in zip(run(ops, torch.float32, device), run(reference, torch.float64, "cpu"), strict=True):
        assert row_errors(ours, exact).max() < 5e-6


@ROW_WIDTHS
def test_nan_and_infinity_stay_in_their_row(d: int, device: torch.device) -> None:
    x = torch.randn(40, d, generator=seeded())
    x[2, 3], x[19, 0] = float("nan"), float("inf")
    y = ops.spectral_filter(x.to(device), torch.randn(d // 2 + 1, 2, generator=seeded()).to(device))
    assert (~y.isfinite()).any(dim=1).nonzero()[:, 0].tolist() == [2, 19]


@ROW_WIDTHS
def test_zero_rows_stay_exactly_zero(d: int, device: torch.device) -> None:
    x = torch.randn(40, d, generator=seeded())
    x[[0, 25]] = 0
    y = ops.spectral_filter(x.to(device), torch.randn(d // 2 + 1, 2, generator=seeded()).to(device))
    assert not y[[0, 25]].any()


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_complex_filters_are_taken_conjugated_ones_too(shape: tuple[int, ...], device: torch.device) -> None:
    x = torch.randn(6, 8, device=device)
    weight = torch.randn(shape, dtype=torch.complex64, device=device, requires_grad=True)
    for w in (weight, weight.conj()):
        ours = torch.autograd.grad(ops.spectral_filter(x, w).square().sum(), weight)[0]
        exact = torch.autograd.grad(reference.spectral_filter(x, w).square().sum(), weight)[0]
        assert ours.shape == shape
        torch.testing.assert_close(ours, exact)


def test_rows_of_a_batch_are_rows(device: torch.device) -> None:
    x, weight = torch.randn(3, 5, 7, 64, device=device), torch.randn(33, 2, device=device)
    for keep in (None, 5):
        rows = ops.spectral_filter(x.view(-1, 64), weight, keep)
        assert torch.equal(ops.spectral_filter(x, weight, keep).view(-1, 64), rows)
        torch.testing.assert_close(ops.spectral_filter(x[0, 0, 0], weight, keep), rows[0])


@pytest.mark.parametrize("keep", [1, 9, 17, 32, 33])
@pytest.mark.parametrize("d", [64, 65, 512])
def test_dropped_frequencies_neither_count_nor_get_a_gradient(d: int, keep: int, device: torch.device) -> None:
    x = torch.randn(30, d, device=device)
    weight = torch.randn(d // 2 + 1, 2, device=device)
    weight[keep:] = torch.nan
    weight.requires_grad_()
    y = ops.spectral_filter(x, weight, keep)
    torch.testing.assert_close(y, reference.spectral_filter(x, weight, keep), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    assert gradient[:keep].isfinite().all() and not gradient[keep:].any()


def test_one_graph_serves_any_number_of_rows(device: torch.device) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda x, w: ops.spectral_filter(x, w, 3), fullgraph=True, dynamic=True, backend=counter)
    weight = torch.randn(1, 5, 2, device=device, requires_grad=True)
    for shape in ((4, 3, 8), (2, 9, 8), (11, 2, 8)):
        x = torch.randn(shape, device=device, requires_grad=True)
        y = compiled(x, weight)
        assert torch.equal(y, ops.spectral_filter(x, weight, 3))
        assert torch.autograd.grad(y.sum(), weight)[0].shape == weight.shape
    assert counter.frame_count == 1


def test_wide_rows_keep_the_tolerance_rule(device: torch.device) -> None:
    users, items = torch.rand(9, 6000, generator=seeded()), torch.rand(40, 6000, generator=seeded())
    exact = reference.masked_topk(users.double(), items.double(), 5)
    ours = ops.masked_topk(users.to(device), items.to(device), 5)
    assert_within(ours, reference.masked_topk(users, items, 5), exact, 2, "score")


def test_topk_never_chooses_nan(device: torch.device) -> None:
    users, items = torch.ones(1, 2), torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [3.0, 0.0]])
    for module in (ops, reference):
        score, index = module.masked_topk(users.to(device), items.to(device), 3)
        assert index.tolist() == [[2, 0, -1]] and score[0, 2] == -torch.inf


@ROW_WIDTHS
@pytest.mark.parametrize("size", [1e-39, 1e-44, 1e-30])
def test_gradients_at_the_edge_of_float32_stay_finite(size: float, d: int, device: torch.device) -> None:
    generator = seeded()
    xs = [torch.randn(20, d, generator=generator).to(device).requires_grad_() for _ in range(2)]
    weights = [torch.randn(d // 2 + 1, 2, generator=generator).to(device).requires_grad_() for _ in range(3)]
    filtered, fused = ops.spectrum_fusion(xs, weights[:2], weights[2])
    cotangents = [torch.full((20, d), value, device=device) for value in (0.0, size, size)]
    cotangents[2][::2] = 1.0
    grads = torch.autograd.grad([*filtered, fused], [*xs, *weights], cotangents)
    assert all(g.isfinite().all() for g in grads)
