"""Torch sparse tensors given to ops: converted once, and never stale, however they are changed."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from smore_ext import ops, reference
from smore_ext.ops import converted
from smore_ext.ops.csr import CsrMatrix

LAYOUTS = ["coo", "csr", "csc"]
X = torch.arange(1.0, 13.0).view(4, 3)


def sparse(layout: str, values: Tensor) -> Tensor:
    """[4, 4] whose values, not sorted by row in COO, share memory with `values` [5]."""
    row, col = torch.tensor([2, 0, 1, 3, 0]), torch.tensor([3, 1, 0, 2, 2])
    if layout == "coo":
        return torch.sparse_coo_tensor(torch.stack([row, col]), values, (4, 4), check_invariants=False)
    make = torch.sparse_csr_tensor if layout == "csr" else torch.sparse_csc_tensor
    pointers, entries = torch.tensor([0, 2, 3, 4, 5]), torch.tensor([1, 2, 0, 3, 2])
    return make(pointers, entries, values, (4, 4), check_invariants=False)


def values_of(matrix: Tensor) -> Tensor:
    return matrix._values() if matrix.layout == torch.sparse_coo else matrix.values()


def dense(matrix: Tensor) -> Tensor:
    return matrix.detach().to_dense()


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors that are converted from here on; nothing is known yet."""
    seen: list[Tensor] = []
    convert = CsrMatrix.from_sparse.__func__

    def counted(cls: type[CsrMatrix], tensor: Tensor) -> CsrMatrix:
        seen.append(tensor.detach())
        return convert(cls, tensor)

    monkeypatch.setattr(converted, "_conversions", ())
    monkeypatch.setattr(CsrMatrix, "from_sparse", classmethod(counted))
    return seen


def through_data(matrix: Tensor, _: Tensor) -> None:
    values_of(matrix).data.mul_(2)


def through_the_source(_: Tensor, values: Tensor) -> None:
    values.mul_(2)


def through_numpy(_: Tensor, values: Tensor) -> None:
    values.numpy()[1] = 7


def through_a_swap(_: Tensor, values: Tensor) -> None:
    values.data.copy_(values.flip(0))


def through_indices(matrix: Tensor, _: Tensor) -> None:
    indices = {torch.sparse_coo: lambda: matrix._indices()[1], torch.sparse_csr: matrix.col_indices}
    indices.get(matrix.layout, matrix.row_indices)().numpy()[-1] = 3


def through_the_sign_of_zero(_: Tensor, values: Tensor) -> None:
    values.numpy()[0] = -0.0


