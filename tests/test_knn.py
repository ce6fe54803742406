"""knn where it is hard: ties, duplicates, near ties beyond what a row can hold, extreme scales, several blocks."""

from __future__ import annotations

import pytest
import torch

from smore_ext import ops, reference

DEVICE = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    monkeypatch.setitem(globals(), "DEVICE", device)


def knn(
    x: torch.Tensor, k: int, base: torch.Tensor | None = None, exclude_self: bool = False
) -> tuple[torch.Tensor, ...]:
    """`ops.knn` on the device under test, and its results on the CPU."""
    base = None if base is None else base.to(DEVICE)
    return tuple(t.cpu() for t in ops.knn(x.to(DEVICE), k, base, exclude_self))


def assert_same(ours: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    assert torch.equal(ours[1], expected[1])
    torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=1e-7)


def assert_same_neighbours(x: torch.Tensor, k: int) -> None:
    """Of every row with itself and without, and of some rows in all as a base."""
    assert_same(knn(x, k), reference.knn(x, k))
    if k < x.shape[0]:
        assert_same(knn(x, k, exclude_self=True), reference.knn(x, k, exclude_self=True))
    queries = x[: x.shape[0] // 3 + 1]
    assert_same(knn(queries, k, x), reference.knn(queries, k, x))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("copies", [2, 7, 400])
def test_duplicate_rows_come_in_index_order_behind_the_row_itself(copies: int) -> None:
    # Scaled copies have the same cosine; 400 of them are more near ties than a row can hold.
    x = torch.randn(5, 9, generator=generator(0)).repeat(copies, 1)
    x *= 2.0 ** torch.randint(-3, 4, (x.shape[0], 1), generator=generator(1))
    assert_same_neighbours(x, min(10, x.shape[0]))


def test_all_rows_equal() -> None:
    x = torch.ones(500, 16)
    others = torch.arange(499).expand(500, 499)
    others = others + (others >= torch.arange(500)[:, None])  # row r: all numbers but r
    similarity, index = knn(x, 20)
    assert (
        torch.equal(index, torch.cat([torch.arange(500)[:, None], others[:, :19]], dim=1)) and (similarity == 1).all()
    )
    similarity, index = knn(x, 20, exclude_self=True)
    assert torch.equal(index, others[:, :20]) and (similarity == 1).all()
    similarity, index = knn(x, 20, x)  # with a base a row's own index has no precedence
    assert torch.equal(index, torch.arange(20).expand(500, 20)) and (similarity == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_its_own_first_neighbour_whatever_its_duplicates(dtype: torch.dtype) -> None:
    x = torch.randn(30, 8, generator=generator(0), dtype=dtype)
    x[10:25] = x[10]  # 15 equal rows, more than k
    x[[2, 28]] = 0
    own = torch.arange(30)
    for k in (1, 5, 15, 30):
        similarity, index = knn(x, k)
        assert torch.equal(index[:, 0], own) and torch.equal(similarity[:, 0], (x != 0).any(dim=1).to(dtype))
        assert (index.sort(dim=1).values.diff(dim=1) > 0).all()
        if k < 30:
            assert (knn(x, k, exclude_self=True)[1] != own[:, None]).all()


def test_a_row_is_left_out_and_nothing_else_changes() -> None:
    x = torch.randn(700, 40, generator=generator(8))
    for ours, more in zip(knn(x, 10, exclude_self=True), knn(x, 11), strict=True):
        assert torch.equal(ours, more[:, 1:])
    assert_same(knn(x[:2], 1, exclude_self=True), reference.knn(x[:2], 1, exclude_self=True))


@pytest.mark.parametrize(
    ("queries", "rows", "width"), [(1, 1500, 30), (1500, 1, 30), (1100, 2300, 9), (300, 250, 20000)]
)
def test_base_of_any_size(queries: int, rows: int, width: int) -> None:
    x, base = torch.randn(queries, width, generator=generator(10)), torch.randn(rows, width, generator=generator(11))
    assert_same(knn(x, min(rows, 12), base), reference.knn(x, min(rows, 12), base))
    assert_same(knn(x.double(), 1, base.double()), reference.knn(x.double(), 1, base.double()))


def test_base_ties_come_in_index_order_and_zero_rows_last() -> None:
    base = torch.randn(5, 9, generator=generator(0)).repeat(60, 1)  # more near ties than a row can hold
    base *= 2.0 ** torch.randint(-3, 4, (300, 1), generator=generator(1))
    base[7] = 0
    x = torch.cat([torch.zeros(1, 9), base[:4] * 4, torch.randn(3, 9, generator=generator(2))])
    assert_same(knn(x, 40, base), reference.knn(x, 40, base))
    assert knn(x, 3, base)[1][0].tolist() == [0, 1, 2] and not knn(x, 3, base)[0][0].any()
    assert knn(x, 2, base)[1][1].tolist() == [0, 5]


def test_queries_base_and_k_in_that_order() -> None:
    x, base = torch.randn(4, 5, generator=generator(3)), torch.randn(9, 5, generator=generator(4))
    for module in (ops, reference):
        given = (x.to(DEVICE), base.to(DEVICE)) if module is ops else (x, base)
        plain = module.knn(*given, 3)
        assert all(torch.equal(a, b) for a, b in zip(plain, module.knn(given[0], 3, base=given[1]), strict=True))
    assert knn(x[:0], 3, base)[1].shape == (0, 3)


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
    assert (similarity[3] == 0).all() and index[3].tolist() == [3, 0, 1, 2]


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
        assert (similarity == 1).all() and index.tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]


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
