"""Settings searched for with Optuna: each trial a run in a process of its own, chosen on validation and nothing else.

The folder of a search holds Optuna's journal, a run folder a trial, and what came out. A search that was stopped goes
on: what ran then begins again. Trials share the cache of item graphs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from smore_ext import runs
from smore_ext.experiments.jobs import Job, run_jobs, share_of_cores
from smore_ext.experiments.measured import telling
from smore_ext.experiments.space import Choices, Space, ends, first, grid
from smore_ext.runs.lock import locked
from smore_ext.settings.config import RunConfig
from smore_ext.settings.fields import ConfigError
from smore_ext.training.events import EpochDone, Event

if TYPE_CHECKING:
    from optuna import Study, Trial

Sampler = Literal["tpe", "random", "grid"]
JOURNAL, TRIALS = "journal.log", "trials"
STARTUP, WARMUP = 4, 5  # trials, and epochs of one, before any is pruned
PRUNED = "pruned"


@dataclass(frozen=True)
class TrialRow:
    """A trial: `value` is the selecting metric on validation, None where the run failed."""

    number: int
    settings: dict[str, Any]
    state: str  # done, pruned, failed
    value: float | None
    best_epoch: int | None
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Search:
    """What came out: `best` on validation, and its `test`, of that trial alone."""

    metric: str
    rows: list[TrialRow]
    best: TrialRow | None
    test: dict[str, float]


def search(
    config_of: Callable[[Mapping[str, Any]], RunConfig],
    space: Space,
    folder: Path,
    trials: int,
    sampler: Sampler = "tpe",
    jobs: int = 1,
    prune: bool = True,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Search:
    """Makes trials until there are so many in `folder`, and says what came out.

    Args:
        config_of: settings of a run, given those that a trial varies.
        space: what is varied; at least one setting.
        trials: in all, with those that are there; of a grid, at most its size.
        jobs: runs at a time; they share the cores.
        prune: a run is stopped when its best validation so far is below the median of others at that epoch.
        seed: of the sampler. With several jobs the order in which runs end matters too.

    Raises `ConfigError`: settings that no run can have, or another search in the folder; `ImportError`.
    """
    if not space:
        raise ConfigError("search: expected settings to vary: --space NAME=a,b,c, or a file of MMRec's with lists")
    try:
        import optuna
    except ImportError:
        raise ImportError("search needs optuna: pip install 'smore-ext[search]'") from None
    every = grid(space) if sampler == "grid" else []
    config = config_of({name: first(part) for name, part in space.items()})  # refuses unknown names and values
    if config.train.seeds:
        raise ConfigError(f"search: expected one seed, got {', '.join(map(str, config.train.seeds))}")
    for name, part in space.items():
        for value in ends(part):
            config_of({other: first(its) for other, its in space.items()} | {name: value})
    data = runs.open_dataset(config).fingerprint
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        study = _study(folder, sampler, prune, seed)
        base = _base(config, space) | {"data": data}
        _check_same(study, {"space": {n: asdict(p) for n, p in space.items()}, "base": base}, folder)
        for combination in every:
            study.enqueue_trial(combination, skip_if_exists=True)
        states = optuna.trial.TrialState
        for left in study.get_trials(states=[states.RUNNING]):  # of a search that was killed
            study.tell(left.number, state=states.FAIL)
            study.enqueue_trial(left.system_attrs.get("fixed_params", left.params))
        wanted = min(trials, len(every)) if every else trials
        metric = config.train.selection
        asked: dict[int, Trial] = {}

        def chosen() -> Iterator[Job[int]]:
            """Each is asked for when a process is free, so that it knows what the others have found."""
            for _ in range(wanted - len(_ended(study))):
                trial = study.ask()
                try:
                    one = config_of(suggest(trial, space))
                except (ConfigError, ValueError) as error:  # values that do not go together
                    tell(_end(study, trial, folder, str(error), metric))
                    continue
                asked[trial.number] = trial
                one = one.replace(output_dir=None, threads=one.train.threads or share_of_cores(jobs))
                arguments = (one.to_dict(), one.sources, _place(folder, trial.number), folder / JOURNAL, trial.number)
                yield Job(trial.number, run_trial, arguments)

        on_gpu = config.train.device != "cpu"
        for number, wrong in run_jobs(chosen(), jobs, lambda _: 0, lambda: None, alone=on_gpu):
            tell(_end(study, asked[number], folder, wrong, metric))
        return summarise(study, folder, metric)


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Settings that the sampler picks for a trial."""
    out: dict[str, Any] = {}
    for name, part in space.items():
        if isinstance(part, Choices):
            out[name] = trial.suggest_categorical(name, list(part.values))
        elif part.whole:
            out[name] = trial.suggest_int(name, int(part.low), int(part.high), log=part.log)
        else:
            out[name] = trial.suggest_float(name, part.low, part.high, log=part.log)
    return out


