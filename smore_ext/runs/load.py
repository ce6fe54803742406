"""Runs that were trained: loaded with the weights of their best epoch, evaluated, and asked what to recommend."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smore_ext.data import Dataset, Pairs
from smore_ext.evaluation.protocol import rows_of
from smore_ext.evaluation.ranking import Ranker
from smore_ext.models import Recommender
from smore_ext.runs.config_files import read_config
from smore_ext.runs.folder import RunFolder
from smore_ext.runs.records import read_result
from smore_ext.runs.run import finished, open_dataset
from smore_ext.settings.config import RunConfig
from smore_ext.training import checkpoint
from smore_ext.training.device import deterministic, usable_device
from smore_ext.training.loop import build_model, check_data, check_settings, check_value, make_evaluator
from smore_ext.training.metadata import About
from smore_ext.training.results import run_result


class Recommendation(NamedTuple):
    """An item for a user, by its raw id where the data has those; `held_out` names the split that holds the pair, ""
    for a pair the data lacks."""

    item: int | str
    score: float
    held_out: str


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with the weights of its best validation epoch."""

    run_dir: Path
    config: RunConfig
    dataset: Dataset
    model: Recommender
    progress: dict[str, Any]
    stopped: str | None = None  # why training ended; None while it has not

    def evaluate(self, protocol: str) -> dict[str, Any]:
        """Validation and test metrics under `protocol`, in the form of `result.json`."""
        evaluator = make_evaluator(self.config.train, self.dataset, protocol)
        begin = time.perf_counter()
        with deterministic():
            validation, test = evaluator(self.model, "valid"), evaluator(self.model, "test")
        seconds = {
            "training": self.progress["seconds_training"],
            "evaluating": self.progress["seconds_evaluating"],
            "testing": time.perf_counter() - begin,
        }
        about = (self.config, self.dataset, self.model, protocol, self.progress)
        return run_result(*about, validation, test, seconds, self.stopped)

    def ranked(self, users: Tensor, k: int, mask: str = "all") -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Blocks of (users [b], scores [b, k], items [b, k]), on the CPU, without the items a user has interacted with.

        Ids between others that the data does not use are not ranked, and a user without train interactions, of whom
        the model has learned nothing, gets no items.

        Args:
            users: ids, int64, ascending, each once.
            k: places a list; where nothing is left they hold -inf and -1.
            mask: "all" leaves out the user's interactions of every split, "train" only those of train.
        """
        data = self.dataset
        device = usable_device(self.config.train.device)
        known, has_train = data.known_items, data.seen.rowptr.diff() > 0
        ranker = Ranker(self.model, known.to(device) if len(known) < data.n_items else None)
        masked = [data.train, *([data.valid, data.test] if mask == "all" else [])]
        for ids in users.split(self.config.train.eval_batch_size):
            seen = rows_of(ids, masked, data.n_items)
            scores, items = (t.cpu() for t in ranker.topk(ids.to(device), min(k, len(known)), seen.to(device)))
            unknown = ~has_train[ids, None]
            yield ids, scores.masked_fill(unknown, -torch.inf), items.masked_fill(unknown, -1)

    def recommend(self, users: Sequence[int | str], k: int, mask: str = "all") -> dict[int | str, list[Recommendation]]:
        """The `k` items ranked first for each user, without the items the user has interacted with.

        Users and items go by their raw ids where the data has those. `mask` "all" leaves out the user's interactions
        of every split, "train" only those of train, to see where the held-out ones rank. Raises `ValueError` for a
        user that the data lacks, or who has no train interactions.
        """
        data = self.dataset
        numbers = sorted({data.user_number(user) for user in users})
        for number in numbers:
            if data.seen.rowptr[number] == data.seen.rowptr[number + 1]:
                user = data.user_ids[number] if data.user_ids else number
                raise ValueError(f"user: expected one with train interactions, got {user}, who has none")
        held_out = {"validation": data.valid, "test": data.test}
        return {
            data.user_ids[user] if data.user_ids else user: [
                Recommendation(data.item_ids[item] if data.item_ids else item, score, _split_of(user, item, held_out))
                for item, score in zip(items_of_user, scores_of_user, strict=True)
                if item >= 0
            ]
            for ids, scores, items in self.ranked(torch.tensor(numbers, dtype=torch.int64), k, mask)
            for user, items_of_user, scores_of_user in zip(ids.tolist(), items.tolist(), scores.tolist(), strict=True)
        }


def run_dirs(run_dir: Path) -> list[Path]:
    """The directory itself, or those of its seeds. Raises `FileNotFoundError` when it holds no run."""
    folder = RunFolder(run_dir)
    trained = [one.path for one in ([folder] if folder.best.exists() else folder.seeds()) if one.best.exists()]
    if not trained:
        why = "no epoch is finished yet" if folder.config.exists() else "it holds no run"
        raise FileNotFoundError(f"{run_dir}: no {folder.best.name}: {why}")
    return trained


def seeds_config(run_dir: Path, config: RunConfig, results: Sequence[dict[str, Any]]) -> RunConfig:
    """Settings of a run of several seeds, given those of one of them as it was loaded."""
    folder = RunFolder(run_dir)
    if not folder.config.exists():
        return config.replace(seeds=tuple(result["seed"] for result in results))
    whole = read_config(folder).train
    return config.replace(seed=whole.seed, seeds=whole.seeds)


def unfinished_seeds(run_dir: Path) -> dict[int, str]:
    """Seeds of a run of several that are not done, each with how far it is; empty for a run of one seed."""
    folder = RunFolder(run_dir)
    if not folder.config.exists():
        return {}
    config = read_config(folder)
    out = {}
    for seed in config.train.seeds:
        one = folder.seed(seed)
        if not one.best.exists():
            out[seed] = "not started"
        elif finished(one.path, config) is None:
            out[seed] = "not finished"
    return out


def load_run(
    run_dir: Path,
    data_path: Path | None = None,
    dataset: Dataset | None = None,
    device: str | None = None,
) -> LoadedRun:
    """The best checkpoint of one run with its data. `data_path` says where the data is now, if it moved.

    Raises `CheckpointError` when the data is not what the run was trained on, or a file is damaged.
    """
    folder = RunFolder(run_dir)
    path = folder.best
    weights, metadata = checkpoint.load(path)
    changes: dict[str, Any] = {}
    if data_path is not None:
        changes["data_path"] = data_path
    if device is not None:
        changes["device"] = device
    about = About.read(metadata, path)
    config = RunConfig.from_dict(about.config, str(path)).replace(**changes)
    sources = config.sources if about.settings_from is None else tuple(about.settings_from)
    config = dataclasses.replace(config, sources=sources)
    progress, stopped = _end_of(folder, about)
    dataset = open_dataset(config, about.data.fingerprint) if dataset is None else dataset
    check_data(about.data.fingerprint, dataset, str(path))
    model = build_model(config, dataset, usable_device(config.train.device))
    checkpoint.load_weights(model, weights, path)
    return LoadedRun(run_dir, config, dataset, model.eval(), progress, stopped)


def _end_of(folder: RunFolder, about: About) -> tuple[dict[str, Any], str | None]:
    """Epochs, seconds and warnings of a whole run, given what its best checkpoint says; and why it stopped.

    Raises `CheckpointError` where that is another run's.
    """
    best, stopped = about.progress, None
    progress = dataclasses.asdict(best)
    if folder.last.exists():
        last = About.read(checkpoint.load_metadata(folder.last), folder.last)
        check_settings(about.config, RunConfig.from_dict(last.config, str(folder.last)), str(folder.best))
        check_value(folder, best, newer := last.progress)
        if newer.best_epoch == best.best_epoch:  # else the run was killed between its two checkpoints
            progress = dataclasses.asdict(newer)
    if folder.result.exists():
        result = read_result(folder.result)
        if "runs" not in result and result["epochs_run"] >= progress["next_epoch"]:
            stopped = result["stopped"]
            seconds = {f"seconds_{name}": result["seconds"][name] for name in ("training", "evaluating")}
            progress = progress | seconds | {"next_epoch": result["epochs_run"], "warnings": result["warnings"]}
    return progress, stopped


def _split_of(user: int, item: int, splits: Mapping[str, Pairs]) -> str:
    for name, pairs in splits.items():
        if bool(((pairs.users == user) & (pairs.items == item)).any()):
            return name
    return ""
