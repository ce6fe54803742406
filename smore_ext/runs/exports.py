"""What others serve a trained model with: its embeddings, or its ranked lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smore_ext.evaluation.ranking import embeddings
from smore_ext.runs.folder import IDS
from smore_ext.runs.load import LoadedRun, load_run
from smore_ext.runs.records import write_ids
from smore_ext.training import checkpoint
from smore_ext.training.files import replacing

FORMAT = "smore_ext export 1"


def export(
    run: LoadedRun | Path, path: Path, lists: bool = False, k: int = 100, mask: str = "all"
) -> dict[str, Tensor]:
    """Writes what ranks items for the users of a run, by the ids of its data set, and returns it.

    A model of embeddings gives `users` [U, d] and `items` [I, d]: a score is a dot product. One of scores, or any with
    `lists`, gives `ranked` item ids [U, k] int64 and their `scores` [U, k], best first, -1 and -inf where nothing is
    left. Where the data has raw ids, `ids.json` in the folder, or `<name>.ids.json` beside the file, lists those of
    users and items by number.

    Args:
        run: a run, or its folder.
        path: `*.safetensors` for one file of all tensors; any other is a folder, with one `<name>.npy` each.
        lists: ranked lists also where there are embeddings.
        k: places a list.
        mask: items left out of a user's list: its interactions of every split ("all"), or those of train ("train").
    """
    run = run if isinstance(run, LoadedRun) else load_run(run)
    if lists or not run.model.factored:
        blocks = list(run.ranked(torch.arange(run.dataset.n_users), k, mask))
        tensors = {"ranked": torch.cat([block[2] for block in blocks]), "scores": torch.cat([b[1] for b in blocks])}
    else:
        users, items = embeddings(run.model)
        tensors = {"users": users.cpu(), "items": items.cpu()}
    if path.suffix == ".safetensors":
        about = {"model": run.config.train.model, "dataset": run.dataset.name, "fingerprint": run.dataset.fingerprint}
        checkpoint.write_tensors(path, tensors, {"format": FORMAT, **about})
        write_ids(path.with_suffix(f".{IDS}"), run.dataset)
    else:
        path.mkdir(parents=True, exist_ok=True)
        for name, tensor in tensors.items():
            with replacing(path / f"{name}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, tensor.numpy(), allow_pickle=False)
        write_ids(path / IDS, run.dataset)
    return tensors
