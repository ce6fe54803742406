"""Sparse matrices of torch and scipy given to ops: converted once, and never stale, however they are changed."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from smore_ext import Graph, ops, reference
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


FORMATS = ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"]


def of_scipy(form: str, dtype: str = "float32") -> scipy.sparse.sparray:
    """[4, 4] with entries 0 to 8."""
    dense = np.arange(16).reshape(4, 4) % 9 * (np.arange(16).reshape(4, 4) % 3 > 0)
    return scipy.sparse.csr_array(dense.astype(dtype)).asformat(form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int8", "bool"])
def test_scipy_matrices_are_taken(form: str, dtype: str, conversions: list[Tensor]) -> None:
    for matrix in (of_scipy(form, dtype), scipy.sparse.csr_matrix(of_scipy("csr", dtype)).asformat(form)):
        x = X.clone().requires_grad_()
        wanted = torch.from_numpy(matrix.toarray().astype("float32"))
        for _ in range(2):
            y = ops.spmm(matrix, x)
            torch.testing.assert_close(y, wanted @ X)
        torch.testing.assert_close(ops.propagate(matrix, x, 2, "last"), wanted @ (wanted @ X))
        torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], wanted.sum(0)[:, None].expand(4, 3))
        assert type(Graph.from_scipy(matrix)) is Graph
    assert len(conversions) == 1


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_a_changed_scipy_matrix_is_seen(form: str, conversions: list[Tensor]) -> None:
    matrix = of_scipy(form)
    ops.spmm(matrix, X)
    matrix.data[1] = 77
    torch.testing.assert_close(ops.spmm(matrix, X), torch.from_numpy(matrix.toarray()) @ X)
    ops.spmm(matrix, X)
    assert len(conversions) == 2
    matrix.data.flags.writeable = False
    ops.spmm(matrix, X)
    ops.spmm(matrix.T, X)
    assert len(conversions) == 2


def test_seen_items_as_scipy() -> None:
    seen = scipy.sparse.csr_array((np.ones(4, dtype=bool), ([0, 1, 2, 3], [1, 0, 2, 3])), shape=(4, 4))
    assert ops.masked_topk(torch.ones(4, 2), torch.ones(4, 2), 3, seen)[1][0].tolist() == [0, 2, 3]


def test_duplicates_in_a_scipy_matrix_are_summed() -> None:
    matrix = scipy.sparse.coo_array((np.array([1.0, 2.0]), ([0, 0], [1, 1])), shape=(4, 4))
    torch.testing.assert_close(ops.spmm(matrix, X)[0], 3 * X[1])
    pointers = np.array([0, 2, 2, 2, 2]), np.array([1, 1])
    matrix = scipy.sparse.csr_array((np.array([1.0, 2.0]), pointers[1], pointers[0]), shape=(4, 4))
    torch.testing.assert_close(ops.spmm(matrix, X)[0], 3 * X[1])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", [through_data, through_numpy])
def test_views_see_a_change_of_what_they_are_of(
    layout: str, change: Callable[[Tensor, Tensor], None], conversions: list[Tensor]
) -> None:
    values = torch.from_numpy(np.array([1.0, 2, 3, 4, 5], dtype=np.float32))
    matrix = sparse(layout, values)
    views: list[Callable[[Tensor], Tensor]] = [Tensor.detach, Tensor.t, lambda m: m.t().detach(), lambda m: m]
    for count in (1, 2):
        for view in views:
            torch.testing.assert_close(ops.spmm(view(matrix), X), view(matrix).to_dense() @ X)
        assert len(conversions) == count
        change(matrix, values)


HELD = {
    "dense": (lambda: X, TypeError, r"got layout torch.strided, 2-d: matrix.to_sparse_csr\(\) is one"),
    "edge_index": (lambda: torch.ones(2, 9).long(), TypeError, r"of edges \[2, E\] give Graph.from_edge_index\(edge_i"),
    "bsr": (lambda: torch.eye(4).to_sparse_bsr((2, 2)), TypeError, r"torch.sparse_bsr, 2-d: matrix.to_sparse_coo\(\)"),
    "half": (lambda: torch.eye(4).half().to_sparse(), TypeError, r"got torch.float16: give matrix.float\(\)"),
    "bfloat16": (lambda: torch.eye(4).bfloat16().to_sparse_csr(), TypeError, r"torch.bfloat16: give matrix.float\(\)"),
    "int64": (lambda: torch.eye(4).long().to_sparse(), TypeError, r"got torch.int64: give matrix.float\(\)"),
    "numpy": (lambda: X.numpy(), TypeError, "or a scipy sparse matrix, got ndarray: Graph.from_edges makes a graph of"),
    "list": (lambda: [[0, 1], [1, 0]], TypeError, "got list: Graph.from_edges makes a graph of lists of edges"),
    "1-d scipy": (
        lambda: scipy.sparse.coo_array(np.ones(4)),
        TypeError,
        r"expected a 2-d sparse matrix, got shape \(4,\)",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_no_sparse_matrix_names_the_way_to_one(name: str) -> None:
    make, error, message = HELD[name]
    with pytest.raises(error, match=message):
        ops.spmm(make(), X)


def test_the_ways_out_lead_there() -> None:
    for matrix in (torch.eye(4).to_sparse_csr(), torch.eye(4).to_sparse_bsr((2, 2)).to_sparse_coo()):
        assert torch.equal(ops.spmm(matrix, X), X)
    assert torch.equal(ops.spmm(torch.eye(4).half().to_sparse().float(), X), X)


def test_a_sparse_tensor_of_another_library_is_told_its_own_way() -> None:
    class SparseTensor:  # as torch_sparse has it
        def to_torch_sparse_csr_tensor(self) -> Tensor:
            return torch.eye(4).to_sparse_csr()

    with pytest.raises(TypeError, match=r"got SparseTensor: matrix.to_torch_sparse_csr_tensor\(\) is one"):
        ops.spmm(SparseTensor(), X)


def test_edges_as_pytorch_geometric_holds_them() -> None:
    """out[i] is the sum over edges j -> i of weight * x[j]; the last nodes have no edges."""
    edge_index, weight = torch.tensor([[0, 1, 3, 0], [1, 0, 1, 1]]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    summed = torch.zeros(4, 3).index_add(0, edge_index[1], weight[:, None] * X[edge_index[0]])
    torch.testing.assert_close(ops.spmm(Graph.from_edge_index(edge_index, 4, weight), X), summed)
    torch.testing.assert_close(ops.spmm(Graph.from_edge_index(edge_index.int(), (4, 4), weight), X), summed)
    assert Graph.from_edge_index(edge_index, (4, 2)).shape == (2, 4)
    torch.testing.assert_close(Graph.from_edge_index(edge_index, (4, 2)) @ X, torch.stack([X[1], 2 * X[0] + X[3]]))
    with pytest.raises(ValueError, match=r"edge_index must have shape \[2, E\], got \(4, 2\)"):
        Graph.from_edge_index(edge_index.T, 4)
    with pytest.raises(IndexError, match=r"col must be in 0\.\.2, got 0\.\.3"):
        Graph.from_edge_index(edge_index, 3)
