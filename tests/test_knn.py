"""knn where it is hard: ties, duplicates, near ties beyond what a row can hold, extreme scales, several blocks."""

from __future__ import annotations

import pytest
import torch

from smore_ext import ops, reference

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setitem(globals(), "DEVICE", device)


def knn(x: torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    """`ops.knn` on the device under test, and its results on the CPU."""
    return tuple(t.cpu() for t in ops.knn(x.to(DEVICE), k))


def assert_same_neighbours(x: torch.Tensor, k: int) -> None:
    similarity, index = knn(x, k)
    expected_similarity, expected_index = reference.knn(x, k)
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(similarity, expected_similarity, rtol=0, atol=1e-7)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("copies", [2, 7, 400])
def test_duplicate_rows_come_in_index_order(copies: int) -> None:
    # Scaled copies have the same cosine; 400 of them are more near ties than a row can hold.
    x = torch.randn(5, 9, generator=generator(0)).repeat(copies, 1)
    x *= 2.0 ** torch.randint(-3, 4, (x.shape[0], 1), generator=generator(1))
    assert_same_neighbours(x, min(10, x.shape[0]))


def test_all_rows_equal() -> None:
    similarity, index = knn(torch.ones(500, 16), 20)
    # A row's own index has no precedence among equals.
    assert torch.equal(index, torch.arange(20).expand(500, 20)) and (similarity == 1).all()


def test_near_ties_below_float32_rounding_of_the_product() -> None:
    base = torch.randn(1, 256, generator=generator(2))
    x = base + 1e-5 * torch.randn(900, 256, generator=generator(3))
    assert_same_neighbours(x, 15)


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_scales_whose_squares_leave_float32(scale: float) -> None:
    assert_same_neighbours(torch.randn(60, 12, generator=generator(4)) * scale, 7)


def test_zero_rows_have_similarity_zero() -> None:
    x = torch.randn(40, 8, generator=generator(5))
    x[[3, 17]] = 0
    assert_same_neighbours(x, 12)
    similarity, index = knn(x, 4)
    assert (similarity[3] == 0).all() and index[3].tolist() == [0, 1, 2, 3]


def test_many_blocks_of_wide_rows() -> None:
    assert_same_neighbours(torch.randn(700, 20000, generator=generator(6)), 9)  # about 104 rows a block


def test_more_neighbours_than_the_usual_list() -> None:
    assert_same_neighbours(torch.randn(400, 10, generator=generator(7)), 200)
    assert_same_neighbours(torch.randn(90, 10, generator=generator(7)), 90)


def test_negative_similarities_are_ranked_too() -> None:
    angle = torch.linspace(0, 3, 30)
    assert_same_neighbours(torch.stack([angle.cos(), angle.sin()], dim=1), 30)


def test_identical_float64_rows_tie_exactly() -> None:
    for seed in range(20):
        x = torch.randn(1, 37, dtype=torch.float64, generator=generator(seed)).repeat(3, 1)
        similarity, index = knn(x, 3)
        assert (similarity == 1).all() and torch.equal(index, torch.arange(3).expand(3, 3))


def test_exact_whatever_products_the_user_allows() -> None:
    x = torch.randn(300, 64, generator=generator(9))
    expected = knn(x, 8)
    try:
        torch.set_float32_matmul_precision("medium")
        assert all(torch.equal(a, b) for a, b in zip(knn(x, 8), expected, strict=True))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_products_stay_exact_under_a_precision_set_for_one_backend() -> None:
    """torch then refuses to name one global precision; the op must neither fail nor lose what the user set."""
    x = torch.randn(700, 40, generator=generator(7))
    expected, matmul = knn(x, 10), torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        ours = knn(x, 10)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))
