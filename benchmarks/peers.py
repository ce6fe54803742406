"""Peers of single ops: what a user would otherwise call or write. Each is written for speed in its own means, except
those called "published", which have the structure of the published code (written here, not copied)."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor

from smore_ext import Graph, reference


@cache
def optional(name: str) -> ModuleType | None:
    """A peer's module; None where it is not installed or does not load."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


# --- spectral ---


def scipy_fusion(threads: int) -> Callable[..., tuple[list[Tensor], Tensor]]:
    """`spectrum_fusion` with scipy.fft in float32, forward only."""

    def spectrum_fusion(
        xs: Sequence[Tensor], weights: Sequence[Tensor], fusion_weight: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        width = xs[0].shape[1]

        def back(spectrum: np.ndarray, weight: Tensor) -> Tensor:
            filtered = spectrum * torch.view_as_complex(weight).numpy()
            return torch.from_numpy(scipy.fft.irfft(filtered, n=width, axis=1, norm="ortho", workers=threads))

        spectra = [scipy.fft.rfft(x.numpy(), axis=1, norm="ortho", workers=threads) for x in xs]
        product = spectra[0]
        for spectrum in spectra[1:]:
            product = product * spectrum
        return [back(s, w) for s, w in zip(spectra, weights, strict=True)], back(product, fusion_weight)

    return spectrum_fusion


# --- sparse products ---


def csr_product(graph: Graph, x: Tensor) -> Tensor:
    """torch's CSR product (MKL) with torch's own backward, which transposes at every call."""
    return torch.sparse.mm(graph.to_sparse("csr", copy=False), x)


class _StoredTranspose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: Graph, x: Tensor) -> Tensor:
        ctx.graph = graph
        return csr_product(graph, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, csr_product(ctx.graph.t, grad)


def csr_product_with_transpose(graph: Graph, x: Tensor) -> Tensor:
    """torch's CSR product forward and backward, the transpose kept: the best that torch's own means allow."""
    return _StoredTranspose.apply(graph, x)


def torch_sparse_product(torch_sparse: ModuleType) -> Callable[[Graph, Tensor], Tensor]:
    matrices: dict[int, Any] = {}

    def product(graph: Graph, x: Tensor) -> Tensor:
        if id(graph) not in matrices:
            parts = {"rowptr": graph.rowptr.long(), "col": graph.col.long(), "value": graph.weight}
            matrices[id(graph)] = torch_sparse.SparseTensor(**parts, sparse_sizes=graph.shape, is_sorted=True)
        return torch_sparse.matmul(matrices[id(graph)], x)

    return product


@cache
def _edges(graph: Graph) -> tuple[Tensor, Tensor]:
    """Row and column of each edge in int64, made once a graph."""
    return graph.row.long(), graph.col.long()


def weighted_bag(graph: Graph, x: Tensor, gate: None, weight: Tensor) -> Tensor:
    """`spmm` with weights that learn as the sum of an `embedding_bag` with weights."""
    offsets = graph.rowptr[:-1].long()
    return F.embedding_bag(_edges(graph)[1], x, offsets, mode="sum", per_sample_weights=weight)


def weighted_scatter(graph: Graph, x: Tensor, gate: None, weight: Tensor) -> Tensor:
    """The same as it is mostly written: gather, multiply, add."""
    row, col = _edges(graph)
    return x.new_zeros(graph.n_rows, x.shape[1]).index_add(0, row, weight[:, None] * x[col])


def weighted_coo(graph: Graph, x: Tensor, gate: None, weight: Tensor) -> Tensor:
    """The same with torch's COO product, which has a gradient of its values."""
    index = torch.stack(_edges(graph))
    sparse = torch.sparse_coo_tensor(index, weight, graph.shape, is_coalesced=True, check_invariants=False)
    return torch.sparse.mm(sparse, x)


def layered(product: Callable[[Graph, Tensor], Tensor]) -> Callable[..., Tensor]:
    """`propagate` as LightGCN's users write it: one product a layer, all layers kept, then their mean."""

    def propagate(graph: Graph, x: Tensor, n_layers: int, reduce: str = "mean", gate: Tensor | None = None) -> Tensor:
        layers = [x if gate is None else x * gate]
        for _ in range(n_layers):
            layers.append(product(graph, layers[-1]))
        return torch.stack(layers, dim=1).mean(dim=1) if reduce == "mean" else layers[-1]

    return propagate


def polynomial(product: Callable[[Graph, Tensor], Tensor]) -> Callable[[Graph, Tensor, Tensor], Tensor]:
    """`poly_filter` as a loop: one product a layer, the sum as it goes."""

    def poly_filter(graph: Graph, x: Tensor, coefficients: Tensor) -> Tensor:
        layer, total = x, coefficients[0] * x
        for coefficient in coefficients[1:]:
            layer = product(graph, layer)
            total = total + coefficient * layer
        return total

    return poly_filter


def gated_before(product: Callable[[Graph, Tensor], Tensor]) -> Callable[[Graph, Tensor, Tensor], Tensor]:
    """`spmm` with a gate by way of a product without one."""
    return lambda graph, x, gate: product(graph, x * gate)


def sparse_backend(product: Callable[[Graph, Tensor], Tensor]) -> SimpleNamespace:
    """The reference backend with another sparse product."""
    return SimpleNamespace(**vars(reference) | {"spmm": product, "propagate": layered(product)})


# --- nearest neighbours ---


def faiss_knn(faiss: ModuleType) -> Callable[..., tuple[Tensor, Tensor]]:
    def knn(features: Tensor, k: int, base: Tensor | None = None) -> tuple[Tensor, Tensor]:
        rows = F.normalize(features, dim=1).numpy()
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows if base is None else F.normalize(base, dim=1).numpy())
        similarity, neighbour = index.search(rows, k)
        return torch.from_numpy(similarity), torch.from_numpy(neighbour)

    return knn


