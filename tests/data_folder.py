"""A small dataset folder that the data tests write, and spoil."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smore_ext.data import DatasetError, Pairs, load_dataset
from smore_ext.graph import Graph

# user 3 and item 4 occur outside train only; item 2 never
ROWS = [(0, 0, 0), (0, 1, 0), (1, 1, 0), (2, 3, 0), (2, 0, 0), (0, 3, 1), (1, 0, 2), (3, 4, 2), (3, 1, 1)]
N_USERS, N_ITEMS = 4, 5


def write_table(folder: Path, rows=ROWS, header="userID\titemID\tx_label", name=None, sep="\t", end="\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{folder.name}.inter")
    lines = [header.replace("\t", sep)] + [sep.join(map(str, row)) for row in rows]
    path.write_bytes((end.join(lines) + end).encode())
    return path


def write_features(folder: Path, modality="image", rows=N_ITEMS, width=3, dtype=np.float32) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((rows, width)).astype(dtype)
    np.save(folder / f"{modality}_feat.npy", values)
    return values


def write_graph(folder: Path, modality="image", drop=(), **changes) -> Path:
    parts = {
        "row": np.array([0, 0, 2, 4], dtype=np.int32),
        "col": np.array([1, 0, 3, 0], dtype=np.int32),
        "weight": np.array([0.25, 1.0, 0.5, 2.0], dtype=np.float32),
        "shape": np.array([N_ITEMS, N_ITEMS]),
    }
    parts.update(changes)
    path = folder / f"{modality}_graph.npz"
    np.savez(path, **{key: value for key, value in parts.items() if key not in drop})
    return path


def pairs(split: Pairs) -> list[tuple[int, int]]:
    return list(zip(split.users.tolist(), split.items.tolist(), strict=True))


def dense(graph: Graph) -> torch.Tensor:
    out = torch.zeros(tuple(graph.shape))
    rows = torch.repeat_interleave(torch.arange(graph.shape[0]), graph.rowptr.long().diff())
    out[rows, graph.col.long()] = graph.weight
    return out


def fails(folder: Path, *parts: str) -> None:
    """Loading raises DatasetError, and its message holds every part."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(folder)
    for part in parts:
        assert part in str(caught.value), f"{part!r} not in {caught.value}"
