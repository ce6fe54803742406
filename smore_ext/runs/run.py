"""Runs: from settings to results, several seeds, and going on with what was stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smore_ext.data import BUILTIN_DATASETS, Dataset, DatasetError, builtin_dataset, read_dataset
from smore_ext.data.readers import changed_options
from smore_ext.models import MODELS
from smore_ext.registry import did_you_mean
from smore_ext.runs.config_files import check_folder, read_config, write_config
from smore_ext.runs.folder import RunFolder, check_new
from smore_ext.runs.lock import locked
from smore_ext.runs.records import JsonReport, missing_epochs, read_result, write_ids, write_json
from smore_ext.runs.results import summarise
from smore_ext.runs.trackers import TRACKERS
from smore_ext.settings.config import FLAGS, Layer, RunConfig, TrainConfig, changed_settings, flag_name, merge
from smore_ext.settings.fields import ConfigError
from smore_ext.training import checkpoint
from smore_ext.training.events import Event, Listener, RunStarted
from smore_ext.training.loop import Trainer, check_data


def open_dataset(config: RunConfig, fingerprint: str | None = None) -> Dataset:
    """The built-in data set, or what the reader finds in `data_path`: of its features, those that the model reads.

    With the `fingerprint` of a run that was trained on it, all features are read where it holds for those only: earlier
    versions did so for all models.

    Raises `FileNotFoundError` naming the places looked at, and what the reader raises.
    """
    cfg = config.train
    if cfg.data_path is None:
        if cfg.dataset in BUILTIN_DATASETS:
            _refuse_read_options(cfg)
            return builtin_dataset(cfg.dataset, **cfg.dataset_options)
        near = did_you_mean(cfg.dataset, BUILTIN_DATASETS)
        raise FileNotFoundError(
            f"data set {cfg.dataset!r} is not built in ({', '.join(BUILTIN_DATASETS)}{near}): "
            f"name the folder that holds it with --data-path DIR"
        )
    if cfg.dataset_options:
        raise ConfigError("dataset_options: expected none with --data-path, they are for the built-in data set")
    check_folder(cfg.data_path)
    read = partial(read_dataset, cfg.dataset, cfg.data_path, cfg.reader)
    features = MODELS[cfg.model].features_read(config.model)
    dataset = read(cfg.read_options(features))
    if fingerprint in (None, dataset.fingerprint) or features is None:
        return dataset
    try:
        whole = read(cfg.read_options())
    except DatasetError:
        return dataset
    return whole if whole.fingerprint == fingerprint else dataset


def dataset_of(run_dir: Path, config: RunConfig) -> Dataset:
    """The data set of a run that goes on under `config`."""
    checkpoints = RunFolder(run_dir).last_checkpoints()
    data = checkpoint.load_metadata(checkpoints[0]).get("data") if checkpoints else None
    return open_dataset(config, data.get("fingerprint") if isinstance(data, dict) else None)


def _refuse_read_options(cfg: TrainConfig) -> None:
    for name in changed_options(cfg.read_options()):
        raise ConfigError(f"{name}: expected the default, it is for data that --data-path names")


def stored_config(run_dir: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Settings of an existing run, with changes of settings that resuming allows (`epochs`, `threads`, ...).

    Raises `ConfigError` that names a changed setting that alters the results.
    """
    folder = RunFolder(run_dir)
    stored = read_config(folder)
    config = merge([Layer(str(folder.config), stored.to_dict()), Layer(FLAGS, changes or {})])
    sources = _stored_sources(folder) or stored.sources
    config = dataclasses.replace(config, sources=(*sources, *([f"{FLAGS} of --resume"] if changes else [])))
    for name, (old, now) in changed_settings(stored, config).items():
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

    Raises `RunInUse` when another process writes there; `FileExistsError` when a run is there and neither is given.
    """
    folder, started = RunFolder(run_dir), False

    def keep_config(event: Event) -> None:
        nonlocal started
        if isinstance(event, RunStarted):
            if overwrite and not started:
                folder.delete()
            started = True
            write_config(folder, config)
            write_ids(folder.ids, dataset)

    with cpu_threads(config.train.threads), ExitStack() as locks:
        locks.enter_context(locked(folder.path))
        if not resume and not overwrite:
            check_new(folder)  # again: another run may have been here since the folder was chosen
        for one in (seeds := folder.seeds()):
            locks.enter_context(locked(one.path, keep_empty=False))
        if not config.train.seeds:
            return _train_seed(config, dataset, folder, keep_config, listeners, resume)
        results = []
        for seed in config.train.seeds:
            one = folder.seed(seed)
            with nullcontext() if one in seeds and one.path.exists() else locked(one.path):
                settings = config.replace(seed=seed, seeds=())
                results.append(_train_seed(settings, dataset, one, keep_config, listeners, resume))
        summary = summarise(results, config)
        write_json(folder.result, summary)
    return summary


def train_seed(config: RunConfig, run_dir: Path, seed: int, threads: int | None) -> None:
    """One of the `seeds` of a run, gone on with where it was begun: `train` then reads it, and the others, as finished.

    For seeds in processes of their own. `config` is that of the whole run, which has been written; `threads` are those
    of this process.
    """
    one = RunFolder(run_dir).seed(seed)
    dataset = dataset_of(run_dir, config)
    with cpu_threads(threads), locked(one.path):
        _train_seed(config.replace(seed=seed, seeds=(), threads=threads), dataset, one, lambda _: None, (), resume=True)


def finished(run_dir: Path, config: RunConfig) -> dict[str, Any] | None:
    """The result of a run that has nothing left to do under `config`, or None."""
    folder = RunFolder(run_dir)
    if not folder.result.exists():
        return None
    result = read_result(folder.result)
    if "runs" in result:
        seeds = [finished(folder.seed(seed).path, config) for seed in config.train.seeds]
        return result if all(seeds) else None
    more = result["stopped"] == "epochs" and config.train.epochs > result["epochs_run"]
    return None if more else result


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


def _stored_sources(folder: RunFolder) -> tuple[str, ...]:
    """Where the settings of a run came from, as its first checkpoint says."""
    for path in folder.last_checkpoints():
        return tuple(checkpoint.load_metadata(path).get("settings_from", ()))
    return ()


def _check_result(result: Mapping[str, Any], config: RunConfig, folder: RunFolder) -> None:
    """Raises `CheckpointError` for a result that another run has left in the folder."""
    own = {"model": config.train.model, "seed": config.train.seed}
    for name, wanted in own.items():
        if result.get(name, wanted) != wanted:
            raise checkpoint.CheckpointError(
                f"{folder.result} is of another run: its {name} is {result[name]}, that of {folder.path} is {wanted}; "
                f"delete it to go on"
            )


def _train_seed(
    config: RunConfig,
    dataset: Dataset,
    folder: RunFolder,
    keep_config: Listener,
    listeners: Sequence[Listener],
    resume: bool,
) -> dict[str, Any]:
    if resume and (result := finished(folder.path, config)) is not None:
        check_data(result["data"]["fingerprint"], dataset, str(folder.result))
        _check_result(result, config, folder)
        folder.delete_temporary()
        return result
    if resume and (left := folder.lost()) is not None:
        again = f"begin again: --config {folder.config} -o {folder.path} --overwrite"
        if not folder.config.exists():  # a seed of several
            again = f"delete {folder.path} to have this seed trained again"
        raise checkpoint.CheckpointError(
            f"{folder.last} is gone, and the run cannot go on without it; still there: {left}. Put it back, or {again}"
        )
    notes = [] if not resume else missing_epochs(folder)
    folder.delete_temporary()
    writers: list[Callable[[Event], None]] = [keep_config, JsonReport(folder.path)]
    writers += [make(folder.path) for name, make in TRACKERS.items() if getattr(config.train, name)]
    return Trainer(config, dataset, folder, [*writers, *listeners], notes).run(resume)