CHANGES = [
    through_data,
    through_the_source,
    through_numpy,
    through_a_swap,
    through_indices,
    through_the_sign_of_zero,
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("inference", [False, True])
def test_a_change_is_seen(layout: str, change: Callable[[Tensor, Tensor], None], inference: bool) -> None:
    values = torch.from_numpy(np.array([0.0, 2, 3, 4, 5], dtype=np.float32))
    matrix = sparse(layout, values)
    x = X.clone()
    x[3] = torch.tensor([-1.0, 1.0, 1.0])
    with torch.inference_mode(inference):
        torch.testing.assert_close(ops.spmm(matrix, x), dense(matrix) @ x)
        change(matrix, values)
        torch.testing.assert_close(ops.spmm(matrix, x), dense(matrix) @ x)
    weight = ops.edge_dot(matrix, x, x)  # of the edges, in the order of rows and columns
    row, col = dense(matrix).nonzero().T
    if change is not through_the_sign_of_zero and 0.0 not in values.tolist():
        torch.testing.assert_close(weight, (x[row] * x[col]).sum(dim=1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_views_and_copies_are_not_converted_anew(layout: str, conversions: list[Tensor]) -> None:
    matrix = sparse(layout, torch.tensor([1.0, torch.nan, 3.0, -0.0, 5.0]))
    for _ in range(3):
        for view in (matrix, matrix.detach(), matrix.clone()):
            ops.spmm(view, X)
        for view in (matrix.t(), matrix.t().detach().clone(), matrix.transpose(0, 1)):
            torch.testing.assert_close(ops.spmm(view, X), dense(matrix).T.contiguous() @ X, equal_nan=True)
    assert len(conversions) == 1


def test_a_transpose_alone_is_converted_once(conversions: list[Tensor]) -> None:
    matrix = sparse("coo", torch.rand(5))
    for _ in range(3):
        ops.spmm(matrix.t(), X)
    assert len(conversions) == 1
    ops.spmm(matrix, X)
    assert len(conversions) == 1


def test_several_of_one_shape_are_told_apart(conversions: list[Tensor]) -> None:
    matrices = [sparse("coo", torch.rand(5)) for _ in range(10)]
    for _ in range(3):
        for matrix in matrices:
            torch.testing.assert_close(ops.spmm(matrix, X), dense(matrix) @ X)
    assert len(conversions) == 10


def test_a_tensor_that_keeps_changing_keeps_one_conversion(conversions: list[Tensor]) -> None:
    values = torch.ones(5)
    matrix = sparse("csr", values)
    for step in range(5):
        values += 1
        torch.testing.assert_close(ops.spmm(matrix, X), dense(matrix) @ X)
        assert len(conversions) == step + 1 and len(converted._conversions) == 1


def test_what_is_kept_of_tensors_that_are_gone_is_bounded(conversions: list[Tensor]) -> None:
    living = sparse("csr", torch.rand(5))
    ops.spmm(living, X)
    for _ in range(3 * converted.KEPT):
        ops.spmm(sparse("coo", torch.rand(5)), X)
    gc.collect()
    assert len(converted._conversions) <= converted.KEPT + 1
    count = len(conversions)
    ops.spmm(living, X)
    assert len(conversions) == count


def test_one_that_requires_grad_is_refused_though_its_contents_are_known() -> None:
    matrix = sparse("coo", torch.ones(5))
    ops.spmm(matrix, X)
    with pytest.raises(ValueError, match="are constants here, got one that requires grad"):
        ops.spmm(matrix.clone().requires_grad_(), X)
    with pytest.raises(TypeError, match="without dense dimensions, got 1"):
        ops.spmm(torch.sparse_coo_tensor(torch.tensor([[0]]), torch.ones(1, 4), (4, 4)), X)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_made_in_inference_mode_trains(layout: str) -> None:
    with torch.inference_mode():
        matrix = sparse(layout, torch.ones(5))
        ops.spmm(matrix, X)
        wanted = dense(matrix).T @ torch.ones_like(X)
    x = X.clone().requires_grad_()
    ops.spmm(matrix, x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, wanted)


def test_seen_items_are_not_stale() -> None:
    col = torch.tensor([1, 0, 2, 3])
    seen = torch.sparse_csr_tensor(torch.arange(5), col, torch.ones(4), (4, 4), check_invariants=False)
    users = torch.ones(4, 2)
    before = ops.masked_topk(users, users, 3, seen)[1]
    assert before[0].tolist() == [0, 2, 3]
    col.numpy()[0] = 3
    assert ops.masked_topk(users, users, 3, seen)[1][0].tolist() == [0, 1, 2]
    drawn = ops.sample_negatives(torch.zeros(64, dtype=torch.int64), seen, torch.tensor([1, 3]), 1)
    assert drawn.tolist() == [1] * 64


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_matrix(layout: str) -> None:
    matrix = sparse(layout, torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64))
    torch.testing.assert_close(ops.spmm(matrix, X.double()), dense(matrix) @ X.double())
    torch.testing.assert_close(CsrMatrix.from_sparse(matrix).weight.sum(), torch.tensor(15.0, dtype=torch.float64))
    if layout != "csc":
        torch.testing.assert_close(reference.spmm(matrix, X.double()), ops.spmm(matrix, X.double()))


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_pointers_that_torch_did_not_check_are_refused(layout: str) -> None:
    matrix = sparse(layout, torch.ones(5))
    pointers = matrix.crow_indices() if layout == "csr" else matrix.ccol_indices()
    for wrong in (9, -1, 2**63 - 1, -(2**63)):
        pointers.numpy()[2] = wrong
        with pytest.raises(IndexError, match=r"_indices must ascend from 0 to the number of edges, 5"):
            ops.spmm(matrix, X)
