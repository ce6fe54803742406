"""Numbers near the ends of their types: right, or infinite where the result is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from smore_ext import ops, reference
from smore_ext.testing.checks import assert_within


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@pytest.mark.parametrize("d", [10, 64])
@pytest.mark.parametrize("modalities", [12, 36, 44])
def test_a_fusion_of_many_modalities_stays_in_range(modalities: int, d: int, device: torch.device) -> None:
    generator = seeded()
    xs = [torch.randn(5, d, generator=generator) for _ in range(modalities)]
    weights = [torch.randn(d // 2 + 1, 2, generator=generator) for _ in range(modalities + 1)]

    def run(module, dtype, where):
        given = [x.to(where, dtype).requires_grad_() for x in xs]
        *filters, fusion = (w.to(where, dtype).requires_grad_() for w in weights)
        filtered, fused = module.spectrum_fusion(given, filters, fusion)
        grads = torch.autograd.grad(sum(f.sum() for f in filtered) + fused.sum(), [*given, *filters, fusion])
        return [t.detach().cpu() for t in (*filtered, fused, *grads)]

    ours, plain = run(ops, torch.float32, device), run(reference, torch.float32, "cpu")
    assert_within(ours, plain, run(reference, torch.float64, "cpu"), 4, "fusion")


def test_a_fusion_that_no_float_holds_is_refused(device: torch.device) -> None:
    xs, fusion = [torch.ones(1, 64, device=device)] * 143, torch.ones(33, 2, device=device)
    for dtype in (torch.float32, torch.float64):
        with pytest.raises(ValueError, match="xs must hold at most 142 tensors of width 64, .* got 143"):
            ops.spectrum_fusion([x.to(dtype) for x in xs], [], fusion.to(dtype))


def test_losses_beyond_float32_are_infinite(device: torch.device) -> None:
    rows = torch.full((2, 3), 3e19, device=device, requires_grad=True)
    ids = torch.tensor([0, 1], device=device)
    bpr, l2 = ops.bpr_loss(rows, rows, ids, ids, ids)
    assert l2.item() == float("inf")
    steep = torch.tensor([[-3e38, 0.0], [3e38, 0.0]], device=device)
    one = torch.tensor([[1.0, 0.0]], device=device).expand(2, 2)
    bpr, _ = ops.bpr_loss(one, steep, ids, ids * 0, ids * 0 + 1)
    assert bpr.item() == float("inf")
    assert torch.isfinite(torch.autograd.grad(ops.bpr_loss(rows, rows, ids, ids, ids)[0], rows)[0]).all()


def test_a_contrast_beyond_float32_is_infinite_or_has_no_answer(device: torch.device) -> None:
    x = torch.eye(4, 6, device=device)
    y = x.roll(1, 0)
    assert ops.info_nce(x, y, 1e-38).item() == pytest.approx(1e38, rel=1e-5)
    for temperature in (1e-39, 1e-300):
        assert not torch.isfinite(ops.info_nce(x, y, temperature))


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1e-150, 1.0, 1e150, 1e200, 1e300])
def test_neighbours_do_not_depend_on_the_length_of_rows(size: float, device: torch.device) -> None:
    rows = torch.randn(30, 7, generator=seeded(), dtype=torch.float64).to(device)
    rows[3] = 0
    if size < 1e-300:
        rows = (rows * 500).round()  # a few bits are left of them
    scaled = rows.clone()
    scaled[::2] *= size / (500 if size < 1e-300 else 1)
    if size < 1e-300:
        scaled[::2] = rows[::2] * 2.0**-1074  # exact
    similarity, index = ops.knn(scaled, 6)
    exact, exact_index = ops.knn(rows, 6)
    torch.testing.assert_close(similarity, exact, rtol=1e-14, atol=1e-14)
    assert torch.equal(index, exact_index)
    assert torch.equal(ops.cosine_at(scaled, index), similarity)
    assert torch.equal(ops.cosine_at(rows[:5], index[:5], scaled), ops.knn(rows[:5], 6, scaled)[0]) or size != 1.0
    theirs, their_index = reference.knn(scaled.cpu(), 6)
    torch.testing.assert_close(similarity.cpu(), theirs, rtol=1e-14, atol=1e-14)
    assert torch.equal(index.cpu(), their_index)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_gradients_of_a_cosine_scale_with_the_row(size: float, device: torch.device) -> None:
    rows = torch.randn(6, 5, generator=seeded(), dtype=torch.float64).to(device)
    index = torch.tensor([[1, 2], [0, 4], [5, 3], [2, 1], [0, 5], [4, 4]], device=device)

    def gradient(scale: float) -> torch.Tensor:
        x = (rows * scale).requires_grad_()
        return torch.autograd.grad(ops.cosine_at(x, index).square().sum(), x)[0] * scale

    torch.testing.assert_close(gradient(size), gradient(1.0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e-44, 1e-30, 1e30, 1e38])
def test_neighbours_of_very_small_and_large_float32_rows(size: float, device: torch.device) -> None:
    rows = torch.randint(-20, 20, (30, 7), generator=seeded()).float().to(device)
    scaled = rows * (1.4013e-45 if size < 1e-40 else size / 20)
    assert torch.equal(ops.knn(scaled, 6)[1], ops.knn(rows, 6)[1])
    torch.testing.assert_close(ops.knn(scaled, 6)[0], ops.knn(rows, 6)[0])


@pytest.mark.parametrize("modalities", [0, 2])
def test_what_dropout_takes_is_zero_also_of_nan(modalities: int, device: torch.device) -> None:
    g = torch.Generator().manual_seed(1)
    shapes = [(8, 16 * (modalities + 1)), (modalities, 8, 16), (8, 16 * (modalities + 1))]
    gates, attention, views = (torch.randn(shape, generator=g).to(device) for shape in shapes)
    gates[3] = torch.nan

    def outcome(namespace: Any) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (gates, attention, views)]
        side = namespace.modality_preference(*leaves, 0.5, 1)
        return [side.detach(), *torch.autograd.grad(side.sum(), leaves)]

    sides, wanted = outcome(ops), outcome(reference)
    assert int(wanted[0][3].isnan().sum()) > 0 and int(wanted[3][3].isfinite().sum()) > 0
    for got, expected in zip(sides, wanted, strict=True):
        sure = expected.isfinite()
        torch.testing.assert_close(got[sure], expected[sure])
    assert torch.equal(sides[0].isnan(), wanted[0].isnan())
