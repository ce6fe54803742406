"""Where a served model comes from: a run with its data, or one file that holds all of it (`files.py`)."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smore_ext.data import Dataset, read_dataset
from smore_ext.data.dataset import SPLITS
from smore_ext.evaluation.ranking import embeddings, evaluating
from smore_ext.graph import Graph
from smore_ext.models import Recommender
from smore_ext.runs.load import LoadedRun, load_run, run_dirs
from smore_ext.serving.factors import Factors
from smore_ext.serving.files import SUFFIX, read
from smore_ext.serving.item_weights import ItemWeights, weights_of
from smore_ext.serving.served import QuestionError, Served
from smore_ext.settings.config import TrainConfig


def load(path: str | Path | LoadedRun, data_path: Path | None = None, device: str = "cpu") -> Served:
    """A trained model to ask.

    Args:
        path: a run's folder, whose data is where it was or at `data_path`; a run that is loaded; or a file that
            `smore export RUN -o FILE.safetensors --served` wrote, which needs no data.
        device: where lists are computed.

    Raises `FileNotFoundError`, `CheckpointError`, and `ValueError` for a model that is not `servable`.
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


def servable(model: Recommender) -> bool:
    """Whether a model is one of embeddings, or of weights between items."""
    return model.factored or model.scores_histories


def of_run(run: LoadedRun) -> Served:
    """A run's best epoch, and what its users have had. `ValueError` for models that are not `servable`."""
    model, data = run.model, run.dataset
    if not servable(model):
        raise ValueError(
            f"{type(model).__name__}: expected a model of embeddings, or of history_scores, got one of other scores; "
            f"recommend RUN --all FILE and export RUN --lists write its lists"
        )
    splits = [getattr(data, split) for split in SPLITS]
    had = torch.cat([split.users for split in splits]), torch.cat([split.items for split in splits])
    common: dict[str, Any] = {
        "seen": Graph.from_edges(*had, None, (data.n_users, data.n_items)),
        "known": data.known_items,
        "trained": data.seen.rowptr.diff() > 0,
        "user_ids": data.user_ids,
        "item_ids": data.item_ids,
        "about": {"model": run.config.train.model, "dataset": data.name, "fingerprint": data.fingerprint},
    }
    if not model.factored:
        device = next((t.device for t in chain(model.parameters(), model.buffers())), torch.device("cpu"))
        with evaluating(model):
            return ItemWeights(**common, weights=weights_of(model, data.n_items, device), voters=data.seen)
    users, items = embeddings(model)
    with evaluating(model):
        parts = {name: part.detach().cpu() for name, part in model.item_parts().items()}
    _check_parts(model, parts, items.cpu())
    cfg = run.config.train
    unread = None if data.features or cfg.data_path is None else partial(unread_features, cfg, data)
    common |= {"users": users.cpu(), "items": items.cpu(), "parts": parts}
    return Factors(**common, features=dict(data.features), unread=unread)


def _check_parts(model: Recommender, parts: dict[str, Tensor], items: Tensor) -> None:
    """A derived class may have embeddings of its own, and the parts of its base."""
    total = torch.stack(list(parts.values())).sum(dim=0) if parts else None
    if total is None or total.shape != items.shape or not torch.allclose(total, items, 1e-3, 1e-4):
        raise ValueError(
            f"{type(model).__name__}.item_parts: expected parts whose sum is the items' embeddings, got others: define "
            f"it beside embeddings"
        )


def unread_features(cfg: TrainConfig, data: Dataset) -> dict[str, Tensor]:
    """Features [I, D_m] in the folder that a run's data was read from, whose model reads none.

    Raises `DatasetError`, and `QuestionError` where the folder holds other data now.
    """
    assert cfg.data_path is not None
    whole = read_dataset(cfg.dataset, cfg.data_path, cfg.reader, cfg.read_options())
    same = all(torch.equal(*both) for n in SPLITS for both in zip(getattr(whole, n), getattr(data, n), strict=True))
    if not same or (whole.user_ids, whole.item_ids) != (data.user_ids, data.item_ids):
        raise QuestionError(f"{cfg.data_path}: expected the data that the run was trained on, got another")
    # Features may have rows of items that are in no interaction, which the model does not have.
    return {name: table[: data.n_items] for name, table in whole.features.items()}


__all__ = ["load", "of_run", "servable"]
