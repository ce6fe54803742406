"""A served model in one file, which needs no data: safetensors, with a digest of what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.serving.factors import Factors
from smore_ext.serving.item_weights import ItemWeights
from smore_ext.serving.placing import Placing
from smore_ext.serving.served import Served
from smore_ext.training import checkpoint
from smore_ext.training.digest import digest_tensors
from smore_ext.training.files import check_regular

# One a kind: a version that knows only the first refuses files of the second.
FACTORS, WEIGHTS = "smore_ext served 1", "smore_ext served weights 1"
SUFFIX = ".safetensors"
_PART, _CENTRE, _WEIGHT = "part.", "centre.", "weight."


def write(served: Served, path: Path, placing: bool = True) -> dict[str, Tensor]:
    """Writes all of it into one safetensors file, atomically; what was written, by name.

    `placing`: with what new items are placed by, where there are features; it is fitted for that (`placing.fit`).
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: expected a file that ends with {SUFFIX}")
    tensors = {
        "seen_users": served.seen.row.long(),
        "seen_items": served.seen.col.long(),
        "known_items": served.known,
        "trained_users": served.trained,
    }
    header = dict(served.about)
    if isinstance(served, Factors):
        tensors = _of_factors(served, placing) | tensors
        header |= {"format": FACTORS, "parts": json.dumps(list(served.parts))}
    elif isinstance(served, ItemWeights):
        tensors = _of_weights(served) | tensors
        header |= {"format": WEIGHTS}
    else:
        raise TypeError(f"served: expected Factors or ItemWeights, got {type(served).__name__}")
    for name, ids in (("user_ids", served.user_ids), ("item_ids", served.item_ids)):
        if ids is not None:
            tensors[name] = torch.frombuffer(bytearray(json.dumps(ids).encode()), dtype=torch.uint8)
    checkpoint.write_tensors(path, tensors, header | {"digest": digest_tensors(tensors)})
    return tensors


def _of_factors(served: Factors, placing: bool) -> dict[str, Tensor]:
    tensors = {
        "users": served.users.cpu(),
        "items": served.items.cpu(),
        # Copies: a model of one part may have the items themselves as that, and safetensors refuses what shares memory.
        **{f"{_PART}{name}": table.cpu().clone() for name, table in served.parts.items()},
    }
    if placing and served.can_place:
        how = served.placing
        tensors |= {f"{_CENTRE}{name}": table for name, table in how.centres.items()}
        tensors |= {f"{_WEIGHT}{name}": table for name, table in how.weights.items()}
        tensors |= {"placing_base": how.base, "placing_error": torch.tensor(how.error)}
    return tensors


def _of_weights(served: ItemWeights) -> dict[str, Tensor]:
    weights = served.weights
    tensors = {"voting_users": served.voters.row.long(), "voting_items": served.voters.col.long()}
    if isinstance(weights, Tensor):
        return {"weights": weights.cpu()} | tensors
    edges = {"weights": weights.weight, "weights_rowptr": weights.rowptr, "weights_col": weights.col}
    return {name: part.cpu() for name, part in edges.items()} | tensors


def read(path: Path) -> Served:
    """The content of such a file. Raises `CheckpointError` for another or a damaged one."""
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            # Copies: the file is mapped, and one that is written over would change what is served.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise checkpoint.CheckpointError(f"{path} cannot be read: {error}") from None
    kind = about.pop("format", None)
    if kind not in (FACTORS, WEIGHTS):
        raise checkpoint.CheckpointError(
            f"{path}: expected what smore export --served writes ({FACTORS}, {WEIGHTS}), got another file; name a run "
            f"by its folder"
        )
    try:
        if about.pop("digest") != digest_tensors(tensors):
            raise ValueError("its tensors do not match their digest")
        return (_factors if kind == FACTORS else _weights)(tensors, about)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise checkpoint.CheckpointError(f"{path} is damaged: {error}") from None


def _factors(tensors: dict[str, Tensor], about: dict[str, str]) -> Factors:
    users, items = tensors["users"], tensors["items"]
    parts = {name: tensors[f"{_PART}{name}"] for name in json.loads(about.pop("parts"))}
    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
        raise ValueError(f"embeddings of shapes {tuple(users.shape)} and {tuple(items.shape)}")
    for name, part in parts.items():
        if part.shape != items.shape:
            raise ValueError(f"{name} has shape {tuple(part.shape)}, the items {tuple(items.shape)}")
    common = _common(tensors, about, (len(users), len(items)))
    return Factors(**common, users=users, items=items, parts=parts, fitted=_placing(tensors))


def _weights(tensors: dict[str, Tensor], about: dict[str, str]) -> ItemWeights:
    weights, rowptr = tensors["weights"], tensors.get("weights_rowptr")
    n_users = len(tensors["trained_users"])
    n_items = len(weights) if rowptr is None else len(rowptr) - 1
    if rowptr is None and weights.shape != (n_items, n_items):
        raise ValueError(f"weights of shape {tuple(weights.shape)}")
    of_items = weights if rowptr is None else Graph(rowptr, tensors["weights_col"], weights, (n_items, n_items))
    shape = (n_users, n_items)
    return ItemWeights(**_common(tensors, about, shape), weights=of_items, voters=_graph(tensors, "voting", shape))


def _common(tensors: dict[str, Tensor], about: dict[str, str], shape: tuple[int, int]) -> dict[str, Any]:
    """What both kinds have, of so many users and items."""
    ids = [_ids(tensors.get("user_ids")), _ids(tensors.get("item_ids"))]
    for raw, count in zip(ids, shape, strict=True):
        if raw is not None and len(raw) != count:
            raise ValueError(f"{len(raw)} ids for {count} rows")
    known, trained = tensors["known_items"], tensors["trained_users"]
    if len(trained) != shape[0]:
        raise ValueError(f"{len(trained)} marks for {shape[0]} users")
    return {
        "seen": _graph(tensors, "seen", shape),
        "known": known,
        "trained": trained,
        "user_ids": ids[0],
        "item_ids": ids[1],
        "about": about,
    }


def _graph(tensors: dict[str, Tensor], name: str, shape: tuple[int, int]) -> Graph:
    return Graph.from_edges(tensors[f"{name}_users"], tensors[f"{name}_items"], None, shape)


def _placing(tensors: dict[str, Tensor]) -> Placing | None:
    if "placing_base" not in tensors:
        return None
    centres, weights = (
        {name.removeprefix(start): table for name, table in tensors.items() if name.startswith(start)}
        for start in (_CENTRE, _WEIGHT)
    )
    return Placing(centres, weights, tensors["placing_base"], float(tensors["placing_error"]))


def _ids(text: Tensor | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(map(str, json.loads(bytes(text.tolist()))))


__all__ = ["FACTORS", "SUFFIX", "WEIGHTS", "read", "write"]
