"""Every op of the table: right, differentiable, traceable, and the same bits whatever the threads.

Inputs are made on the CPU and moved to the device under test (`--device`); what they are compared with, plain PyTorch
in float32 and float64, is always computed on the CPU.
"""

from __future__ import annotations

import pytest
import torch

from smore_ext import ops, reference
from smore_ext.testing.cases import CASES, OpCase, differentiable_tensors, gradients, map_tensors, on

FLOAT_CASES = [case for case in CASES if case.op != "sample_negatives"]
GRADIENT_CASES = [case for case in CASES if case.differentiable]
NEW_OUTPUT_CASES = [case for case in FLOAT_CASES if not case.in_place]  # in-place ops take no other layout and dtype


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: f"{case.op}-{case.name}")


def assert_within(ours, plain, exact, factor: float, what: str) -> None:
    """The tolerance rule: error against float64 at most `factor` times that of plain float32 PyTorch.

    Where plain PyTorch happens to be (nearly) exact, one unit in the last place of the largest value is granted.
    """
    for i, (o, p, e) in enumerate(zip(on(torch.device("cpu"), ours), plain, exact, strict=True)):
        assert o.shape == e.shape and o.dtype == p.dtype, what
        if not o.is_floating_point() or e.numel() == 0:
            continue
        finite = torch.isfinite(e)
        assert torch.equal(finite, torch.isfinite(o)), what
        error = (o.double() - e)[finite].abs().max() if finite.any() else torch.tensor(0.0)
        plain_error = (p.double() - e)[finite].abs().max() if finite.any() else torch.tensor(0.0)
        unit = torch.finfo(p.dtype).eps * e[finite].abs().max() if finite.any() else 0.0
        assert error <= factor * plain_error + unit, f"{what} {i}: error {error:.3e}, plain {plain_error:.3e}"


@over(FLOAT_CASES)
def test_forward_matches_reference(case: OpCase, device: torch.device) -> None:
    args = case.make(torch.float32, seeded())
    exact = case.call(reference, map_tensors(args, torch.Tensor.double))
    assert_within(case.call(ops, on(device, args)), case.call(reference, args), exact, 2, "output")


@over(FLOAT_CASES)
def test_float64_matches_reference(case: OpCase, device: torch.device) -> None:
    args = case.make(torch.float64, seeded())
    for ours, exact in zip(case.call(ops, on(device, args)), case.call(reference, args), strict=True):
        torch.testing.assert_close(ours.cpu(), exact, rtol=1e-12, atol=1e-12)


@over(GRADIENT_CASES)
def test_gradients_match_reference(case: OpCase, device: torch.device) -> None:
    args = case.make(torch.float32, seeded())
    generator = seeded().manual_seed(5)
    outputs = [o for o in case.call(reference, args) if o.is_floating_point()]
    cotangents = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
    exact = gradients(case, reference, map_tensors(args, torch.Tensor.double), cotangents)
    ours = gradients(case, ops, on(device, args), cotangents)
    plain = gradients(case, reference, args, cotangents)
    assert_within(ours, plain, exact, 4, "gradient")


@over([case for case in GRADIENT_CASES if case.small])
def test_gradcheck(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float64, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)

    def run(*_):
        return tuple(o for o in case.call(ops, args) if o.requires_grad)

    if all(t.numel() for t in tensors):
        assert torch.autograd.gradcheck(run, tensors)
    else:  # gradcheck takes no empty input: only that backward runs and has the shape is left to check
        grads = torch.autograd.grad(sum(o.sum() for o in run()), tensors)
        assert [g.shape for g in grads] == [t.shape for t in tensors]


@over([case for case in CASES if case.op in ("spmm", "propagate") and case.small])
def test_sparse_products_differentiate_twice(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float64, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)
    if args[1].numel():
        assert torch.autograd.gradgradcheck(lambda *_: case.call(ops, args)[0], tensors)


