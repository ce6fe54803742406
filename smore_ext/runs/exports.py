"""What others serve a trained model with: its embeddings, or its ranked lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smore_ext.evaluation.ranking import embeddings
from smore_ext.runs.folder import IDS
from smore_ext.runs.load import LoadedRun, load_run
from smore_ext.runs.records import HasIds, write_ids
from smore_ext.training import checkpoint
from smore_ext.training.files import replacing

FORMAT = "smore_ext export 1"
FILE = ".safetensors"
NPY, PARQUET = "npy", "parquet"  # of files in a folder


def export(
    run: LoadedRun | Path, path: Path, lists: bool = False, k: int = 100, mask: str = "all", form: str = NPY
) -> dict[str, Tensor]:
    """Writes what ranks items for the users of a run (`ranking_tensors`), by the ids of its data set; what it wrote.

    Args:
        run: a run, or its folder.
        path, form: as `write_tensors` takes them.
        lists, k, mask: as `ranking_tensors` takes them.
    """
    check_place(path)
    run = run if isinstance(run, LoadedRun) else load_run(run)
    tensors = ranking_tensors(run, lists, k, mask)
    about = {"model": run.config.train.model, "dataset": run.dataset.name, "fingerprint": run.dataset.fingerprint}
    write_tensors(tensors, path, run.dataset, about, form)
    return tensors


def ranking_tensors(run: LoadedRun, lists: bool = False, k: int = 100, mask: str = "all") -> dict[str, Tensor]:
    """What ranks items for the users of a run.

    A model of embeddings gives `users` [U, d] and `items` [I, d]: a score is a dot product. One of scores, or any with
    `lists`, gives `ranked` item numbers [U, k] int64 and their `scores` [U, k], best first, -1 and -inf where nothing
    is left.

    Args:
        lists: ranked lists also where there are embeddings.
        k: places a list.
        mask: items left out of a user's list: its interactions of every split ("all"), or those of train ("train").
    """
    if lists or not run.model.factored:
        blocks = list(run.ranked(torch.arange(run.dataset.n_users), k, mask))
        return {"ranked": torch.cat([block[2] for block in blocks]), "scores": torch.cat([b[1] for b in blocks])}
    users, items = embeddings(run.model)
    return {"users": users.cpu(), "items": items.cpu()}


def check_place(path: Path, endings: Sequence[str] = (FILE,)) -> None:
    """`ValueError` for a path that ends as another kind of file does: it would become a folder of that name."""
    other = path.suffix not in endings and path.suffix[1:] and not path.suffix[1:].isdigit()  # v1.2 is a folder's name
    if other and not path.is_dir():
        raise ValueError(
            f"{path}: expected a file that ends with one of {', '.join(endings)}, or a folder, which must be there if "
            f"its name has another ending"
        )


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, ids: HasIds, about: Mapping[str, str], form: str = NPY
) -> None:
    """Writes tensors whose rows are users and items by number.

    Where there are raw ids, `ids.json` in the folder, or `<name>.ids.json` beside the file, lists them by number.

    Args:
        path: `*.safetensors` for one file of all tensors; any other is a folder, with a file each.
        about: what the file says of itself.
        form: of files in a folder: "npy", or "parquet" with the columns `id` (raw, as text) and `embedding`, for
            embeddings alone. Raises `ImportError` for that without pyarrow.
    """
    check_place(path)
    if path.suffix == FILE:
        checkpoint.write_tensors(path, dict(tensors), {"format": FORMAT, **about})
        write_ids_beside(path, ids)
    elif form == PARQUET:
        if "ranked" in tensors:
            raise ValueError(f"{path}: expected embeddings for a folder of {PARQUET}, got lists: see -o FILE.{PARQUET}")
        raw = {"users": ids.user_ids, "items": ids.item_ids}
        for name, tensor in tensors.items():
            _write_parquet(path / f"{name}.{PARQUET}", tensor, raw[name] or range(len(tensor)))
    else:
        for name, tensor in tensors.items():
            with replacing(path / f"{name}.{NPY}") as temporary, temporary.open("wb") as file:
                np.save(file, tensor.numpy(), allow_pickle=False)
        write_ids(path / IDS, ids)


def write_ids_beside(path: Path, ids: HasIds) -> None:
    """`<name>.ids.json` beside a file: raw ids of users and items by number, where there are any."""
    write_ids(path.with_suffix(f".{IDS}"), ids)


def _write_parquet(path: Path, rows: Tensor, ids: Sequence[str | int]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError("embeddings in parquet need pyarrow: pip install pyarrow") from None
    width = rows.shape[1]
    embedding = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1).numpy()), width)
    table = pyarrow.table({"id": pyarrow.array([str(raw) for raw in ids], pyarrow.string()), "embedding": embedding})
    with replacing(path) as temporary:
        parquet.write_table(table, temporary)
