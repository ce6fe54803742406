"""Graphs of users and items: sparse matrices with their transpose, and how they are built (docs/spec.md, section 2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.ops._types import check_is, takes_tensors
from smore_ext.ops.csr import CsrMatrix, reduce_segments, sort_edges, take, version
from smore_ext.ops.modes import is_plain, ordinary, outside_modes
from smore_ext.ops.structure import compress, index_dtype
from smore_ext.ops.tensor_like import TensorLike

if TYPE_CHECKING:
    import scipy.sparse

Norm = Literal["sym", "rw", "none"]
Span = slice | range | tuple[int, int]


def _check_norm(norm: str, eps: float) -> None:
    if norm not in get_args(Norm):
        raise ValueError(f'norm must be "sym", "rw" or "none", got {norm!r}')
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be at least 0 and finite, got {eps}")


def _degree_power(degree: Tensor, norm: Norm, eps: float) -> Tensor:
    """(degree + eps)^-1/2 ("sym") or ^-1 ("rw") in float64; 0 where that is not positive: such a row has no weight."""
    degree = degree.double() + eps
    positive = degree > 0
    degree = torch.where(positive, degree, 1.0)  # also where it is not used: a gradient must not be 0 * infinity
    return torch.where(positive, degree.rsqrt() if norm == "sym" else degree.reciprocal(), 0.0)


def _bounds(name: str, span: Span, size: int) -> tuple[int, int]:
    """Begin and end of what a slice, a range or a pair names in 0..size."""
    if isinstance(span, slice):
        begin, end, step = span.indices(size)
        end = max(begin, end)
    elif isinstance(span, range):
        begin, end, step = span.start, span.stop, span.step
    else:
        if not isinstance(span, tuple) or len(span) != 2 or not all(isinstance(place, int) for place in span):
            raise TypeError(
                f"{name} must be a slice, a range or a pair (begin, end), got {type(span).__name__}: graph.rows(index) "
                f"takes rows by their numbers"
            )
        (begin, end), step = span, 1
    if step != 1:
        raise ValueError(f"{name} must be in steps of 1, got {span}")
    if not 0 <= begin <= end <= size:
        raise IndexError(f"{name} must begin and end in 0..{size}, got {begin} to {end}")
    return begin, end


class Graph(TensorLike):
    """Weighted directed graph as a sparse matrix [R, C]; see `CsrMatrix` for its parts.

    `graph.t` is the transpose, built once; `from_edges` and `from_sparse` make a graph from what a user has. What is
    done to torch sparse tensors can be done to it (`TensorLike`): graph @ x, torch.mm(graph, x), 0.5 * graph + other.
    """

    _sparse: dict[str, Tensor]  # by layout

    def _forget(self) -> None:
        super()._forget()
        self._sparse = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """With what it remembers, and what it shares with graphs that are copied along with it."""
        memo[id(self)] = new = type(self).__new__(type(self))
        # Sparse tensors can be copied only in part (torch 2.11 to 2.14: no CSR); they are soon made again.
        self._see()
        vars(new).update(copy.deepcopy({**vars(self), "_sparse": {}}, memo))
        new._written = version(new._weight)
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        """What is stored is plain tensors, and what is read is checked: `stored` is the only function that is called,
        so `torch.load` takes it with weights_only=True."""
        if self.is_live_transpose:
            return stored, (type(self), self.t)
        parts = (self.rowptr, self.col, self.weight, self.shape, self.scale, self.is_own_transpose)
        return stored, (type(self), *parts)

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.spmatrix | scipy.sparse.sparray) -> Self:
        """From any scipy sparse matrix or array; duplicates are summed, dtypes but float64 become float32."""
        import numpy as np
        import scipy.sparse

        if np.iscomplexobj(matrix):
            raise TypeError(f"from_scipy: expected a real matrix, got {matrix.dtype}: give matrix.real, or abs(matrix)")
        coo = scipy.sparse.coo_array(matrix)
        dtype = np.float64 if coo.dtype == np.float64 else np.float32
        row, col = (torch.from_numpy(index.astype(np.int64)) for index in coo.coords)
        return cls.from_edges(row, col, torch.from_numpy(coo.data.astype(dtype)), coo.shape)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The same matrix as scipy CSR, on the CPU: a copy, which may be written to."""
        import scipy.sparse

        parts = (self.weight.detach(), self.col, self.rowptr)
        return scipy.sparse.csr_array(tuple(part.cpu().clone().numpy() for part in parts), shape=self.shape)

    def to_sparse(self, layout: str = "csr", copy: bool = True) -> Tensor:
        """The same matrix as a torch sparse tensor, "csr" or "coo" (coalesced).

        copy: one that may be written to. False: the one that the graph remembers, which shares its memory; of weights
            that require grad none is remembered.
        """
        if layout not in ("csr", "coo"):
            raise ValueError(f'layout must be "csr" or "coo", got {layout!r}')
        sparse = self._sparse_form(layout)
        return outside_modes(sparse.clone, *self._made_of())[0] if copy else sparse

    def _sparse_form(self, layout: str) -> Tensor:
        self._see()
        known = self._sparse.get(layout)
        if known is not None:
            return known
        sparse, lasting = outside_modes(lambda: self._as_sparse(layout), *self._made_of())
        if lasting:
            self._sparse[layout] = sparse
        return sparse

    def _as_sparse(self, layout: str) -> Tensor:
        if layout == "csr":
            return torch.sparse_csr_tensor(self.rowptr, self.col, self.weight, self.shape, check_invariants=False)
        index = torch.stack([self.row.long(), self.col.long()])
        return torch.sparse_coo_tensor(index, self.weight, self.shape, is_coalesced=True, check_invariants=False)

    def __add__(self, other: Graph) -> Self:
        """The sum of two graphs of one shape: `weighted_sum` with weights of 1."""
        return self._plus("graph + x", other, 1.0)

    def __radd__(self, other: int) -> Self:
        """0 + graph, with which `sum([graph, ...])` begins."""
        return self if isinstance(other, int) and other == 0 else self._plus("x + graph", other, 1.0)

    def add(self, other: Graph) -> Self:
        return self + other

    def sub(self, other: Graph) -> Self:
        return self - other

    def __sub__(self, other: Graph) -> Self:
        return self._plus("graph - x", other, -1.0)

    def __rsub__(self, other: Any) -> Self:
        return self._plus("x - graph", other, -1.0)

    def _plus(self, place: str, other: Any, sign: float) -> Self:
        if not isinstance(other, Graph):
            raise TypeError(
                f"{place}: x must be a Graph, got {type(other).__name__}: graph.to_dense() adds to dense matrices, "
                f"Graph.from_sparse(x) makes a graph of a torch sparse tensor"
            )
        return self.weighted_sum([self, other], [1.0, sign])

    @takes_tensors
    def rows(self, index: Tensor) -> Self:
        """The graph [len(index), C] whose row r is row index[r] of this one. index: int64 or int32, in range."""
        if index.dtype not in (torch.int64, torch.int32) or index.ndim != 1:
            raise TypeError(f"rows: index must be 1-d int64 or int32, got {index.dtype} of shape {tuple(index.shape)}")
        return outside_modes(lambda: self._rows(index), *self._made_of(), index)[0]

    def _rows(self, index: Tensor) -> Self:
        checked = index.shape[0] and not torch.compiler.is_compiling()  # there by torch's indexing below
        if checked and (int(index.min()) < 0 or int(index.max()) >= self.n_rows):
            raise IndexError(f"rows must be in 0..{self.n_rows - 1}, got {int(index.min())}..{int(index.max())}")
        if checked and index.shape == (1,) and is_plain(index):  # a server's question: views, and nothing to gather
            row = int(index[0])
            begin, end = self.rowptr[row : row + 2].tolist()
            rowptr, span = self.rowptr[row : row + 2] - begin, slice(begin, end)
            return self._trusted(rowptr, self.col[span], self.weight[span], (1, self.n_cols))
        start = self.rowptr[index].long()
        length = self.rowptr[index + 1].long() - start
        rowptr = torch.zeros(index.shape[0] + 1, dtype=torch.int64, device=index.device)
        torch.cumsum(length, dim=0, out=rowptr[1:])
        n_edges: Any = rowptr[-1].item()  # not int(): torch.export takes it for a number that it will know
        edge = torch.arange(n_edges, device=index.device)
        edge += (start - rowptr[:-1]).repeat_interleave(length, output_size=n_edges)
        parts = (rowptr.to(self.rowptr.dtype), self.col[edge], take(self.weight, edge))
        return self._trusted(*parts, (index.shape[0], self.n_cols))

    def block(self, rows: Span, cols: Span) -> Self:
        """The sub-matrix of consecutive rows and columns, in time linear in the edges of those rows (and columns).

        Args:
            rows, cols: each a slice (as Python understands it), a range or a pair (begin, end); steps of 1.

        Returns:
            Graph [end - begin of rows, end - begin of cols]. A transpose that is known is cut out too, and where no
            column is left out weights share memory with these.
        """
        span, across = _bounds("rows", rows, self.n_rows), _bounds("cols", cols, self.n_cols)
        block = self._block(span, across)
        if span == across and (scale := self.scale) is not None:
            block.scale = scale[slice(*span)]
        if self._t is not None:
            block.paired(block if span == across and self.is_own_transpose else self.t._block(across, span))
        return block

    def _block(self, rows: tuple[int, int], cols: tuple[int, int]) -> Self:
        rowptr = self.rowptr[rows[0] : rows[1] + 1]
        begin, end = int(rowptr[0]), int(rowptr[-1])
        rowptr, col, weight = rowptr - begin, self.col[begin:end] - cols[0], self.weight[begin:end]
        width = cols[1] - cols[0]
        inside = (col >= 0) & (col < width)
        if not bool(inside.all()):
            before = torch.zeros(col.shape[0] + 1, dtype=rowptr.dtype, device=col.device)
            torch.cumsum(inside, dim=0, out=before[1:])
            rowptr, col, weight = before[rowptr.long()], col[inside], weight[inside]
        return self._trusted(rowptr, col, weight, (rows[1] - rows[0], width))

    def normalized(self, norm: Norm = "sym", eps: float = 0.0) -> Self:
        """The same edges with weights divided by degrees, which are sums over rows: D_ii = sum_j A_ij + eps.

        Args:
            norm: "sym" for D^-1/2 A D^-1/2 (of a square graph), "rw" for D^-1 A, "none" for the graph itself.
            eps: added to degrees, as published code does with 1e-7. A row whose degree is not positive gets weights 0
                (and with "sym" its column).

        Returns:
            Graph of the same shape. Computed in float64 and rounded once; differentiable in a weight that requires
            grad, with gradients that add in a fixed order. A graph that is its own transpose stays so with "sym".
        """
        _check_norm(norm, eps)
        if norm == "none":
            return self
        if norm == "sym" and self.n_rows != self.n_cols:
            raise ValueError(f'normalized: norm "sym" needs a square graph, got {self.n_rows} x {self.n_cols}')
        weight = self.weight.double()
        power = _degree_power(torch.segment_reduce(weight, "sum", offsets=self.rowptr, initial=0.0), norm, eps)
        factor = take(power, self.row)
        if norm == "sym":
            factor = factor * take(power, self.col)  # first: the same bits for an edge and its reverse
        symmetric = norm == "sym" and self.is_own_transpose
        scale = None if norm != "sym" or self.scale is None else (self.scale * power.detach()).float()
        graph = self._of(self.structure, (weight * factor).to(self.weight.dtype), scale)
        return graph.paired(graph) if symmetric else graph

    @classmethod
    @takes_tensors
    def bipartite(
        cls,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        norm: Norm = "sym",
        self_loops: bool = False,
        eps: float = 0.0,
    ) -> Self:
        """A = [[0, R], [R^T, 0]] of the binary interactions R, normalised. A node of degree 0 has a zero row.

        Args:
            users, items: [E] int64, the pairs; a repeated pair counts once.
            n_users, n_items: sizes of R.
            norm: "sym" for D^-1/2 A D^-1/2 with the degrees D of A, "rw" for D^-1 A, "none" for A.
            self_loops: A + I instead of A, also in the degrees (NGCF, LATTICE).
            eps: added to degrees (FREEDOM: 1e-7).

        Returns:
            Graph [U+I, U+I], users first; float32 weights. With "sym" and "none" it is its own transpose, and `scale`
            is known.
        """
        _check_norm(norm, eps)
        r = cls.from_edges(users, items, None, (n_users, n_items))
        one = torch.ones(1, dtype=torch.float64, device=r.col.device)
        degrees = [m.rowptr.diff() + int(self_loops) for m in (r, r.t)]
        power = [one.expand_as(d) if norm == "none" else _degree_power(d, norm, eps) for d in degrees]
        ones = [one.expand_as(d) for d in degrees]
        graph = cls._two_sided(r, power, power if norm == "sym" else ones, self_loops)
        if norm == "rw":
            return graph.paired(cls._two_sided(r, ones, power, self_loops))
        graph.scale = ordinary(torch.cat(power).float())
        return graph.paired(graph)

    @classmethod
    def _two_sided(cls, r: Graph, left: list[Tensor], right: list[Tensor], self_loops: bool) -> Self:
        """[[0, R], [R^T, 0]], or that + I, its rows times `left` and its columns times `right` (of users, of items)."""
        n_users, n = r.n_rows, r.n_rows + r.n_cols
        dtype = index_dtype(n + 1, 2 * r.n_edges)
        col = torch.cat([r.col.to(dtype) + n_users, r.t.col.to(dtype)])
        weight = torch.cat([left[0][r.row] * right[1][r.col], left[1][r.t.row] * right[0][r.t.col]])
        if self_loops:
            row, node = torch.cat([r.row.to(dtype), r.t.row.to(dtype) + n_users]), torch.arange(n, device=col.device)
            weight = torch.cat([weight, torch.cat(left) * torch.cat(right)]).float()
            return cls.from_edges(torch.cat([row, node]), torch.cat([col, node]), weight, (n, n))
        rowptr = torch.cat([r.rowptr.to(dtype), r.t.rowptr[1:].to(dtype) + r.n_edges])
        return cls._trusted(rowptr, col, weight.float(), (n, n))

    @classmethod
    @takes_tensors
    def knn(
        cls,
        features: Tensor,
        k: int,
        weight: Literal["cosine", "one"] = "cosine",
        norm: Norm = "sym",
        self_loops: bool = True,
        eps: float = 0.0,
        floor: float | None = None,
    ) -> Self:
        """Item-item graph of the k nearest by cosine; directed, normalised by row sums.

        With D_ii the sum of row i's own weights, the default is D^-1/2 A D^-1/2 of the similarities A (SMORE, MGCN,
        MICRO); FREEDOM takes weight "one" and eps 1e-7, LATTICE floor 0. A zero feature row has no edges, neither out
        nor in; a row whose degree is not positive gets zero weights.

        Args:
            features: [N, D], float32 or float64, finite.
            k: 1 <= k <= N, or N - 1 without self loops.
            weight: "cosine" for the similarity, "one" for 1.
            norm: "sym" for D^-1/2 A D^-1/2, "rw" for D^-1 A, "none" for A.
            self_loops: the row itself is one of its k neighbours, the first, whatever its duplicates; False: none is.
            eps: added to degrees.
            floor: least similarity of an edge: those below are left out, of the degrees too. None: all stay. With 0
                negative similarities count as none, as LATTICE's paper has it.

        Returns:
            Graph [N, N], float32 weights. Where `features` require grad, weights carry it, to the similarities at the
            chosen neighbours (as LATTICE relearns its graph); of detached features it has the same bits.
        """
        if weight not in ("cosine", "one"):
            raise ValueError(f'weight must be "cosine" or "one", got {weight!r}')
        if floor is not None and math.isnan(floor):
            raise ValueError("floor must be a number, got nan")
        _check_norm(norm, eps)
        similarity, index = ops.knn(features, k, exclude_self=not self_loops)
        if weight == "cosine" and features.requires_grad and torch.is_grad_enabled():
            similarity = ops.cosine_at(features, index)  # the same bits
        n = features.shape[0]
        present = torch.zeros(n, dtype=torch.bool, device=features.device)
        for first in range(0, n, 1024):  # in blocks: no copy of a large feature table
            present[first : first + 1024] = (features[first : first + 1024] != 0).any(dim=1)
        keep = present[:, None] & present[index]
        if floor is not None:
            keep &= similarity >= floor
        value = torch.where(keep, similarity.double(), 0.0) if weight == "cosine" else keep.double()  # [N, k]
        degree = value.sum(dim=1)
        index, order = index.sort(dim=1)
        value, keep = value.gather(1, order), keep.gather(1, order)
        if norm != "none":
            power = _degree_power(degree, norm, eps)
            value = value * power[:, None]
            if norm == "sym":
                value = value * take(power, index.flatten()).view_as(index)
        row = torch.arange(n, device=features.device)[:, None].expand_as(index)[keep]
        dtype = index_dtype(n + 1, row.shape[0])
        return cls._trusted(compress(row, n, dtype), index[keep].to(dtype), value[keep].float(), (n, n))

    @classmethod
    def maximum(cls, graphs: Sequence[Graph]) -> Self:
        """Union of the edges of graphs of one shape; an edge carries the largest of its weights."""
        row, col, order, begin = cls._together("maximum", graphs)
        weight = take(torch.cat([graph.weight for graph in graphs]), order)
        return cls._from_sorted(row, col, reduce_segments(weight, begin, "max"), graphs[0].shape)

    @classmethod
    def weighted_sum(cls, graphs: Sequence[Graph], weights: Sequence[float | Tensor] | Tensor) -> Self:
        """Union of the edges of G graphs of one shape; an edge carries the sum of its weights times those of graphs.

        Args:
            graphs: of one shape, on one device.
            weights: G numbers, some of which may be tensors of one, or a tensor [G].

        Returns:
            Graph; an edge is also there if its weight is 0. Computed in float64, graph by graph in the order given, and
            rounded once. Differentiable in `weights` and in weights of graphs that require grad.
        """
        row, col, order, begin = cls._together("weighted_sum", graphs)
        if not isinstance(weights, Tensor) and any(isinstance(weight, Tensor) for weight in weights):
            weights = torch.stack([torch.as_tensor(w, dtype=torch.float64, device=row.device) for w in weights])
        weights = torch.as_tensor(weights, dtype=torch.float64, device=row.device)
        if weights.shape != (len(graphs),):
            raise ValueError(f"weighted_sum needs one weight a graph ({len(graphs)}), got shape {tuple(weights.shape)}")
        edges = torch.cat([graph.weight for graph in graphs])
        number = torch.arange(len(graphs), device=row.device)
        number = number.repeat_interleave(torch.tensor([graph.n_edges for graph in graphs], device=row.device))
        terms = edges.double().index_select(0, order) * take(weights, number[order])
        return cls._from_sorted(row, col, reduce_segments(terms, begin).to(edges.dtype), graphs[0].shape)

    @staticmethod
    def _together(name: str, graphs: Sequence[Graph]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`sort_edges` of the edges of all graphs."""
        if not len(graphs):
            raise ValueError(f"{name} needs at least one graph, got none")
        for graph in graphs:
            check_is(name, "each of graphs", graph, CsrMatrix)
        shape, device = graphs[0].shape, graphs[0].col.device
        for graph in graphs[1:]:
            if graph.shape != shape:
                raise ValueError(f"{name} needs graphs of one shape, got {shape} and {graph.shape}")
            if graph.col.device != device:
                raise ValueError(f"{name} needs graphs on one device, got {device} and {graph.col.device}")
        row, col = (torch.cat([getattr(graph, part).long() for graph in graphs]) for part in ("row", "col"))
        return sort_edges(row, col, shape)

    @classmethod
    def _from_sorted(cls, row: Tensor, col: Tensor, weight: Tensor, shape: tuple[int, int]) -> Self:
        """From edges in CSR order, each once."""
        dtype = index_dtype(shape[0] + 1, shape[1] + 1, row.shape[0])
        return cls._trusted(compress(row, shape[0], dtype), col.to(dtype), weight, shape)

    def __repr__(self) -> str:
        return f"Graph({self.n_rows} x {self.n_cols}, {self.n_edges} edges, {self.weight.dtype}, {self.col.device})"


def stored(cls: type[Graph], *parts: Any) -> Graph:
    """A graph of what `Graph.__reduce__` wrote, all of it checked; of a graph alone its transpose.

    Raises:
        TypeError, ValueError, IndexError: as the constructor, or a claim about the graph that its edges do not hold.
    """
    if not (isinstance(cls, type) and issubclass(cls, Graph)):
        raise TypeError(f"a stored graph must be of a class of graphs, got {cls!r}")
    if len(parts) == 1:
        check_is("stored", "what was transposed", parts[0], Graph)
        return parts[0].t
    rowptr, col, weight, shape, scale, symmetric = parts
    graph = cls(rowptr, col, weight, shape)
    if scale is not None:
        check_is("stored", "scale", scale, Tensor)
        fits = scale.shape == (graph.n_rows,) == (graph.n_cols,) and scale.dtype == torch.float32
        if not fits or not torch.allclose(
            scale[graph.row] * scale[graph.col], graph.weight.float(), 1e-5, equal_nan=True
        ):
            raise ValueError("stored: the weights of a graph must be what its scale says: the file is damaged")
        graph.scale = scale.clone()
    if symmetric:
        own, t = graph.structure, graph.structure.t
        same = own.shape == t.shape and torch.equal(own.rowptr, t.rowptr) and torch.equal(own.col, t.col)
        if not same or not torch.allclose(graph.weight, take(graph.weight, own.t_order), 0, 0, equal_nan=True):
            raise ValueError("stored: a graph must be its own transpose, as it says: the file is damaged")
        graph.paired(graph)
    return graph


torch.serialization.add_safe_globals([Graph, stored])
