"""Sparse matrices of torch and scipy as the ops take them: converted once, and never stale."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

import torch
from torch import Tensor

from smore_ext.ops.csr import CsrMatrix
from smore_ext.ops.modes import is_plain, outside_modes

if TYPE_CHECKING:
    import scipy.sparse

# What ops take for a graph.
Matrix: TypeAlias = Union[CsrMatrix, Tensor, "scipy.sparse.spmatrix", "scipy.sparse.sparray"]

KEPT = 4  # conversions of tensors that are gone, as `adjacency.t()` is after each call


def as_csr(matrix: Matrix) -> CsrMatrix:
    """`matrix` itself, or the converted form of a sparse tensor or scipy matrix, which is remembered.

    It is known by its contents, not by the tensor: a change of values or indices is seen, whichever way it was made
    (`_version` knows nothing of `.data`, of the tensor that values were given by, or of a numpy array that shares their
    memory), and a view or a copy (`detach()`, `t()`, `clone()`) is not converted anew. Comparing costs a quarter to a
    third of a product of width 64, converting 25 to 50 products, a `Graph` nothing. On a GPU the host waits for the
    outcome, once a call. It cannot while a CUDA graph is captured: there the tensor counts as unchanged since its last
    use.
    """
    if isinstance(matrix, CsrMatrix):
        return matrix
    if not isinstance(matrix, Tensor):
        if not hasattr(matrix, "tocoo"):
            raise TypeError(_not_sparse(matrix))
        if torch.compiler.is_dynamo_compiling():
            raise TypeError("in torch.compile give Graph.from_scipy(matrix) in place of a scipy matrix")
        return outside_modes(lambda: _remembered(_of_scipy(matrix)))[0]
    if torch.compiler.is_dynamo_compiling() or not is_plain(matrix):
        return CsrMatrix.from_sparse(matrix)
    CsrMatrix.check_sparse(matrix)
    return outside_modes(lambda: _remembered(matrix), matrix)[0]


def _not_sparse(matrix: Any) -> str:
    message = f"expected a Graph, a torch sparse tensor or a scipy sparse matrix, got {type(matrix).__name__}"
    if hasattr(matrix, "to_torch_sparse_csr_tensor"):  # torch_sparse's SparseTensor
        return f"{message}: matrix.to_torch_sparse_csr_tensor() is one"
    return f"{message}: Graph.from_edges makes a graph of lists of edges"


def _of_scipy(matrix: Any) -> Tensor:
    """A scipy matrix or array as a torch sparse tensor, of the same memory if it is CSR or CSC in float32 or float64.

    Other dtypes become float32, as in `Graph.from_scipy`. scipy itself is not needed.
    """
    if len(matrix.shape) != 2:
        raise TypeError(f"expected a 2-d sparse matrix, got shape {tuple(matrix.shape)}")
    if matrix.dtype.kind == "c":
        raise TypeError(f"expected a real sparse matrix, got {matrix.dtype}: give matrix.real, or abs(matrix)")
    compressed = matrix.format in ("csr", "csc")
    matrix = matrix if compressed else matrix.tocoo()
    data = matrix.data if matrix.data.dtype.name in ("float32", "float64") else matrix.data.astype("float32")
    values = _shared(data)
    if compressed:
        make = torch.sparse_csr_tensor if matrix.format == "csr" else torch.sparse_csc_tensor
        parts = (_shared(matrix.indptr), _shared(matrix.indices))
        return make(*parts, values, matrix.shape, check_invariants=False)
    index = torch.stack([_shared(matrix.row).long(), _shared(matrix.col).long()])
    return torch.sparse_coo_tensor(index, values, matrix.shape, check_invariants=False)


def _shared(array: Any) -> Tensor:
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


class _Contents(NamedTuple):
    """What a sparse tensor holds."""

    layout: torch.layout
    shape: tuple[int, int]
    parts: tuple[Tensor, ...]  # values first

    @property
    def t(self) -> _Contents:
        """Of a COO matrix."""
        values, row, col = self.parts
        return _Contents(self.layout, (self.shape[1], self.shape[0]), (values, col, row))

    def copy(self) -> _Contents:
        return self._replace(parts=tuple(part.clone() for part in self.parts))

    def same_as(self, other: _Contents) -> bool:
        """Whether both hold the same bits: a NaN is itself, and 0 is not -0."""
        if self.layout != other.layout or self.shape != other.shape:
            return False
        pairs = list(zip(self.parts, other.parts, strict=True))
        if any(a.shape != b.shape or a.dtype != b.dtype or a.device != b.device for a, b in pairs):
            return False
        if self.parts[0].device.type == "cpu":
            return all(torch.equal(_bits(a), _bits(b)) for a, b in pairs)
        return bool(torch.stack([torch.eq(_bits(a), _bits(b)).all() for a, b in pairs]).all())  # the host waits once


def _bits(part: Tensor) -> Tensor:
    if not part.is_floating_point():
        return part
    return part.view(torch.int64 if part.dtype == torch.float64 else torch.int32)


def _contents(tensor: Tensor) -> tuple[_Contents, bool]:
    """Of the tensor, or of its transpose if the flag says so: CSC is the CSR of the transpose."""
    n_rows, n_cols = tensor.shape
    if tensor.layout == torch.sparse_csr:
        parts = (tensor.values(), tensor.crow_indices(), tensor.col_indices())
        return _Contents(torch.sparse_csr, (n_rows, n_cols), parts), False
    if tensor.layout == torch.sparse_csc:
        parts = (tensor.values(), tensor.ccol_indices(), tensor.row_indices())
        return _Contents(torch.sparse_csr, (n_cols, n_rows), parts), True
    row, col = tensor._indices()
    return _Contents(torch.sparse_coo, (n_rows, n_cols), (tensor._values(), row, col)), False


class _Conversion:
    """What a tensor held when it was converted, and its converted form."""

    def __init__(self, tensor: Tensor, contents: _Contents, matrix: CsrMatrix) -> None:
        self.of = weakref.ref(tensor)
        self.contents, self.matrix = contents.copy(), matrix

    def find(self, contents: _Contents) -> CsrMatrix | None:
        """The matrix of these contents, if it or its transpose was converted."""
        if contents.same_as(self.contents):
            return self.matrix
        if contents.layout == torch.sparse_coo and contents.t.same_as(self.contents):
            return self.matrix.t
        return None


_conversions: tuple[_Conversion, ...] = ()  # the latest first; replaced as a whole, so that threads need no lock


def _remembered(tensor: Tensor) -> CsrMatrix:
    contents, transposed = _contents(tensor)
    own = [c for c in _conversions if c.of() is tensor]
    others = [c for c in _conversions if c.of() is not tensor]
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        if not own:
            raise RuntimeError(
                "a torch sparse tensor cannot be converted while a CUDA graph is captured: use it once before, or give "
                "Graph.from_sparse(tensor)"
            )
        matrix = own[0].matrix
    else:
        for conversion in own + others:
            found = conversion.find(contents)
            if found is not None:
                matrix = found
                if conversion.of() is None:
                    conversion.of = weakref.ref(tensor)
                _put_first(conversion, [c for c in own + others if c is not conversion])
                break
        else:
            matrix = CsrMatrix.from_sparse(tensor)
            matrix = matrix.t if transposed else matrix
            _put_first(_Conversion(tensor, contents, matrix), others)
    return matrix.t if transposed else matrix


def _put_first(conversion: _Conversion, others: list[_Conversion]) -> None:
    """Remembers it, those of living tensors, and the latest of others."""
    global _conversions
    gone = [c for c in others if c.of() is None]
    _conversions = (conversion, *(c for c in others if c not in gone[KEPT - 1 :]))