def blocked_knn(features: Tensor, k: int, base: Tensor | None = None, block: int = 1024) -> tuple[Tensor, Tensor]:
    rows = F.normalize(features, dim=1)
    others = rows if base is None else F.normalize(base, dim=1)
    parts = [(part @ others.T).topk(k, dim=1) for part in rows.split(block)]
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def gathered_cosines(features: Tensor, index: Tensor) -> Tensor:
    """`cosine_at` by way of the [N, k, D] rows that are named."""
    rows = F.normalize(features, dim=1)
    return torch.bmm(F.embedding(index, rows), rows[:, :, None])[:, :, 0]


def published_knn_graph(features: Tensor, k: int) -> Tensor:
    """Item graph as published: all similarities at once, a Python loop over the edges, row-sum normalisation."""
    rows = features / features.norm(dim=1, keepdim=True)
    similarity, neighbour = (rows @ rows.T).topk(k, dim=1)
    edges = []
    for item in range(len(neighbour)):
        for other in neighbour[item]:
            edges.append([item, int(other)])
    index = torch.tensor(edges).T
    scale = similarity.sum(dim=1).pow(-0.5)
    weight = similarity.flatten() * scale[index[0]] * scale[index[1]]
    return torch.sparse_coo_tensor(index, weight, (len(rows), len(rows))).coalesce()


# --- ranking and sampling ---


class BatchedTopk:
    """matmul, mask and topk a batch of users at a time; the positions to mask are made once."""

    def __init__(self, seen: Graph, batch: int = 4096) -> None:
        self.batches = []
        for first in range(0, seen.n_rows, batch):
            part = seen.rows(torch.arange(first, min(first + batch, seen.n_rows), device=seen.col.device))
            self.batches.append((slice(first, first + batch), part.row.long(), part.col.long()))

    def masked_topk(self, users: Tensor, items: Tensor, k: int, seen: Graph) -> tuple[Tensor, Tensor]:
        parts = []
        for rows, row, col in self.batches:
            scores = users[rows] @ items.T
            scores[row, col] = -torch.inf
            parts.append(scores.topk(k, dim=1))
        return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def python_sampler(users: Sequence[int], seen: Sequence[set[int]], candidates: Sequence[int]) -> list[int]:
    """As published: `random.sample` of one item until it is not among the user's."""
    negatives = []
    for user in users:
        item = random.sample(candidates, 1)[0]
        while item in seen[user]:
            item = random.sample(candidates, 1)[0]
        negatives.append(item)
    return negatives


def seen_sets(seen: Graph) -> list[set[int]]:
    col, rowptr = seen.col.tolist(), seen.rowptr.tolist()
    return [set(col[rowptr[u] : rowptr[u + 1]]) for u in range(seen.n_rows)]


class SortedKeys:
    """Vectorised sampler: all draws at once, looked up in sorted (user, item) keys; only rejected ones are redrawn."""

    def __init__(self, seen: Graph) -> None:
        self.n_items = seen.n_cols
        self.keys = seen.row.long() * seen.n_cols + seen.col.long()  # ascending: CSR order

    def sample(self, users: Tensor, candidates: Tensor) -> Tensor:
        offsets = users * self.n_items
        draws = candidates[torch.randint(len(candidates), users.shape, device=users.device)]
        bad = self._seen(offsets + draws).nonzero()[:, 0]
        while len(bad):
            again = candidates[torch.randint(len(candidates), bad.shape, device=users.device)]
            draws[bad] = again
            bad = bad[self._seen(offsets[bad] + again)]
        return draws

    def _seen(self, keys: Tensor) -> Tensor:
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return self.keys[place] == keys


def eager_preference(gates: Tensor, attention: Tensor, views: Tensor, p: float, seed: int, offset: int) -> Tensor:
    """Side information as a model's own code makes it: gate by gate, with torch's dropout."""
    modalities, _, d = attention.shape
    *of_modalities, fused = zip(gates.split(d, dim=1), views.split(d, dim=1), strict=True)
    side = F.dropout(fused[0].sigmoid(), p) * fused[1]
    for (gate, view), logits in zip(of_modalities, attention, strict=True):
        side = side + F.dropout(gate.sigmoid(), p) * logits.softmax(dim=1) * view
    return side / (modalities + 1)