@pytest.mark.parametrize(
    "op", ["spectral_filter", "spectrum_fusion", "bpr_loss", "cosine_at", "info_nce", "table_linear"]
)
def test_double_backward_is_refused(op: str, device: torch.device) -> None:
    case = next(case for case in CASES if case.op == op and case.small)
    args = map_tensors(on(device, case.make(torch.float64, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)
    grads = torch.autograd.grad(sum(o.sum() for o in case.call(ops, args)), tensors, create_graph=True)
    with pytest.raises(RuntimeError, match=f"smore_ext::{op}_backward is not implemented"):
        sum(g.sum() for g in grads).backward()


@over(CASES)
def test_opcheck(case: OpCase, device: torch.device) -> None:
    args = on(device, case.make(torch.float32, seeded()))
    if case.differentiable:
        args = map_tensors(args, lambda t: t.requires_grad_())
    torch.library.opcheck(getattr(torch.ops.smore_ext, case.op).default, tuple(case.raw(args)))


@pytest.mark.parametrize("op", sorted({case.op for case in CASES}))
def test_compiles_without_graph_break(op: str, device: torch.device) -> None:
    case = next(case for case in CASES if case.op == op and "0x" not in case.name)
    args = on(device, case.make(torch.float32, seeded()))
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: case.call(ops, list(a)), fullgraph=True, backend="aot_eager")
    for ours, eager in zip(compiled(*args), case.call(ops, args), strict=True):
        torch.testing.assert_close(ours, eager, rtol=0, atol=0)
    if case.differentiable:
        args = map_tensors(args, lambda t: t.requires_grad_())
        tensors = differentiable_tensors(case, args)
        expected = torch.autograd.grad(sum(o.sum() for o in case.call(ops, args)), tensors)
        for ours, eager in zip(
            torch.autograd.grad(sum(o.sum() for o in compiled(*args)), tensors), expected, strict=True
        ):
            torch.testing.assert_close(ours, eager, rtol=0, atol=0)


def spread_out(t: torch.Tensor) -> torch.Tensor:
    """The same values as every second column of a wider tensor, one element off alignment."""
    wide = torch.zeros(t.numel() * 2 + 1, dtype=t.dtype, device=t.device)[1:].view(*t.shape, 2) if t.ndim else t
    if t.ndim:
        wide[..., 0] = t
        return wide[..., 0]
    return wide


@over(NEW_OUTPUT_CASES)
def test_any_memory_layout(case: OpCase, device: torch.device) -> None:
    args = on(device, case.make(torch.float32, seeded()))
    for layout in (spread_out, lambda t: t.T.contiguous().T if t.ndim == 2 else t):
        for ours, plain in zip(case.call(ops, map_tensors(args, layout)), case.call(ops, args), strict=True):
            torch.testing.assert_close(ours, plain, rtol=0, atol=0)


@over(CASES)
def test_same_bits_for_any_number_of_threads(case: OpCase, device: torch.device) -> None:
    args = on(device, case.make(torch.float32, seeded()))
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        outputs = case.call(ops, args)
        if case.differentiable:
            outputs += gradients(case, ops, args, [torch.ones_like(o) for o in outputs if o.is_floating_point()])
        results.append(outputs)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


SPARSE_CASES = [case for case in CASES if case.op in ("spmm", "propagate")]


@over(SPARSE_CASES)
def test_bfloat16_is_storage_only(case: OpCase, device: torch.device) -> None:
    """As near to float64 as plain PyTorch is that rounds what each product writes and nothing else."""
    args = map_tensors(case.make(torch.float32, seeded()), torch.Tensor.bfloat16)
    exact_args = map_tensors(args, torch.Tensor.double)
    exact = case.call(reference, exact_args)
    cotangents = [torch.randn(o.shape, generator=seeded(), dtype=torch.float64).bfloat16() for o in exact]
    assert_within(case.call(ops, on(device, args)), case.call(reference, args), exact, 2, "output")
    ours = gradients(case, ops, on(device, args), [c.to(device) for c in cotangents])
    plain = gradients(case, reference, args, cotangents)
    assert_within(ours, plain, gradients(case, reference, exact_args, cotangents), 4, "gradient")


@over([case for case in CASES if case.op == "spmm" and len(case.differentiable) == 1])
def test_bfloat16_products_are_float32_ones_rounded_once(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float32, seeded())), torch.Tensor.bfloat16)
    (ours,), (wide,) = case.call(ops, args), case.call(ops, map_tensors(args, torch.Tensor.float))
    assert torch.equal(ours, wide.bfloat16())


