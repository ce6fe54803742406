"""Item kNN graphs kept on disk between runs, under a hash of everything that makes them.

The file name is a hash of the features' bytes, dtype and shape, of k, of the file format's version and of
the package's version: another input is another file, so a graph is never stale. A file that is damaged or
does not say what its name says is rebuilt. Writing goes through a temporary file and a rename, so processes
that work at once never see half a file; at worst each builds the same graph. Temporary files of processes that
were killed are deleted by the next one that writes.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import platform
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from smore_ext.data.dataset import hash_tensor
from smore_ext.data.messages import listed
from smore_ext.graph import Graph
from smore_ext.version import __version__

logger = logging.getLogger(__name__)

# Of the file, and of how the graph is computed between versions of the package. 2: a row wins its ties.
FORMAT_VERSION = 2
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
    key = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()
    path = Path(cache_dir) / f"knn-{key[:40]}.safetensors"
    graph = _load(path, wanted, len(features))
    if graph is None:
        graph = Graph.knn(features.to(device), k).to(features.device)
        _store(path, graph, wanted)
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


def _content_hash(parts: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in _PARTS:
        hash_tensor(digest, name, parts[name])
    return digest.hexdigest()


def _load(path: Path, wanted: dict[str, str], n_items: int) -> Graph | None:
    """The graph in `path`; None when there is no such file, or (with a warning) when it cannot be trusted."""
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            found = dict(file.metadata() or {})
            if (names := sorted(file.keys())) != sorted(_PARTS):
                raise ValueError(f"expected the tensors {', '.join(_PARTS)}, got {listed(names)}")
            parts = {name: file.get_tensor(name) for name in _PARTS}
        content = found.pop("content_sha256", None)
        if found != wanted:
            differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
            raise ValueError(f"its {', '.join(differing)} differ from what its name stands for")
        if content != _content_hash(parts):
            raise ValueError("its content does not match its checksum")
        return _from_csr(parts, n_items, wanted["features_dtype"])
    except (SafetensorError, OSError, ValueError, RuntimeError, IndexError) as error:
        logger.warning("%s: item graph rebuilt, the cached file is not usable: %s", path, error)
        return None


def _from_csr(parts: dict[str, Tensor], n_items: int, weight_dtype: str) -> Graph:
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


def _store(path: Path, graph: Graph, wanted: dict[str, str]) -> None:
    parts = {name: getattr(graph, name).detach().cpu().contiguous() for name in _PARTS}
    payload = save(parts, metadata=wanted | {"content_sha256": _content_hash(parts)})
    temporary = path.with_name(f".{_writer()}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent)
        try:
            temporary.write_bytes(payload)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)  # gone after a rename that worked
    except OSError as error:
        logger.warning("%s: item graph could not be cached: %s", path, error)


def _writer() -> str:
    """Begin of the names of this machine's temporary files: processes of another have numbers of their own."""
    return f"knn-{platform.node()}".replace(os.sep, "-")


def _clear(folder: Path) -> None:
    """Deletes temporary files of processes of this machine that are no more."""
    for path in folder.glob(f".{glob.escape(_writer())}.*.tmp"):
        number = path.name.removeprefix(f".{_writer()}.").partition(".")[0]
        if number.isdecimal() and not _lives(int(number)):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True
