"""Listeners that tell other programs how a run goes: TensorBoard, Weights & Biases, MLflow.

Each writes the same numbers by epoch: losses, validation metrics, model statistics, and the learning rate; at the end
the test metrics of the best epoch. One that is missing, or cannot begin, is an error before training; one that fails
later is told once, and training goes on.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from smore_ext.runs.folder import RunFolder
from smore_ext.training.events import EpochDone, Event, RunFinished, RunStarted


class _Sink(Protocol):
    """Where numbers go; `close` ends it."""

    def write(self, numbers: Mapping[str, float], epoch: int) -> None: ...

    def close(self) -> None: ...


class Tracker:
    """A listener that opens a sink when the run starts."""

    def __init__(self, name: str, start: Callable[[RunStarted], _Sink]) -> None:
        self._name, self._start = name, start
        self._sink: _Sink | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            try:
                self._sink = self._start(event)
            except Exception as error:  # no key, no server, a folder that cannot be written
                raise OSError(f"{self._name} cannot be told of the run: {error}") from error
        if self._sink is None:
            return
        try:
            match event:
                case EpochDone(record):
                    self._sink.write(numbers_of(record), record["epoch"])
                case RunFinished(_, result):
                    test = {f"test/{name}": value for name, value in result["test"].items()}
                    self._sink.write(test, result["best_epoch"])
                    self._sink.close()
        except Exception as error:  # a full disk or a server that is gone: training is worth more
            self._sink = None
            warnings.warn(f"{self._name} is not told any more: {error}", RuntimeWarning, stacklevel=2)


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """What an epoch is described by, with its group before each name."""
    groups = ("loss", "validation", "statistics")
    found = {f"{group}/{name}": value for group in groups for name, value in record.get(group, {}).items()}
    return found | {"lr": record["lr"]}


def tensorboard(run_dir: Path) -> Tracker:
    """Into the run's folder. `ImportError` without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError("tensorboard logs were asked for: pip install tensorboard") from None

    class Sink:
        def __init__(self, event: RunStarted) -> None:
            self.writer = SummaryWriter(str(RunFolder(run_dir).tensorboard), purge_step=event.first_epoch)
            self.writer.add_text("protocol", event.protocol, event.first_epoch)

        def write(self, numbers: Mapping[str, float], epoch: int) -> None:
            for name, value in numbers.items():
                self.writer.add_scalar(name, value, epoch)
            self.writer.flush()

        def close(self) -> None:
            self.writer.close()

    return Tracker("TensorBoard", Sink)


def wandb(run_dir: Path) -> Tracker:
    """A run of Weights & Biases, offline in the run's folder unless there is a key. `WANDB_PROJECT`, `WANDB_MODE` and
    its other variables hold. Going on with a run is a second one in the same group. `ImportError` without wandb."""
    try:
        import wandb as library
    except ImportError:
        raise ImportError("Weights & Biases was asked for: pip install wandb") from None

    class Sink:
        def __init__(self, event: RunStarted) -> None:
            known = os.environ.get("WANDB_API_KEY") or library.api.api_key
            self.run = library.init(
                project=os.environ.get("WANDB_PROJECT", "smore_ext"),
                dir=str(run_dir),
                name=run_dir.name,
                group=run_dir.name,
                config={**event.config, "protocol": event.protocol, "data": event.dataset},
                mode=os.environ.get("WANDB_MODE") or ("online" if known else "offline"),
            )

        def write(self, numbers: Mapping[str, float], epoch: int) -> None:
            if any(name.startswith("test/") for name in numbers):
                self.run.summary.update({**numbers, "best_epoch": epoch})
            else:
                self.run.log({**numbers, "epoch": epoch}, step=epoch)

        def close(self) -> None:
            self.run.finish()

    return Tracker("Weights & Biases", Sink)


def mlflow(run_dir: Path) -> Tracker:
    """A run of MLflow, at `MLFLOW_TRACKING_URI` or else in `mlflow.db` of the run's folder, in the experiment of
    `MLFLOW_EXPERIMENT_NAME`. `@`, which MLflow does not take in names, is spelled `_at_`. `ImportError` without it."""
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise ImportError("MLflow was asked for: pip install mlflow") from None

    class Sink:
        def __init__(self, event: RunStarted) -> None:
            where = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{RunFolder(run_dir.resolve()).mlflow}"
            self.client = MlflowClient(where)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "smore_ext")
            found = self.client.get_experiment_by_name(name)
            experiment = self.client.create_experiment(name) if found is None else found.experiment_id
            self.id = self.client.create_run(experiment, run_name=run_dir.name).info.run_id
            for key, value in {**_flat(event.config), "protocol": event.protocol, "data": event.dataset}.items():
                self.client.log_param(self.id, key, str(value)[:500])

        def write(self, numbers: Mapping[str, float], epoch: int) -> None:
            for name, value in numbers.items():
                self.client.log_metric(self.id, re.sub("[^A-Za-z0-9_. /-]", "_at_", name), value, step=epoch)

        def close(self) -> None:
            self.client.set_terminated(self.id)

    return Tracker("MLflow", Sink)


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in config.items():
        out |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return out


TRACKERS: dict[str, Callable[[Path], Tracker]] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
