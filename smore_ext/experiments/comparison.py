"""Models compared on one data set: a run of each with each seed, and one table of what came out.

The folder of a comparison holds a run folder a model, which the other commands take, and a file of measurements a run.
A run that is finished there is kept, one that was stopped goes on, so a comparison can be stopped, and more models and
seeds can be added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from smore_ext import runs
from smore_ext.experiments.jobs import Job, available_memory, run_jobs, share_of_cores, taken_of
from smore_ext.experiments.measured import Measured, read_measured, run_measured
from smore_ext.experiments.significance import Difference, holm, paired_bootstrap
from smore_ext.models.contract import Recommender
from smore_ext.models.registry import MODELS, short_name
from smore_ext.runs.config_files import preset_names, write_config
from smore_ext.settings.config import RunConfig, changed_settings, config_class, known_names
from smore_ext.settings.fields import ConfigError

Told = Callable[[str], None]
Cell = tuple[str, int]  # a model and a seed


@dataclass(frozen=True)
class Row:
    """A model in the table.

    Attributes:
        model: its name.
        seeds: those of its runs; a closed form has no randomness, and one run.
        validation, test: metrics, each with mean and sample standard deviation over runs (None for one run).
        best_epochs: of each run.
        seconds: of training, mean of the runs.
        memory: peak bytes of a run's process, the largest; None where nobody measured it.
        difference: of the metric of selection on test from the first model, over users; None for the first, and where
            the metric is none of users.
        p_corrected: its p-value after Holm's correction for the number of models compared with the first.
        settings_from: where its settings came from.
    """

    model: str
    seeds: list[int]
    validation: dict[str, dict[str, float | None]]
    test: dict[str, dict[str, float | None]]
    best_epochs: list[int]
    seconds: float
    memory: int | None
    difference: Difference | None
    p_corrected: float | None
    settings_from: list[str]


@dataclass(frozen=True)
class Comparison:
    """The table, and what it is of.

    Attributes:
        metric: the one that selects epochs on validation and is compared on test.
        failed: `{"model, seed": what went wrong}` of runs that the table lacks.
    """

    dataset: dict[str, Any]
    protocol: str
    metric: str
    users: int
    rows: list[Row]
    failed: dict[str, str]


def plan(
    models: Sequence[str], flags: Mapping[str, Any], config_file: Path | None = None, presets: bool = True
) -> dict[str, RunConfig]:
    """Settings of each model: its preset for the data set, the file, and those of the flags that it has.

    Args:
        models: names, or package.module:Class; the first is the one that others are compared with.
        flags: settings by name. One of a model goes to the models that have it; one that none has is a `ConfigError`.
        config_file: as for a run; a section named as a model holds for that model only.
        presets: whether to take published settings, the preset `<model>-<dataset>`, where there are any.
    """
    if len({short_name(model) for model in models}) < len(models) or not models:
        raise ConfigError(f"models: expected different names, at least one, got {', '.join(models) or 'none'}")
    known = {model: known_names(config_class(model)) for model in models}
    for name in flags:
        if not any(name in names for names in known.values()):
            runs.resolve({"model": models[0], name: flags[name]})  # the error that a run would have
    out = {}
    for model, names in known.items():
        own = {name: value for name, value in flags.items() if name in names} | {"model": model}
        preset = f"{short_name(model)}-{runs.resolve(own, None, config_file).train.dataset}".lower()
        out[model] = runs.resolve(own, preset if presets and preset in preset_names() else None, config_file)
    return out


def compare(configs: Mapping[str, RunConfig], folder: Path, jobs: int = 1, tell: Told = lambda _: None) -> Comparison:
    """Runs what is not finished in `folder`, and makes the table.

    Args:
        configs: settings by model, as `plan` gives them; they share the seeds of the first, else its one seed.
        jobs: runs at a time, as far as memory allows. Without `threads` they share the cores equally.
        tell: called with a line as each run ends.

    Raises:
        ConfigError: a run in the folder has other settings.
    """
    first = next(iter(configs.values())).train
    seeds = first.seeds or (first.seed,)
    share = share_of_cores(jobs)
    cells: dict[Cell, RunConfig] = {}
    for model, config in configs.items():
        one = config.replace(seeds=(), output_dir=None, threads=config.train.threads or share)
        for seed in seeds[:1] if _is_closed_form(model) else seeds:
            cells[model, seed] = one.replace(seed=seed)
    todo = [cell for cell, config in cells.items() if not _is_done(folder, cell, config)]
    if todo:
        runs.open_dataset(cells[todo[0]])  # what is wrong with the data is said once, before anything runs
    failed, done = {}, {cell: read_measured(_file(folder, cell)) for cell in cells if cell not in todo}
    work = [
        Job(cell, run_measured, (cells[cell].to_dict(), cells[cell].sources, _run(folder, cell), _file(folder, cell)))
        for cell in todo
    ]

    def need(cell: Cell) -> int:
        known = {other: taken_of(first.device, measured.memory) for other, measured in done.items()}
        return max((m for other, m in known.items() if other[0] == cell[0]), default=max(known.values(), default=0))

    free = partial(available_memory, first.device)
    for cell, wrong in run_jobs(work, jobs, need, free, alone=True):
        if wrong is None:
            done[cell] = read_measured(_file(folder, cell))
        else:
            failed[cell] = wrong
        tell(_line(cell, wrong, done, _run(folder, cell), first.selection))
    for model, config in configs.items():
        _summarise(folder, model, config, [cell for cell in cells if cell[0] == model and cell in done])
    return _table(folder, configs, {cell: done[cell] for cell in cells if cell in done}, failed)


def _is_closed_form(model: str) -> bool:
    return MODELS[model].fit is not Recommender.fit


def _run(folder: Path, cell: Cell) -> Path:
    return runs.RunFolder(folder / short_name(cell[0])).seed(cell[1]).path


def _file(folder: Path, cell: Cell) -> Path:
    return folder / "measured" / f"{short_name(cell[0])}-{cell[1]}.npz"


def _is_done(folder: Path, cell: Cell, config: RunConfig) -> bool:
    """Whether the run is finished and measured. Raises `ConfigError` where one with other settings is in its place."""
    result = runs.finished(_run(folder, cell), config)
    if result is None:
        return False
    stored = RunConfig.from_dict(result["config"], str(_run(folder, cell)))
    for name, (old, new) in changed_settings(stored, config).items():
        raise ConfigError(f"{_run(folder, cell)}: {name} was {old!r}, is {new!r}; compare in another folder")
    return _file(folder, cell).is_file()


def _line(cell: Cell, wrong: str | None, done: Mapping[Cell, Measured], run: Path, metric: str) -> str:
    name = f"{short_name(cell[0])}, seed {cell[1]}"
    if wrong is not None:
        return f"{name}: {wrong}"
    seconds = runs.read_result(runs.RunFolder(run).result)["seconds"]["training"]
    return f"{name}: test {metric} {done[cell].values[metric].mean():.4f}, trained in {seconds:.1f} s"


def _summarise(folder: Path, model: str, config: RunConfig, cells: Sequence[Cell]) -> None:
    """Makes the model's folder that of a run of several seeds."""
    if cells:
        own = runs.RunFolder(folder / short_name(model))
        several = config.replace(seeds=tuple(seed for _, seed in cells), output_dir=None)
        results = [runs.read_result(runs.RunFolder(_run(folder, cell)).result) for cell in cells]
        write_config(own, several)
        runs.write_json(own.result, runs.summarise(results, several))


