"""Graphs of users and items: sparse matrices with their transpose, and how they are built (docs/spec.md, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.ops.csr import CsrMatrix, compress, index_dtype

if TYPE_CHECKING:
    import scipy.sparse  # else loaded where it is used: whoever imports ops and graphs does not wait for it


def _inverse_sqrt(degree: Tensor) -> Tensor:
    """degree^-1/2 in float64; 0 where the degree is not positive, so such a row has zero weights."""
    degree = degree.double()
    return torch.where(degree > 0, degree.clamp_min(torch.finfo(torch.float64).tiny).rsqrt(), 0.0)


class Graph(CsrMatrix):
    """Weighted directed graph as a sparse matrix [R, C]; see `CsrMatrix` for its parts.

    `graph.t` is the transpose, built once; `from_edges` and `from_sparse` make a graph from what a user has.
    """

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.spmatrix | scipy.sparse.sparray) -> Self:
        """From any scipy sparse matrix or array; duplicates are summed, dtypes but float64 become float32."""
        import numpy as np
        import scipy.sparse

        coo = scipy.sparse.coo_array(matrix)
        dtype = np.float64 if coo.dtype == np.float64 else np.float32
        row, col = (torch.from_numpy(index.astype(np.int64)) for index in coo.coords)
        return cls.from_edges(row, col, torch.from_numpy(coo.data.astype(dtype)), coo.shape)

    def to_scipy(self) -> scipy.sparse.csr_array:
        """The same matrix as scipy CSR, on the CPU."""
        import scipy.sparse

        parts = (self.weight.cpu().numpy(), self.col.cpu().numpy(), self.rowptr.cpu().numpy())
        return scipy.sparse.csr_array(parts, shape=self.shape)

    def to_sparse(self, layout: str = "csr") -> Tensor:
        """The same matrix as a torch sparse tensor, "csr" or "coo" (coalesced). Made once each."""
        if layout not in ("csr", "coo"):
            raise ValueError(f'layout must be "csr" or "coo", got {layout!r}')
        name = f"_sparse_{layout}"
        if not hasattr(self, name):
            if layout == "csr":
                sparse = torch.sparse_csr_tensor(self.rowptr, self.col, self.weight, self.shape, check_invariants=False)
            else:
                index = torch.stack([self.row.long(), self.col.long()])
                sparse = torch.sparse_coo_tensor(
                    index, self.weight, self.shape, is_coalesced=True, check_invariants=False
                )
            setattr(self, name, sparse)
        return getattr(self, name)

    def to(self, target: torch.device | str | torch.dtype) -> Self:
        """On another device, or with weights of another floating dtype. The graph itself if nothing changes."""
        if isinstance(target, torch.dtype):
            if target not in (torch.float32, torch.float64):
                raise TypeError(f"weights of a graph must be float32 or float64, got {target}")
            if target == self.weight.dtype:
                return self
            parts, scale = (self.rowptr, self.col, self.weight.to(target)), self.scale
        else:
            if torch.empty(0, device=target).device == self.col.device:
                return self
            parts = (self.rowptr.to(target), self.col.to(target), self.weight.to(target))
            scale = None if self.scale is None else self.scale.to(target)
        moved = self._trusted(*parts, self.shape, scale)
        if self._t is self:
            moved._t = moved
        return moved

    def rows(self, index: Tensor) -> Self:
        """The graph [len(index), C] whose row r is row index[r] of this one. index: int64, in range."""
        if index.shape[0] and (int(index.min()) < 0 or int(index.max()) >= self.n_rows):
            raise IndexError(f"rows must be in 0..{self.n_rows - 1}, got {int(index.min())}..{int(index.max())}")
        start = self.rowptr[index].long()
        length = self.rowptr[index + 1].long() - start
        rowptr = torch.zeros(index.shape[0] + 1, dtype=torch.int64, device=index.device)
        torch.cumsum(length, dim=0, out=rowptr[1:])
        edge = torch.arange(int(rowptr[-1]), device=index.device)
        edge += (start - rowptr[:-1]).repeat_interleave(length)
        parts = (rowptr.to(self.rowptr.dtype), self.col[edge], self.weight[edge])
        return self._trusted(*parts, (index.shape[0], self.n_cols))

    @classmethod
    def bipartite(cls, users: Tensor, items: Tensor, n_users: int, n_items: int) -> Self:
        """D^-1/2 [[0, R], [R^T, 0]] D^-1/2 of the binary interactions R. A node of degree 0 has a zero row.

        Args:
            users, items: [E] int64, the pairs; a repeated pair counts once.
            n_users, n_items: sizes of R.

        Returns:
            Symmetric graph [U+I, U+I], users first; float32 weights. It is its own transpose.
        """
        r = cls.from_edges(users, items, None, (n_users, n_items))
        user_scale = _inverse_sqrt(r.rowptr.diff())
        item_scale = _inverse_sqrt(r.t.rowptr.diff())
        weight = user_scale[r.row] * item_scale[r.col]
        t_weight = item_scale[r.t.row] * user_scale[r.t.col]
        n = n_users + n_items
        dtype = index_dtype(n + 1, 2 * r.n_edges)
        rowptr = torch.cat([r.rowptr.to(dtype), r.t.rowptr[1:].to(dtype) + r.n_edges])
        col = torch.cat([r.col.to(dtype) + n_users, r.t.col.to(dtype)])
        scale = torch.cat([user_scale, item_scale]).float()
        graph = cls._trusted(rowptr, col, torch.cat([weight, t_weight]).float(), (n, n), scale)
        graph._t = graph
        return graph

    @classmethod
    def knn(cls, features: Tensor, k: int) -> Self:
        """Item-item graph of the k nearest by cosine, itself included; directed, normalised by row sums.

        With deg_i = sum_j s_ij over row i, the weight is s_ij / sqrt(deg_i deg_j). A zero feature row has no edges,
        neither out nor in; a row whose degree is not positive gets zero weights.

        Args:
            features: [N, D], float32 or float64, finite.
            k: 1 <= k <= N.

        Returns:
            Graph [N, N], float32 weights.
        """
        similarity, index = ops.knn(features, k)
        n = features.shape[0]
        scale = _inverse_sqrt(similarity.double().sum(dim=1))
        index, order = index.sort(dim=1)
        weight = similarity.double().gather(1, order) * scale[:, None] * scale[index]
        present = torch.zeros(n, dtype=torch.bool, device=features.device)
        for first in range(0, n, 1024):  # in blocks: no copy of a large feature table
            present[first : first + 1024] = (features[first : first + 1024] != 0).any(dim=1)
        keep = present[:, None] & present[index]
        row = torch.arange(n, device=features.device)[:, None].expand_as(index)[keep]
        dtype = index_dtype(n + 1, row.shape[0])
        return cls._trusted(compress(row, n, dtype), index[keep].to(dtype), weight[keep].float(), (n, n))

    @classmethod
    def maximum(cls, graphs: Sequence[Graph]) -> Self:
        """Union of the edges of graphs of one shape; an edge carries the largest of its weights."""
        if not graphs:
            raise ValueError("maximum needs at least one graph, got none")
        shape = graphs[0].shape
        for graph in graphs[1:]:
            if graph.shape != shape:
                raise ValueError(f"maximum needs graphs of one shape, got {shape} and {graph.shape}")
        n_cols = max(shape[1], 1)
        key = torch.cat([graph.row.long() * n_cols + graph.col.long() for graph in graphs])
        key, group = torch.unique(key, return_inverse=True)
        weights = torch.cat([graph.weight for graph in graphs])
        weight = torch.full(key.shape, -torch.inf, dtype=weights.dtype, device=weights.device)
        weight.scatter_reduce_(0, group, weights, reduce="amax")
        dtype = index_dtype(shape[0] + 1, shape[1] + 1, key.shape[0])
        return cls._trusted(compress(key // n_cols, shape[0], dtype), (key % n_cols).to(dtype), weight, shape)

    def __repr__(self) -> str:
        return f"Graph({self.n_rows} x {self.n_cols}, {self.n_edges} edges, {self.weight.dtype}, {self.col.device})"
