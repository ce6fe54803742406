"""Run directories: a run from its settings to its results, several seeds, resuming, and loading it again.

A run directory holds `config.yaml` (all settings; usable as `--config`), `last.safetensors`,
`best.safetensors`, `metrics.jsonl` and `result.json`. A run of several seeds holds `config.yaml`, the
summary `result.json`, and one such directory a seed, `seed-<n>`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import nn

from smore_ext import ops
from smore_ext.data import BUILTIN_DATASETS, Dataset, Pairs, builtin_dataset, load_dataset
from smore_ext.evaluation.protocol import Evaluator, embeddings, rows_of
from smore_ext.runs.report import (
    METRICS_FILE,
    RESULT_FILE,
    TENSORBOARD_FOLDER,
    JsonReport,
    TensorBoardReport,
    write_json,
)
from smore_ext.runs.results import run_result, summarise
from smore_ext.settings.config import (
    FLAGS,
    ConfigError,
    RunConfig,
    TrainConfig,
    changed_settings,
    check_folder,
    convert_setting,
    did_you_mean,
    flag_name,
    read_yaml,
)
from smore_ext.training import checkpoint
from smore_ext.training.events import Event, Listener, RunStarted
from smore_ext.training.loop import Trainer, build_model, check_data, deterministic, usable_device

CONFIG_FILE = "config.yaml"
SHOWN_DATASETS = 10
_RESULTS = (checkpoint.LAST, checkpoint.BEST, METRICS_FILE, RESULT_FILE)


def open_dataset(cfg: TrainConfig) -> Dataset:
    """The built-in data set, or the one in `<data_path>/<name>`, or in `data_path` itself.

    Raises `FileNotFoundError` naming the places looked at, and what `load_dataset` raises.
    """
    if cfg.data_path is None:
        if cfg.dataset in BUILTIN_DATASETS:
            return builtin_dataset(cfg.dataset, **cfg.dataset_options)
        near = did_you_mean(cfg.dataset, BUILTIN_DATASETS)
        raise FileNotFoundError(
            f"data set {cfg.dataset!r} is not built in ({', '.join(BUILTIN_DATASETS)}{near}): "
            f"name the folder that holds it with --data-path DIR"
        )
    if cfg.dataset_options:
        raise ConfigError("dataset_options: expected none with --data-path, they are for the built-in data set")
    check_folder(cfg.data_path)
    inside, table = cfg.data_path / cfg.dataset, cfg.data_path / f"{cfg.dataset}.inter"
    if inside.is_dir():
        return load_dataset(inside)
    if table.is_file() or ((cfg.data_path / "inter.csv").is_file() and not any(cfg.data_path.glob("*.inter"))):
        return load_dataset(cfg.data_path, cfg.dataset)
    there = _datasets_in(cfg.data_path)
    listed = ", ".join(there[:SHOWN_DATASETS]) + (
        f" and {more} more" if (more := len(there) - SHOWN_DATASETS) > 0 else ""
    )
    raise FileNotFoundError(
        f"data set {cfg.dataset!r} not found: neither folder {inside} nor file {table} exists"
        f"{did_you_mean(cfg.dataset, there)}; {cfg.data_path} holds {listed or 'no data set'}"
    )


def _datasets_in(folder: Path) -> list[str]:
    """Names that `--dataset` takes with this `--data-path`."""
    tables = {path.stem for path in folder.glob("*.inter")}
    folders = {path.parent.name for pattern in ("*/*.inter", "*/inter.csv") for path in folder.glob(pattern)}
    return sorted(tables | folders)


def new_run_dir(config: RunConfig, overwrite: bool = False) -> Path:
    """Where a new run goes. Raises `FileExistsError` when a run is there already and `overwrite` is false.

    Nothing is deleted here: `train` does it, with `overwrite`, once the new run is known to start.
    """
    cfg = config.train
    if cfg.output_dir is None:
        stem = Path("runs") / f"{cfg.model}-{cfg.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        run_dir, count = stem, 1
        while run_dir.exists():
            count += 1
            run_dir = stem.with_name(f"{stem.name}-{count}")
        return run_dir
    held = [path for path in cfg.output_dir.glob("*") if path.name in _RESULTS or _is_seed_dir(path)]
    if held and not overwrite:
        raise FileExistsError(
            f"{cfg.output_dir} already holds a run ({', '.join(sorted(path.name for path in held))}): "
            f"go on with it by --resume {cfg.output_dir}, or delete it by --overwrite"
        )
    return cfg.output_dir


def delete_run(run_dir: Path) -> None:
    """Deletes the files that runs write, and nothing else that may be in the folder."""
    for name in (*_RESULTS, CONFIG_FILE):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(run_dir / TENSORBOARD_FOLDER, ignore_errors=True)
    for path in run_dir.glob("seed-*"):
        if _is_seed_dir(path):
            delete_run(path)
            if not any(path.iterdir()):
                path.rmdir()


def stored_config(run_dir: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Settings of an existing run, with changes of settings that resuming allows (`epochs`, `threads`, ...).

    Raises `ConfigError` that names a changed setting that alters the results.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir} holds no run: {path} does not exist")
    stored = RunConfig.from_dict(read_yaml(path), str(path))
    model = stored.train.model
    new = {name: convert_setting(name, value, model, FLAGS) for name, value in (changes or {}).items()}
    config = RunConfig.from_dict(stored.to_dict() | new, str(path))
    sources = _stored_sources(run_dir) or stored.sources
    config = dataclasses.replace(config, sources=(*sources, *([f"{FLAGS} of --resume"] if new else [])))
    for name, (old, now) in changed_settings(stored.to_dict(), config.to_dict()).items():
        raise ConfigError(f"{flag_name(name)} cannot change when a run is resumed: it was {old!r}, is {now!r}")
    return config


def train(
    config: RunConfig,
    dataset: Dataset,
    run_dir: Path,
    listeners: Sequence[Listener] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Runs the seed, or all `seeds`, and returns the content of the top `result.json`.

    With `resume`, finished seeds are read, a started one goes on, the others begin. With `overwrite` a run
    that is in `run_dir` is deleted when the model of the new one stands. Listeners come after the files.
    """
    started = False

    def keep_config(event: Event) -> None:
        nonlocal started
        if isinstance(event, RunStarted):
            if overwrite and not started:
                delete_run(run_dir)
            started = True
            write_config(run_dir, config)

    with cpu_threads(config.train.threads):
        if not config.train.seeds:
            return _train_seed(config, dataset, run_dir, keep_config, listeners, resume)
        results = []
        for seed in config.train.seeds:
            one = config.replace(seed=seed, seeds=())
            results.append(_train_seed(one, dataset, run_dir / f"seed-{seed}", keep_config, listeners, resume))
    summary = summarise(results, config)
    write_json(run_dir / RESULT_FILE, summary)
    return summary


