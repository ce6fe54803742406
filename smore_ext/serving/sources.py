"""Where a served model comes from: a run with its data, or one file that holds all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from smore_ext.evaluation.ranking import embeddings, evaluating
from smore_ext.graph import Graph
from smore_ext.runs.load import LoadedRun, load_run, run_dirs
from smore_ext.serving.placing import Placing
from smore_ext.serving.served import Served
from smore_ext.training import checkpoint
from smore_ext.training.digest import digest_tensors
from smore_ext.training.files import check_regular

FORMAT = "smore_ext served 1"
SUFFIX = ".safetensors"
_PART, _CENTRE, _WEIGHT = "part.", "centre.", "weight."


def load(path: str | Path | LoadedRun, data_path: Path | None = None, device: str = "cpu") -> Served:
    """A trained model to ask.

    Args:
        path: a run's folder, whose data is where it was or at `data_path`; a run that is loaded; or a file that
            `smore export RUN -o FILE.safetensors` wrote, which needs no data.
        device: where lists are computed.

    Raises `FileNotFoundError`, `CheckpointError`, and `ValueError` for a model whose scores are no dot products.
    """
    if isinstance(path, LoadedRun):
        return of_run(path).to(device)
    path = Path(path)
    if path.suffix == SUFFIX:
        return read(path).to(device)
    found = run_dirs(path)
    if len(found) > 1:
        raise ValueError(f"{path} holds several seeds: name one of {', '.join(map(str, found))}")
    return of_run(load_run(found[0], data_path, device=device)).to(device)


def of_run(run: LoadedRun) -> Served:
    """The factors of a run's best epoch, and what its users have had. `ValueError` for models without factors."""
    model, data = run.model, run.dataset
    if not model.factored:
        raise ValueError(f"{type(model).__name__}: expected a model whose scores are dot products, got one of scores")
    users, items = embeddings(model)
    with evaluating(model):
        parts = {name: part.detach().cpu() for name, part in model.item_parts().items()}
    splits = data.train, data.valid, data.test
    had = torch.cat([split.users for split in splits]), torch.cat([split.items for split in splits])
    return Served(
        users.cpu(),
        items.cpu(),
        parts,
        Graph.from_edges(*had, None, (data.n_users, data.n_items)),
        data.known_items,
        data.seen.rowptr.diff() > 0,
        data.user_ids,
        data.item_ids,
        {"model": run.config.train.model, "dataset": data.name, "fingerprint": data.fingerprint},
        dict(data.features),
    )


def write(served: Served, path: Path, placing: bool = True) -> dict[str, Tensor]:
    """Writes all of it into one safetensors file, atomically; what was written, by name.

    `placing`: with what new items are placed by, where there are features; it is fitted for that (`placing.fit`).
    """
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: expected a file that ends with {SUFFIX}")
    tensors = {
        "users": served.users.cpu(),
        "items": served.items.cpu(),
        # Copies: a model of one part may have the items themselves as that, and safetensors refuses what shares memory.
        **{f"{_PART}{name}": table.cpu().clone() for name, table in served.parts.items()},
        "seen_users": served.seen.row.long(),
        "seen_items": served.seen.col.long(),
        "known_items": served.known,
        "trained_users": served.trained,
    }
    if placing and (served.features or served.fitted):
        how = served.placing
        tensors |= {f"{_CENTRE}{name}": table for name, table in how.centres.items()}
        tensors |= {f"{_WEIGHT}{name}": table for name, table in how.weights.items()}
        tensors |= {"placing_base": how.base, "placing_error": torch.tensor(how.error)}
    for name, ids in (("user_ids", served.user_ids), ("item_ids", served.item_ids)):
        if ids is not None:
            tensors[name] = torch.frombuffer(bytearray(json.dumps(ids).encode()), dtype=torch.uint8)
    header = {"format": FORMAT, "parts": json.dumps(list(served.parts)), "digest": digest_tensors(tensors)}
    checkpoint.write_tensors(path, tensors, header | served.about)
    return tensors


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
    if about.pop("format", None) != FORMAT:
        raise checkpoint.CheckpointError(
            f"{path}: expected what smore export writes ({FORMAT}), got another file; name a run by its folder"
        )
    try:
        if about.pop("digest") != digest_tensors(tensors):
            raise ValueError("its tensors do not match their digest")
        users, items, seen = tensors["users"], tensors["items"], (tensors["seen_users"], tensors["seen_items"])
        parts = {name: tensors[f"{_PART}{name}"] for name in json.loads(about.pop("parts"))}
        ids = _ids(tensors.get("user_ids")), _ids(tensors.get("item_ids"))
        _check(tensors, parts, ids)
        graph = Graph.from_edges(*seen, None, (len(users), len(items)))
        known, trained = tensors["known_items"], tensors["trained_users"]
        return Served(users, items, parts, graph, known, trained, *ids, about, fitted=_placing(tensors))
    except (KeyError, ValueError, IndexError) as error:
        raise checkpoint.CheckpointError(f"{path} is damaged: {error}") from None


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


def _check(tensors: dict[str, Tensor], parts: dict[str, Tensor], ids: Sequence[tuple[str, ...] | None]) -> None:
    users, items = tensors["users"], tensors["items"]
    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
        raise ValueError(f"embeddings of shapes {tuple(users.shape)} and {tuple(items.shape)}")
    for name, part in parts.items():
        if part.shape != items.shape:
            raise ValueError(f"{name} has shape {tuple(part.shape)}, the items {tuple(items.shape)}")
    for raw, table in zip(ids, (users, items), strict=True):
        if raw is not None and len(raw) != len(table):
            raise ValueError(f"{len(raw)} ids for {len(table)} rows")
    if len(tensors["trained_users"]) != len(users):
        raise ValueError(f"{len(tensors['trained_users'])} marks for {len(users)} users")


__all__ = ["FORMAT", "load", "of_run", "read", "write"]