def run_trial(
    config: Mapping[str, Any], sources: tuple[str, ...], place: Path, journal: Path, number: int, told: Connection
) -> None:
    """The target of a trial's process: tells None when done, "pruned", or what went wrong."""
    try:
        with telling(told):
            settings = RunConfig.from_dict(config)
            settings = RunConfig(settings.train, settings.model, sources)
            listener = _Pruner(journal, number, settings.train.selection)
            runs.train(settings, runs.open_dataset(settings), place, [listener], resume=place.exists())
    except _Stopped:
        told.send(PRUNED)


class _Stopped(Exception):
    """A run that is not worth going on with."""


class _Pruner:
    """Reports the best validation so far after each epoch, and stops what is below the median of others."""

    def __init__(self, journal: Path, number: int, metric: str) -> None:
        import optuna

        self.study = optuna.load_study(study_name=_NAME, storage=_storage(journal), pruner=_pruner())
        self.trial = optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)
        self.metric, self.best = metric, float("-inf")
        self.prunes = bool(self.study.user_attrs.get("prune"))

    def __call__(self, event: Event) -> None:
        if isinstance(event, EpochDone):
            self.best = max(self.best, event.record["validation"][self.metric])
            self.trial.report(self.best, event.record["epoch"])
            if self.prunes and self.trial.should_prune():
                raise _Stopped


_NAME = "smore_ext"


def _storage(journal: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(journal)))


def _pruner() -> Any:
    import optuna

    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARMUP)


def _study(folder: Path, sampler: Sampler, prune: bool, seed: int) -> Study:
    import optuna

    storage = _storage(folder / JOURNAL)
    study = optuna.create_study(study_name=_NAME, storage=storage, direction="maximize", load_if_exists=True)
    seen = len(study.trials)  # a search that goes on does not draw the first numbers again
    random = optuna.samplers.RandomSampler(seed=seed + seen)
    study.sampler = optuna.samplers.TPESampler(seed=seed + seen) if sampler == "tpe" else random
    study.set_user_attr("prune", prune)
    return study


def _check_same(study: Study, about: dict[str, Any], folder: Path) -> None:
    """A folder is of one space and one set of other settings."""
    text = json.dumps(about, sort_keys=True, default=str)
    before = study.user_attrs.get("about")
    if before is None:
        study.set_user_attr("about", text)
    elif before != text:
        old, new = json.loads(before), json.loads(text)
        names = [(part, name) for part in new for name in {*old[part], *new[part]}]
        differs = [f"{part} {name}" for part, name in names if old[part].get(name) != new[part].get(name)]
        told = ", ".join(sorted(differs))
        raise ConfigError(f"{folder} holds a search with other settings ({told}): search in another folder")


def _base(config: RunConfig, space: Space) -> dict[str, Any]:
    """What all trials share, without what may change and what they vary."""
    skip = {"threads", "output_dir", "data_path", "device", *space}
    return {
        f"{section}.{name}": value
        for section, values in config.to_dict().items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if name not in skip
    }


def _place(folder: Path, number: int) -> Path:
    return folder / TRIALS / f"{number:04}"


def _ended(study: Study) -> list[Any]:
    import optuna

    states = optuna.trial.TrialState
    ended = (states.COMPLETE, states.PRUNED)
    return [trial for trial in study.trials if trial.state in ended or "why" in trial.user_attrs]


def _result(folder: Path, number: int) -> dict[str, Any]:
    return runs.read_result(runs.RunFolder(_place(folder, number)).result)


def _end(study: Study, trial: Trial, folder: Path, wrong: str | None, metric: str) -> str:
    """Tells the study how a trial ended; a line for the reader."""
    import optuna

    states = optuna.trial.TrialState
    named = f"trial {trial.number} ({', '.join(f'{name} {value}' for name, value in trial.params.items())})"
    if wrong is None:
        value = _result(folder, trial.number)["validation"][metric]
        study.tell(trial, value)
        return f"{named}: validation {metric} {value:.4f}"
    if wrong == PRUNED:
        epochs = len(study.tell(trial, state=states.PRUNED).intermediate_values)
        return f"{named}: stopped after {epochs} epochs"
    trial.set_user_attr("why", wrong)
    study.tell(trial, state=states.FAIL)
    return f"{named}: {wrong}"


def summarise(study: Study, folder: Path, metric: str) -> Search:
    """The table, best on validation first."""
    import optuna

    names = {optuna.trial.TrialState.COMPLETE: "done", optuna.trial.TrialState.PRUNED: "pruned"}
    rows = []
    for trial in _ended(study):
        values = trial.intermediate_values
        value = trial.value if trial.value is not None else max(values.values(), default=None)
        state = names.get(trial.state, "failed")
        best_epoch = _result(folder, trial.number)["best_epoch"] if state == "done" else None
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        rows.append(
            TrialRow(trial.number, trial.params, state, value, best_epoch, seconds, trial.user_attrs.get("why", ""))
        )
    rows.sort(key=lambda row: (row.state != "done", -(row.value if row.value is not None else -1.0), row.number))
    best = rows[0] if rows and rows[0].state == "done" else None
    test = _result(folder, best.number)["test"] if best else {}
    return Search(metric, rows, best, test)


def names_of(rows: Sequence[TrialRow]) -> list[str]:
    """The settings that were varied."""
    return list(dict.fromkeys(name for row in rows for name in row.settings))
