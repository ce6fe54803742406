"""Item kNN graphs kept on disk between runs: under a hash of the features' bytes, dtype and shape, of k, of the file
format's version and of the package's version (`kept.py`)."""

from __future__ import annotations

import hashlib
import os
from functools import partial

import torch
from torch import Tensor

from smore_ext.data import kept
from smore_ext.data.dataset import hash_tensor
from smore_ext.graph import Graph
from smore_ext.version import __version__

# Of the file, and of how the graph is computed between versions of the package. 3: its checksum is over sorted names.
FORMAT_VERSION = 3
_KIND, _WHAT = "knn", "item graph"
_PARTS = ("rowptr", "col", "weight")


def item_knn_graph(
    features: Tensor,
    k: int,
    cache_dir: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> Graph:
    """`Graph.knn(features, k)` (docs/spec.md, section 2), from `cache_dir` if it is there, else built and kept there.

    Args:
        features: `[I, D]` raw features of one modality.
        k: neighbours an item, itself included.
        cache_dir: folder of the cache, made when absent; None: nothing is read or written. When it cannot
            be written the graph is still returned, with a logged warning.
        device: where it is computed; it is returned on the device of `features`.

    Raises:
        ValueError, TypeError: as `Graph.knn`.
    """
    features = features.detach()
    if cache_dir is None:
        return Graph.knn(features.to(device), k).to(features.device)
    wanted = _metadata(features, k)
    path = kept.place(cache_dir, _KIND, wanted)
    graph = kept.load(path, wanted, _PARTS, partial(_from_csr, len(features), wanted["features_dtype"]), _WHAT)
    if graph is None:
        graph = Graph.knn(features.to(device), k).to(features.device)
        parts = {name: getattr(graph, name).detach().cpu().contiguous() for name in _PARTS}
        kept.store(path, parts, wanted, _WHAT)
    return graph


def _metadata(features: Tensor, k: int) -> dict[str, str]:
    """What the graph depends on; safetensors holds strings only."""
    digest = hashlib.sha256()
    hash_tensor(digest, "features", features.cpu())
    return {
        "kind": "smore_ext item kNN graph",
        "format_version": str(FORMAT_VERSION),
        "package_version": __version__,
        "features_sha256": digest.hexdigest(),
        "features_dtype": str(features.dtype),
        "features_shape": str(list(features.shape)),
        "k": str(k),
    }


def _from_csr(n_items: int, weight_dtype: str, parts: dict[str, Tensor]) -> Graph:
    rowptr, col, weight = (parts[name] for name in _PARTS)
    if rowptr.shape != (n_items + 1,) or col.dim() != 1 or col.shape != weight.shape:
        shapes = ", ".join(f"{name} {tuple(parts[name].shape)}" for name in _PARTS)
        raise ValueError(f"expected the parts of a graph of {n_items} items, got {shapes}")
    indices = (torch.int32, torch.int64)
    if rowptr.dtype not in indices or col.dtype not in indices or str(weight.dtype) != weight_dtype:
        dtypes = ", ".join(f"{name} {parts[name].dtype}" for name in _PARTS)
        raise ValueError(f"expected integer indices and weights of {weight_dtype}, got {dtypes}")
    counts = rowptr.long().diff()
    if int(rowptr[0]) != 0 or int(rowptr[-1]) != len(col) or bool((counts < 0).any()):
        raise ValueError(f"expected rowptr to ascend from 0 to {len(col)}")
    row = torch.repeat_interleave(torch.arange(n_items), counts)
    return Graph.from_edges(row, col.long(), weight, (n_items, n_items))