def finished(run_dir: Path, config: RunConfig) -> dict[str, Any] | None:
    """The result of a run that has nothing left to do under `config`, or None."""
    path = run_dir / RESULT_FILE
    if not path.is_file():
        return None
    result = read_result(path)
    if "runs" in result:
        seeds = [finished(run_dir / f"seed-{seed}", config) for seed in config.train.seeds]
        return result if all(seeds) else None
    more = result["stopped"] == "epochs" and config.train.epochs > result["epochs_run"]
    return None if more else result


def read_result(path: Path) -> dict[str, Any]:
    """The content of a `result.json`; `ConfigError` that names the file when it is damaged."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, not UTF-8
        raise ConfigError(f"{path} is damaged: {error}; delete it to let --resume write it again") from None
    if not isinstance(result, dict) or not ("runs" in result or {"stopped", "epochs_run"} <= set(result)):
        raise ConfigError(f"{path} is damaged: expected the result of a run")
    return result


class Recommendation(NamedTuple):
    """An item for a user; `held_out` names the split that holds the pair, "" for a pair the data lacks."""

    item: int
    score: float
    held_out: str


@dataclass(frozen=True)
class LoadedRun:
    """A trained model with the weights of its best validation epoch."""

    run_dir: Path
    config: RunConfig
    dataset: Dataset
    model: nn.Module
    progress: dict[str, Any]
    stopped: str | None = None  # why training ended; None while it has not

    def evaluate(self, protocol: str) -> dict[str, Any]:
        """Validation and test metrics under `protocol`, in the form of `result.json`."""
        cfg = self.config.train
        evaluator = Evaluator(self.dataset, protocol, batch_size=cfg.eval_batch_size, device=cfg.device)
        begin = time.perf_counter()
        with deterministic():
            validation, test = evaluator(self.model, "valid"), evaluator(self.model, "test")
        seconds = {
            "training": self.progress["seconds_training"],
            "evaluating": self.progress["seconds_evaluating"],
            "testing": time.perf_counter() - begin,
        }
        return run_result(self.config, self.dataset, protocol, self.progress, validation, test, seconds, self.stopped)

    def recommend(self, users: Sequence[int], k: int, mask: str = "all") -> dict[int, list[Recommendation]]:
        """The `k` items ranked first for each user, without the items the user has interacted with.

        `mask` "all" leaves out the user's interactions of every split, "train" only those of train, to see
        where the held-out ones rank. Raises `ValueError` for a user id out of range.
        """
        data = self.dataset
        for user in users:
            if not 0 <= user < data.n_users:
                raise ValueError(f"user: expected an id from 0 to {data.n_users - 1}, got {user}")
        held_out = {"validation": data.valid, "test": data.test}
        ids = torch.tensor(sorted(set(users)))
        seen = rows_of(ids, [data.train, *(held_out.values() if mask == "all" else ())], data.n_items)
        user_rows, items = embeddings(self.model)
        device = items.device
        k = min(k, data.n_items)
        scores, ranked = ops.masked_topk(user_rows[ids.to(device)], items, k, seen.to(device))
        return {
            user: [
                Recommendation(item, score, _split_of(user, item, held_out))
                for item, score in zip(items_of_user, scores_of_user, strict=True)
                if item >= 0
            ]
            for user, items_of_user, scores_of_user in zip(ids.tolist(), ranked.tolist(), scores.tolist(), strict=True)
        }


def run_dirs(run_dir: Path) -> list[Path]:
    """The directory itself, or those of its seeds. Raises `FileNotFoundError` when it holds no run."""
    if (run_dir / checkpoint.BEST).is_file():
        return [run_dir]
    seeds = sorted((p for p in run_dir.glob("seed-*") if _is_seed_dir(p)), key=lambda p: int(p.name[5:]))
    trained = [path for path in seeds if (path / checkpoint.BEST).is_file()]
    if not trained:
        why = "no epoch is finished yet" if (run_dir / CONFIG_FILE).is_file() else "it holds no run"
        raise FileNotFoundError(f"{run_dir}: no {checkpoint.BEST}: {why}")
    return trained


def seeds_config(run_dir: Path, config: RunConfig, results: Sequence[dict[str, Any]]) -> RunConfig:
    """Settings of a run of several seeds, given those of one of them as it was loaded."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        return config.replace(seeds=tuple(result["seed"] for result in results))
    whole = RunConfig.from_dict(read_yaml(path), str(path)).train
    return config.replace(seed=whole.seed, seeds=whole.seeds)