@pytest.mark.parametrize("op", ["spmm", "propagate"])
def test_autocast_holds_graph_inputs_in_bfloat16(op: str, device: torch.device) -> None:
    case = next(case for case in SPARSE_CASES if case.op == op and "gated" in case.name and "0x" not in case.name)
    args = on(device, case.make(torch.float32, seeded()))
    narrow = case.call(ops, map_tensors(args, torch.Tensor.bfloat16))[0]
    leaf = args[1].clone().requires_grad_()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        ours = case.call(ops, [args[0], leaf, *args[2:]])[0]
        assert case.call(ops, map_tensors(args, torch.Tensor.double))[0].dtype == torch.float64
    assert ours.dtype == torch.bfloat16 and torch.equal(ours, narrow)
    assert torch.autograd.grad(ours.sum(), leaf)[0].dtype == torch.float32
    wide = case.call(ops, args)[0]
    with torch.autocast(device.type, dtype=torch.float16):
        ours = case.call(ops, args)[0]
        assert ours.dtype == torch.float32 and torch.equal(ours, wide)
        assert case.call(ops, map_tensors(args, torch.Tensor.half))[0].dtype == torch.float32


@over([case for case in SPARSE_CASES if case.small and "0x" not in case.name])
def test_backward_inside_autocast_keeps_the_dtype_of_forward(case: OpCase, device: torch.device) -> None:
    args = map_tensors(on(device, case.make(torch.float32, seeded())), lambda t: t.requires_grad_())
    tensors = differentiable_tensors(case, args)
    loss = case.call(ops, args)[0].square().sum()
    outside = torch.autograd.grad(loss, tensors, retain_graph=True)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = torch.autograd.grad(loss, tensors)
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))


@pytest.mark.parametrize("op", sorted({case.op for case in NEW_OUTPUT_CASES} - {"spmm", "propagate"}))
def test_autocast_computes_in_float32(op: str, device: torch.device) -> None:
    case = next(case for case in FLOAT_CASES if case.op == op and "0x" not in case.name)
    args = map_tensors(on(device, case.make(torch.float32, seeded())), torch.Tensor.bfloat16)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        ours = case.call(ops, args)
    exact = case.call(ops, map_tensors(args, torch.Tensor.float))
    assert all(torch.equal(a, b) for a, b in zip(ours, exact, strict=True))


def test_every_op_has_cases_and_a_twin() -> None:
    assert {case.op for case in CASES} == set(ops.__all__)
    assert all(callable(getattr(reference, name)) for name in ops.__all__)


@over([case for case in CASES if case.in_place])
def test_in_place_ops_return_their_first_argument(case: OpCase, device: torch.device) -> None:
    args = on(device, case.make(torch.float32, seeded()))
    assert getattr(ops, case.op)(*args) is args[0]


def test_factored_adam_takes_its_rate_as_a_tensor(device: torch.device) -> None:
    case = next(case for case in CASES if case.in_place and "0x" not in case.name)
    *args, lr = on(device, case.make(torch.float32, seeded()))
    plain, tensor = case.call(ops, [*args, lr]), case.call(ops, [*args, torch.tensor(lr, device=device).double()])
    assert all(torch.equal(a, b) for a, b in zip(plain, tensor, strict=True))


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


def test_complex_filters_are_taken_conjugated_ones_too(device: torch.device) -> None:
    x = torch.randn(6, 8, device=device)
    weight = torch.randn(5, dtype=torch.complex64, device=device, requires_grad=True)
    for w in (weight, weight.conj()):
        ours = torch.autograd.grad(ops.spectral_filter(x, w).square().sum(), weight)[0]
        exact = torch.autograd.grad(reference.spectral_filter(x, w).square().sum(), weight)[0]
        torch.testing.assert_close(ours, exact)


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
