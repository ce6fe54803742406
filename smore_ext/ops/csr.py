"""Storage of a sparse matrix as the ops take it: CSR, with its transpose built once."""

from __future__ import annotations

import operator
from typing import Any, Self

import torch
from torch import Tensor

from smore_ext.ops._types import takes_tensors
from smore_ext.ops.modes import ordinary, outside_modes
from smore_ext.ops.structure import CsrStructure, compress, index_dtype

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
CONTIGUOUS: dict[str, Any] = {"memory_format": torch.contiguous_format}


def checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(R, C) as ints, neither of them negative."""
    try:
        n_rows, n_cols = (operator.index(size) for size in shape)
    except (TypeError, ValueError):
        raise TypeError(f"shape must be two whole numbers, rows and columns, got {shape!r}") from None
    if n_rows < 0 or n_cols < 0:
        raise ValueError(f"shape must be two sizes of at least 0, got ({n_rows}, {n_cols})")
    return n_rows, n_cols


def check_pointers(name: str, pointers: Tensor, n_edges: int) -> None:
    """Compares them and does not subtract: differences of int32 may wrap."""
    if int(pointers[0]) != 0 or int(pointers[-1]) != n_edges or bool((pointers[1:] < pointers[:-1]).any()):
        raise IndexError(f"{name} must ascend from 0 to the number of edges, {n_edges}")


def sort_edges(row: Tensor, col: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges by row, then by column.

    Returns:
        (row, col, order [E], begin): rows and columns of the different edges, ascending; where the edges go, equal
        ones in the order given; and where, in that order, the equals of each different edge begin.
    """
    n_rows, n_cols = shape
    if n_rows * n_cols < 2**63:
        key, order = torch.sort(row.long() * n_cols + col.long(), stable=True)
        begin = _differ_from_before(key).nonzero()[:, 0]
        key = _at(key, begin)
        row = key // max(n_cols, 1)
        return row, key - row * n_cols, order, begin
    # One number for an edge would not fit: hashed ids make such shapes.
    order = torch.sort(col, stable=True).indices
    order = order[torch.sort(row[order], stable=True).indices]
    row, col = row[order].long(), col[order].long()
    begin = (_differ_from_before(row) | _differ_from_before(col)).nonzero()[:, 0]
    return _at(row, begin), _at(col, begin), order, begin


def _differ_from_before(values: Tensor) -> Tensor:
    """Which elements differ from the one before; the first does."""
    differs = torch.ones(values.shape, dtype=torch.bool, device=values.device)
    torch.ne(values[1:], values[:-1], out=differs[1:])
    return differs


def _at(values: Tensor, begin: Tensor) -> Tensor:
    """values[begin], which are mostly all of them."""
    return values if begin.shape == values.shape else values.index_select(0, begin)


def take(values: Tensor, index: Tensor) -> Tensor:
    """values[index], of one dimension; the gradient adds in a fixed order."""
    # On the CPU both do, this one faster; on a GPU only indexing does.
    return values.index_select(0, index) if values.device.type == "cpu" else values[index]


def reduce_segments(values: Tensor, begin: Tensor, how: str = "sum") -> Tensor:
    """Sums (or "max") over the segments that start at `begin`, each in order; none is empty."""
    offsets = torch.cat([begin, begin.new_tensor([values.shape[0]])])
    return torch.segment_reduce(values, how, offsets=offsets)


def check_alike(place: str, **tensors: Tensor) -> None:
    """That they are dense, and on the device of the first."""
    first, device = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise TypeError(f"{place}{name} must be a dense tensor, got layout {tensor.layout}")
        if tensor.device != device:
            raise ValueError(f"{place}{name} must be on the device of {first}, {device}, got {tensor.device}")


def version(tensor: Tensor | None) -> int | None:
    """How often a tensor was written to; None where nobody counts."""
    if tensor is None or torch.compiler.is_dynamo_compiling() or tensor.is_inference():
        return None
    return tensor._version