def _table(
    folder: Path, configs: Mapping[str, RunConfig], done: Mapping[Cell, Measured], failed: Mapping[Cell, str]
) -> Comparison:
    models = [model for model in configs if any(cell[0] == model for cell in done)]
    if not models:
        raise ConfigError(f"no run came to an end: {'; '.join(failed.values())}")
    first = next(iter(configs.values())).train
    summaries = {model: runs.read_result(runs.RunFolder(folder / short_name(model)).result) for model in models}
    measured = {model: [m for cell, m in done.items() if cell[0] == model] for model in models}
    of_users = {model: np.mean([m.values[first.selection] for m in measured[model]], axis=0) for model in models}
    base, others = models[0], models[1:]
    differences: list[Difference] = []
    if others and of_users[base].ndim:
        differences = paired_bootstrap(np.stack([of_users[model] - of_users[base] for model in others], axis=1))
    corrected = holm([difference.p for difference in differences])
    rows = []
    for model in models:
        summary, place = summaries[model], others.index(model) if model in others and differences else None
        rows.append(
            Row(
                model=short_name(model),
                seeds=summary["seeds"],
                validation=summary["validation"],
                test=summary["test"],
                best_epochs=[run["best_epoch"] for run in summary["runs"]],
                seconds=summary["seconds"]["training"] / len(summary["seeds"]),
                memory=max(m.memory for m in measured[model]) or None,
                difference=None if place is None else differences[place],
                p_corrected=None if place is None else corrected[place],
                settings_from=summary["settings_from"],
            )
        )
    told = {f"{short_name(model)}, seed {seed}": why for (model, seed), why in failed.items()}
    read = [summary["data"]["features"] for summary in summaries.values()]  # a model reads its own alone
    data = summaries[base]["data"] | {"features": {name: shape for each in read for name, shape in each.items()}}
    return Comparison(data, first.protocol, first.selection, len(measured[base][0].users), rows, told)