def unfinished_seeds(run_dir: Path) -> dict[int, str]:
    """Seeds of a run of several that are not done, each with how far it is; empty for a run of one seed."""
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        return {}
    config = RunConfig.from_dict(read_yaml(path), str(path))
    out = {}
    for seed in config.train.seeds:
        folder = run_dir / f"seed-{seed}"
        if not (folder / checkpoint.BEST).is_file():
            out[seed] = "not started"
        elif finished(folder, config) is None:
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
    path = run_dir / checkpoint.BEST
    weights, metadata = checkpoint.load(path)
    changes: dict[str, Any] = {}
    if data_path is not None:
        changes["data_path"] = data_path
    if device is not None:
        changes["device"] = device
    config = RunConfig.from_dict(metadata["config"], str(path)).replace(**changes)
    config = dataclasses.replace(config, sources=tuple(metadata.get("settings_from", config.sources)))
    progress, stopped = _end_of(run_dir, metadata["progress"])
    dataset = open_dataset(config.train) if dataset is None else dataset
    check_data(metadata["data"]["fingerprint"], dataset, str(path))
    model = build_model(config, dataset, usable_device(config.train.device))
    checkpoint.load_weights(model, weights)
    return LoadedRun(run_dir, config, dataset, model.eval(), progress, stopped)


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """torch uses `count` threads within; None leaves the number alone."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_config(run_dir: Path, config: RunConfig) -> None:
    text = yaml.safe_dump(config.to_dict(), sort_keys=False)
    checkpoint.write_text(run_dir / CONFIG_FILE, text)


def _end_of(run_dir: Path, progress: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Epochs, seconds and warnings of a whole run, given those up to its best epoch; and why it stopped."""
    last, path, stopped = run_dir / checkpoint.LAST, run_dir / RESULT_FILE, None
    if last.is_file():
        newer = checkpoint.load_metadata(last)["progress"]
        if newer["best_epoch"] == progress["best_epoch"]:  # else the run was killed between its two checkpoints
            progress = newer
    if path.is_file():
        result = read_result(path)
        if result["epochs_run"] >= progress["next_epoch"]:
            stopped = result["stopped"]
            seconds = {f"seconds_{name}": result["seconds"][name] for name in ("training", "evaluating")}
            progress = progress | seconds | {"next_epoch": result["epochs_run"], "warnings": result["warnings"]}
    return progress, stopped


def _stored_sources(run_dir: Path) -> tuple[str, ...]:
    """Where the settings of a run came from, as its first checkpoint says."""
    for path in (run_dir / checkpoint.LAST, *sorted(run_dir.glob(f"seed-*/{checkpoint.LAST}"))):
        if path.is_file():
            return tuple(checkpoint.load_metadata(path).get("settings_from", ()))
    return ()


def _train_seed(
    config: RunConfig,
    dataset: Dataset,
    run_dir: Path,
    keep_config: Listener,
    listeners: Sequence[Listener],
    resume: bool,
) -> dict[str, Any]:
    if resume and (result := finished(run_dir, config)) is not None:
        check_data(result["data"]["fingerprint"], dataset, str(run_dir / RESULT_FILE))
        return result
    writers: list[Callable[[Event], None]] = [keep_config, JsonReport(run_dir)]
    if config.train.tensorboard:
        writers.append(TensorBoardReport(run_dir))
    return Trainer(config, dataset, run_dir, [*writers, *listeners]).run(resume)


def _split_of(user: int, item: int, splits: Mapping[str, Pairs]) -> str:
    for name, pairs in splits.items():
        if bool(((pairs.users == user) & (pairs.items == item)).any()):
            return name
    return ""


def _is_seed_dir(path: Path) -> bool:
    return path.is_dir() and path.name.startswith("seed-") and path.name[5:].isdigit()