class CsrMatrix:
    """Sparse matrix [R, C] in CSR form. Treat it as immutable: transposes and casts are remembered. Where `weight` is
    written to in place all the same, they are made anew, as far as torch counts it (not through `.data` or numpy).

    Attributes:
        rowptr: [R+1], int32, or int64 where sizes need it.
        col: [E], same dtype, ascending within a row.
        weight: [E], float32 or float64. It may require grad: products then send gradients to it, and nothing that is
            made of it is remembered.
        structure: the edges without weights, shared by what `with_weight` returns.
        shape: (R, C).
        scale: [R] float32 if the matrix is square and known to have weight = scale[row] * scale[col], else None.
            `propagate` of anything but float64 then reads weights in its first layer only.
    """

    rowptr: Tensor
    col: Tensor
    shape: tuple[int, int]
    structure: CsrStructure

    @takes_tensors
    def __init__(self, rowptr: Tensor, col: Tensor, weight: Tensor, shape: tuple[int, int]) -> None:
        """Copies the tensors after checking them: a wrong dtype, shape or index is an error that names it.

        A weight that requires grad is the one exception: it is read anew at each use.
        """
        shape = checked_shape(shape)
        check_alike("", rowptr=rowptr, col=col, weight=weight)
        if rowptr.dtype not in (torch.int32, torch.int64) or col.dtype != rowptr.dtype:
            raise TypeError(f"rowptr and col must be both int32 or both int64, got {rowptr.dtype} and {col.dtype}")
        if weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"weight must be float32 or float64, got {weight.dtype}: weight.float() is")
        if rowptr.shape != (shape[0] + 1,):
            raise ValueError(f"rowptr must have rows + 1 = {shape[0] + 1} entries, got {tuple(rowptr.shape)}")
        if col.ndim != 1 or weight.shape != col.shape:
            raise ValueError(
                f"col and weight must be 1-d and equally long, got {tuple(col.shape)} and {tuple(weight.shape)}"
            )
        check_pointers("rowptr", rowptr, col.shape[0])
        if col.shape[0] and (int(col.min()) < 0 or int(col.max()) >= shape[1]):
            raise IndexError(f"col must be in 0..{shape[1] - 1}, got {int(col.min())}..{int(col.max())}")
        if col.shape[0] > 1:
            within = torch.ones(col.shape[0], dtype=torch.bool, device=col.device)
            begin = rowptr[:-1]
            within[begin[rowptr[1:] > begin].long()] = False
            if bool((within[1:] & (col.diff() <= 0)).any()):
                raise IndexError(
                    "col must ascend strictly within each row: sort it and sum duplicates (from_edges does)"
                )
        rowptr, col = (part.clone(**CONTIGUOUS) for part in (rowptr, col))
        weight = weight.contiguous() if weight.requires_grad else weight.clone(**CONTIGUOUS)
        self._set(CsrStructure(rowptr, col, shape), weight)

    def _set(self, structure: CsrStructure, weight: Tensor | None, scale: Tensor | None = None) -> None:
        self.structure = structure
        self._weight = None if weight is None else ordinary(weight)
        self.rowptr, self.col, self.shape = structure.rowptr, structure.col, structure.shape
        self._forget()
        self.scale = scale

    def _forget(self) -> None:
        """What was made of the weights, and what was known of them."""
        weight = self._weight
        self._t: Self | None = None
        self._casts: dict[torch.dtype, Tensor] = {} if weight is None else {weight.dtype: weight}
        self._scale: Tensor | None = None
        self._written = version(weight)

    def _see(self) -> None:
        """Forgets it where the weights were written to since."""
        if self._written is not None and version(self._weight) not in (None, self._written):
            self._forget()

    @property
    def scale(self) -> Tensor | None:
        self._see()
        return self._scale

    @scale.setter
    def scale(self, scale: Tensor | None) -> None:
        self._scale = None if scale is None else ordinary(scale)

    @classmethod
    def _of(cls, structure: CsrStructure, weight: Tensor | None, scale: Tensor | None = None) -> Self:
        """weight: None for the transpose of a matrix whose weights require grad."""
        matrix = cls.__new__(cls)
        matrix._set(structure, weight, scale)
        return matrix

    @classmethod
    def _trusted(
        cls, rowptr: Tensor, col: Tensor, weight: Tensor, shape: tuple[int, int], scale: Tensor | None = None
    ) -> Self:
        """Without checks, for parts that are right by construction."""
        return cls._of(CsrStructure(rowptr, col, shape), weight, scale)

    def paired(self, transpose: Self) -> Self:
        """Itself, with its transpose, which is known: itself, if it is its own."""
        self._t, transpose._t = transpose, self
        self.structure.pair(transpose.structure)
        return self

    @property
    def weight(self) -> Tensor:
        return take(self.t.weight, self.t.t_order) if self._weight is None else self._weight

    @property
    def is_own_transpose(self) -> bool:
        """Whether it is known to be."""
        self._see()
        return self._t is self

    @property
    def is_live_transpose(self) -> bool:
        """Whether it is the transpose of a matrix whose weights require grad: it has none of its own."""
        return self._weight is None

    @property
    def requires_grad(self) -> bool:
        """Whether the weights do."""
        return self._weight is None or self._weight.requires_grad

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
        return self.structure.row

    @property
    def t(self) -> Self:
        """The transpose. Made once: a stable sort by column keeps rows ascending."""
        self._see()
        if self._t is not None:
            return self._t
        transpose, lasting = outside_modes(self._transpose, *self._made_of())
        transpose._t = self
        if lasting or (transpose._weight is None and self.structure._t is transpose.structure):
            self._t = transpose
        return transpose

    def _transpose(self) -> Self:
        weight = None if self.requires_grad else take(self.weight, self.t_order)
        return self._of(self.structure.t, weight, self.scale)

    def _made_of(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """The tensors that hold everything else."""
        return self.rowptr, self.col, self.t._weight if self._weight is None else self._weight

    @property
    def t_order(self) -> Tensor:
        """[E], dtype of `col`: edge e of `t` is edge t_order[e] of this, so `t.weight` is `weight[t_order]`."""
        return self.structure.t_order

    def weight_as(self, dtype: torch.dtype) -> Tensor:
        """The weights in another floating dtype, cast once unless they require grad."""
        self._see()
        if dtype in self._casts:
            return self._casts[dtype]
        cast, lasting = outside_modes(lambda: self.weight.to(dtype), *self._made_of())
        if lasting:
            self._casts[dtype] = cast
        return cast

    @takes_tensors
    def with_weight(self, weight: Tensor) -> Self:
        """The same edges with other weights. They share their transpose, which is made once for all of them.

        Args:
            weight: [E], float32 or float64, in stored order (that of `col`). If it requires grad, so do the weights of
                the result: `ops.spmm` and `ops.propagate` send gradients to it, also through `.t`. It is then read anew
                at each use; one that does not is copied.

        Raises:
            TypeError, ValueError: another dtype, shape or device.
        """
        if weight.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"with_weight: weight must be float32 or float64, got {weight.dtype}: weight.float() is")
        if weight.shape != self.col.shape:
            raise ValueError(f"with_weight: weight must have shape {(self.n_edges,)}, got {tuple(weight.shape)}")
        if weight.layout != torch.strided:
            raise TypeError(f"with_weight: weight must be a dense tensor, got layout {weight.layout}")
        if weight.device != self.col.device:
            raise ValueError(
                f"with_weight: weight must be on the graph's device, {self.col.device}, got {weight.device}"
            )
        if not weight.requires_grad:
            weight, _ = outside_modes(lambda: weight.clone(**CONTIGUOUS), weight)
        return self._of(self.structure, weight.contiguous())

    @takes_tensors
    def drop_edges(self, keep: Tensor) -> Self:
        """The matrix with some of its edges, their weights unchanged. Linear in E: the transpose is not made anew.

        Args:
            keep: [E] bool, in stored order; or the numbers of the edges that stay, int64, in any order, repeated or
                not. For a symmetric matrix, `keep & keep[graph.t_order]` drops both directions of an edge, and the
                result is known to be symmetric.

        Raises:
            TypeError, ValueError, IndexError: another dtype or shape, or a number out of range.
        """
        if keep.dtype not in (torch.bool, torch.int64) or keep.ndim != 1:
            raise TypeError(
                f"drop_edges: keep must be a 1-d bool mask or int64 list of edges, "
                f"got {keep.dtype} of shape {tuple(keep.shape)}"
                + (": keep.long() is" if keep.dtype == torch.int32 and keep.ndim == 1 else "")
            )
        if keep.dtype == torch.int64:
            if keep.shape[0] and (int(keep.min()) < 0 or int(keep.max()) >= self.n_edges):
                limits = f"0..{self.n_edges - 1}, got {int(keep.min())}..{int(keep.max())}"
                raise IndexError(f"drop_edges: keep must be in {limits}")
            keep = torch.zeros(self.n_edges, dtype=torch.bool, device=keep.device).index_fill_(0, keep, True)
        elif keep.shape != self.col.shape:
            raise ValueError(f"drop_edges: keep must have shape {(self.n_edges,)}, got {tuple(keep.shape)}")
        if keep.device != self.col.device:
            raise ValueError(f"drop_edges: keep must be on the graph's device, {self.col.device}, got {keep.device}")
        structure = self.structure.keep(keep)
        matrix = self._of(structure, take(self.weight, keep.nonzero()[:, 0]), self.scale)
        return matrix.paired(matrix) if self.is_own_transpose and structure.t is structure else matrix

    @classmethod
    @takes_tensors
    def from_edges(cls, row: Tensor, col: Tensor, weight: Tensor | None, shape: tuple[int, int]) -> Self:
        """From a list of edges in any order; weights of duplicate edges are summed.

        Args:
            row, col: [E], any integer dtype.
            weight: [E], float32 or float64, or None for ones. If it requires grad, the weights of the result do, and
                their gradients go back through sorting and summing.
            shape: (R, C).
        """
        n_rows, n_cols = checked_shape(shape)
        for name, index, limit in (("row", row, n_rows), ("col", col, n_cols)):
            if index.dtype not in INTEGERS or index.ndim != 1:
                raise TypeError(
                    f"{name} must be a 1-d tensor of int64, int32, int16, int8 or uint8, got {index.dtype} of shape "
                    f"{tuple(index.shape)}"
                )
            if index.shape[0] and (int(index.min()) < 0 or int(index.max()) >= limit):
                raise IndexError(f"{name} must be in 0..{limit - 1}, got {int(index.min())}..{int(index.max())}")
        check_alike("", **{"row": row, "col": col} | ({} if weight is None else {"weight": weight}))
        if row.shape != col.shape:
            raise ValueError(f"row and col must be equally long, got {row.shape[0]} and {col.shape[0]}")
        if weight is None:
            weight = torch.ones(row.shape[0], dtype=torch.float32, device=row.device)
        if weight.dtype not in (torch.float32, torch.float64) or weight.shape != row.shape:
            raise TypeError(
                f"weight must be float32 or float64 of shape {tuple(row.shape)}, "
                f"got {weight.dtype} of shape {tuple(weight.shape)}"
                + (": weight.float() is" if weight.is_floating_point() and weight.shape == row.shape else "")
            )
        row, col, order, begin = sort_edges(row, col, (n_rows, n_cols))
        weight = take(weight, order)
        if row.shape[0] < order.shape[0]:
            weight = reduce_segments(weight, begin)
        dtype = index_dtype(n_rows + 1, n_cols + 1, row.shape[0])
        return cls._trusted(compress(row, n_rows, dtype), col.to(dtype), weight, (n_rows, n_cols))

    @classmethod
    @takes_tensors
    def from_edge_index(cls, edge_index: Tensor, size: int | tuple[int, int], weight: Tensor | None = None) -> Self:
        """From edges as PyTorch Geometric holds them: messages go from edge_index[0] to edge_index[1].

        So row i of the matrix adds up what comes to node i: its entries are (edge_index[1], edge_index[0]), and
        `ops.spmm` of it is what `MessagePassing` with aggr "add" makes of messages weight * x_j. Where edge_index[0] is
        a row (as in torch_sparse's spmm, or in networkx), give `from_edges(*edge_index, weight, shape)`.

        Args:
            edge_index: [2, E], any integer dtype: source and target of each edge; weights of duplicates are summed.
            size: N nodes, or (sources, targets). Not guessed: the last nodes may have no edges.
            weight: [E], as in `from_edges`.

        Returns:
            [targets, sources].
        """
        if edge_index.ndim != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"from_edge_index: edge_index must have shape [2, E], got {tuple(edge_index.shape)}")
        sources, targets = size if isinstance(size, tuple | list) else (size, size)
        return cls.from_edges(edge_index[1], edge_index[0], weight, (targets, sources))

    @staticmethod
    def check_sparse(tensor: Tensor) -> None:
        """That `from_sparse` takes it."""
        if tensor.layout not in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc) or tensor.ndim != 2:
            raise TypeError(
                f"expected a 2-d sparse COO, CSR or CSC tensor, got layout {tensor.layout}, {tensor.ndim}-d"
                f"{_made_sparse(tensor)}"
            )
        if tensor.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"expected a sparse tensor of float32 or float64, got {tensor.dtype}: give matrix.float(); rows of "
                f"bfloat16 go with it"
            )
        if tensor.dense_dim() > 0:
            raise TypeError(f"expected a sparse tensor without dense dimensions, got {tensor.dense_dim()}")
        if tensor.requires_grad:
            raise ValueError(
                "the weights of a torch sparse tensor are constants here, got one that requires grad: detach() it, or "
                "give its values to Graph.from_edges"
            )

    @classmethod
    @takes_tensors
    def from_sparse(cls, tensor: Tensor) -> Self:
        """From a torch sparse COO, CSR or CSC tensor [R, C], float32 or float64; duplicates are summed."""
        cls.check_sparse(tensor)
        n_rows, n_cols = tensor.shape[0], tensor.shape[1]
        if tensor.layout == torch.sparse_csr:
            row, col = _expanded("crow_indices", tensor.crow_indices(), tensor.values()), tensor.col_indices()
        elif tensor.layout == torch.sparse_csc:
            row, col = tensor.row_indices(), _expanded("ccol_indices", tensor.ccol_indices(), tensor.values())
        else:
            row, col = tensor._indices()
        values = tensor._values() if tensor.layout == torch.sparse_coo else tensor.values()
        return cls.from_edges(row, col, values, (n_rows, n_cols))


def _made_sparse(tensor: Tensor) -> str:
    """How what is not sparse becomes it, for an error."""
    if tensor.layout != torch.strided:
        return ": matrix.to_sparse_coo() is one" if tensor.ndim == 2 else ""
    if tensor.shape[:1] == (2,) and not tensor.is_floating_point():
        return ": of edges [2, E] give Graph.from_edge_index(edge_index, size), or Graph.from_edges(row, col, ...)"
    return ": matrix.to_sparse_csr() is one" if tensor.ndim == 2 else ""


def _expanded(name: str, pointers: Tensor, values: Tensor) -> Tensor:
    """The row of each value, from row pointers, which torch checks only if it is asked to."""
    check_pointers(name, pointers, values.shape[0])
    return torch.arange(pointers.shape[0] - 1, device=pointers.device).repeat_interleave(pointers.diff())
