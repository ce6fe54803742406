"""Storage of a sparse matrix as the ops take it: CSR, with its transpose built once."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


def index_dtype(*sizes: int) -> torch.dtype:
    """int32 where every size fits, else int64."""
    return torch.int32 if max(sizes) < 2**31 else torch.int64


def compress(row: Tensor, n_rows: int, dtype: torch.dtype) -> Tensor:
    """Row pointers [n_rows + 1] from ascending row numbers [E]."""
    bounds = torch.arange(n_rows + 1, dtype=row.dtype, device=row.device)
    return torch.searchsorted(row, bounds, out_int32=dtype == torch.int32)


class CsrMatrix:
    """Sparse matrix [R, C] in CSR form. Treat it as immutable: transposes and casts are remembered.

    Attributes:
        rowptr: [R+1], int32, or int64 where sizes need it.
        col: [E], same dtype, ascending within a row.
        weight: [E], float32 or float64.
        shape: (R, C).
        scale: [R] float32 if the matrix is square and known to have weight = scale[row] * scale[col], else None.
            `propagate` of anything but float64 then reads weights in its first layer only. It does not follow a
            `weight` that is written to: make a new matrix for other weights.
    """

    rowptr: Tensor
    col: Tensor
    weight: Tensor
    shape: tuple[int, int]
    scale: Tensor | None

    def __init__(self, rowptr: Tensor, col: Tensor, weight: Tensor, shape: tuple[int, int]) -> None:
        """Wraps the tensors after checking them: a wrong dtype, shape or index is an error that names it."""
        shape = (int(shape[0]), int(shape[1]))
        if rowptr.dtype not in (torch.int32, torch.int64) or col.dtype != rowptr.dtype:
            raise TypeError(f"rowptr and col must be both int32 or both int64, got {rowptr.dtype} and {col.dtype}")
        if weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"weight must be float32 or float64, got {weight.dtype}")
        if rowptr.shape != (shape[0] + 1,):
            raise ValueError(f"rowptr must have rows + 1 = {shape[0] + 1} entries, got {tuple(rowptr.shape)}")
        if col.ndim != 1 or weight.shape != col.shape:
            raise ValueError(
                f"col and weight must be 1-d and equally long, got {tuple(col.shape)} and {tuple(weight.shape)}"
            )
        steps = rowptr.diff()
        if int(rowptr[0]) != 0 or int(rowptr[-1]) != col.shape[0] or bool((steps < 0).any()):
            raise IndexError(f"rowptr must ascend from 0 to the number of edges, {col.shape[0]}")
        if col.shape[0] and (int(col.min()) < 0 or int(col.max()) >= shape[1]):
            raise IndexError(f"col must be in 0..{shape[1] - 1}, got {int(col.min())}..{int(col.max())}")
        if col.shape[0] > 1:
            within = torch.ones(col.shape[0], dtype=torch.bool, device=col.device)
            within[rowptr[:-1][steps > 0].long()] = False
            if bool((within[1:] & (col.diff() <= 0)).any()):
                raise IndexError(
                    "col must ascend strictly within each row: sort it and sum duplicates (from_edges does)"
                )
        self._set(rowptr.contiguous(), col.contiguous(), weight.detach().contiguous(), shape)

    def _set(
        self, rowptr: Tensor, col: Tensor, weight: Tensor, shape: tuple[int, int], scale: Tensor | None = None
    ) -> None:
        self.rowptr, self.col, self.weight, self.shape, self.scale = rowptr, col, weight, shape, scale
        self._t: Self | None = None
        self._casts: dict[torch.dtype, Tensor] = {weight.dtype: weight}

    @classmethod
    def _trusted(
        cls, rowptr: Tensor, col: Tensor, weight: Tensor, shape: tuple[int, int], scale: Tensor | None = None
    ) -> Self:
        """Without checks, for parts that are right by construction."""
        matrix = cls.__new__(cls)
        matrix._set(rowptr, col, weight, shape, scale)
        return matrix

    @property
    def n_rows(self) -> int:
        return self.shape[0]

    @property
    def n_cols(self) -> int:
        return self.shape[1]

    @property
    def n_edges(self) -> int:
        return self.col.shape[0]

    @property
    def row(self) -> Tensor:
        """Row number of each edge, [E], in the dtype of `col`."""
        numbers = torch.arange(self.n_rows, dtype=self.col.dtype, device=self.col.device)
        return numbers.repeat_interleave(self.rowptr.diff().long(), output_size=self.n_edges)

    @property
    def t(self) -> Self:
        """The transpose. Built once: a stable sort by column keeps rows ascending."""
        if self._t is None:
            column, order = torch.sort(self.col, stable=True)
            rowptr = compress(column, self.n_cols, self.rowptr.dtype)
            shape = (self.n_cols, self.n_rows)
            transpose = self._trusted(rowptr, self.row[order], self.weight[order], shape, self.scale)
            transpose._t = self
            self._t = transpose
        return self._t

    def weight_as(self, dtype: torch.dtype) -> Tensor:
        """The weights in another floating dtype, cast once."""
        if dtype not in self._casts:
            self._casts[dtype] = self.weight.to(dtype)
        return self._casts[dtype]

    @classmethod
    def from_edges(cls, row: Tensor, col: Tensor, weight: Tensor | None, shape: tuple[int, int]) -> Self:
        """From a list of edges in any order; weights of duplicate edges are summed.

        Args:
            row, col: [E], any integer dtype.
            weight: [E], float32 or float64, or None for ones.
            shape: (R, C).
        """
        n_rows, n_cols = int(shape[0]), int(shape[1])
        for name, index, limit in (("row", row, n_rows), ("col", col, n_cols)):
            if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool or index.ndim != 1:
                raise TypeError(f"{name} must be a 1-d integer tensor, got {index.dtype} of shape {tuple(index.shape)}")
            if index.shape[0] and (int(index.min()) < 0 or int(index.max()) >= limit):
                raise IndexError(f"{name} must be in 0..{limit - 1}, got {int(index.min())}..{int(index.max())}")
        if row.shape != col.shape:
            raise ValueError(f"row and col must be equally long, got {row.shape[0]} and {col.shape[0]}")
        if weight is None:
            weight = torch.ones(row.shape[0], dtype=torch.float32, device=row.device)
        if weight.dtype not in (torch.float32, torch.float64) or weight.shape != row.shape:
            raise TypeError(
                f"weight must be float32 or float64 of shape {tuple(row.shape)}, "
                f"got {weight.dtype} of shape {tuple(weight.shape)}"
            )
        key = row.long() * n_cols + col.long()
        key, order = torch.sort(key, stable=True)
        weight = weight.detach()[order]
        if key.shape[0] > 1 and bool((key[1:] == key[:-1]).any()):
            key, group = torch.unique_consecutive(key, return_inverse=True)
            weight = torch.zeros(key.shape[0], dtype=weight.dtype, device=weight.device).index_add_(0, group, weight)
        dtype = index_dtype(n_rows + 1, n_cols + 1, key.shape[0])
        width = max(n_cols, 1)
        return cls._trusted(compress(key // width, n_rows, dtype), (key % width).to(dtype), weight, (n_rows, n_cols))

    @classmethod
    def from_sparse(cls, tensor: Tensor) -> Self:
        """From a torch sparse COO or CSR tensor [R, C], float32 or float64; COO duplicates are summed."""
        if tensor.layout not in (torch.sparse_coo, torch.sparse_csr) or tensor.ndim != 2:
            raise TypeError(f"expected a 2-d sparse COO or CSR tensor, got layout {tensor.layout}, {tensor.ndim}-d")
        if tensor.requires_grad:
            raise ValueError(
                "the weights of a sparse matrix are constants here: detach() it, got one that requires grad"
            )
        shape = (tensor.shape[0], tensor.shape[1])
        if tensor.layout == torch.sparse_csr:
            rowptr, col = tensor.crow_indices(), tensor.col_indices()
            row = torch.arange(shape[0], device=col.device).repeat_interleave(rowptr.diff())
            return cls.from_edges(row, col, tensor.values(), shape)
        row, col = tensor._indices()
        return cls.from_edges(row, col, tensor._values(), shape)


_converted: WeakIdKeyDictionary = WeakIdKeyDictionary()


def as_csr(matrix: CsrMatrix | Tensor) -> CsrMatrix:
    """`matrix` itself, or the converted form of a torch sparse tensor, remembered as long as the tensor lives."""
    if isinstance(matrix, CsrMatrix):
        return matrix
    if not isinstance(matrix, Tensor):
        raise TypeError(f"expected a Graph or a torch sparse tensor, got {type(matrix).__name__}")
    known = _converted.get(matrix)
    if known is None or known[0] != matrix._version:
        known = (matrix._version, CsrMatrix.from_sparse(matrix))
        _converted[matrix] = known
    return known[1]
