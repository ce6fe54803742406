"""A run's folder: what its files are called, which folder a new run gets, and what is deleted for it.

It holds `config.yaml` (all settings; usable as `--config`), two checkpoints, `metrics.jsonl` (one line an epoch),
`result.json`, and for data with raw ids `ids.json`. The folder of a run of several seeds holds `config.yaml`, the
summary `result.json`, and one such folder a seed, `seed-<n>`. No other file knows these names.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smore_ext.models.registry import short_name
from smore_ext.settings.config import RunConfig
from smore_ext.training.files import delete_temporary

CONFIG, METRICS, RESULT = "config.yaml", "metrics.jsonl", "result.json"
LAST, BEST = "last.safetensors", "best.safetensors"
IDS = "ids.json"
TENSORBOARD, WANDB, MLFLOW, SEED = "tensorboard", "wandb", "mlflow.db", "seed-"
RESULTS = (LAST, BEST, METRICS, RESULT)  # what says that a run has been here
FILES = (CONFIG, *RESULTS, IDS, MLFLOW)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def last(self) -> Path:
        return self.path / LAST

    @property
    def best(self) -> Path:
        return self.path / BEST

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def result(self) -> Path:
        return self.path / RESULT

    @property
    def ids(self) -> Path:
        return self.path / IDS

    @property
    def tensorboard(self) -> Path:
        return self.path / TENSORBOARD

    @property
    def mlflow(self) -> Path:
        return self.path / MLFLOW

    def seed(self, seed: int) -> RunFolder:
        """The folder of one seed of several."""
        return RunFolder(self.path / f"{SEED}{seed}")

    def seeds(self) -> list[RunFolder]:
        """The folders of seeds that are there, by number."""
        found = {path.name.removeprefix(SEED): path for path in self.path.glob(f"{SEED}*") if path.is_dir()}
        return [RunFolder(found[number]) for number in sorted(filter(str.isdigit, found), key=int)]

    def last_checkpoints(self) -> list[Path]:
        """Last checkpoints of the run or of its seeds, those that are there."""
        return [folder.last for folder in (self, *self.seeds()) if folder.last.is_file()]

    def results(self) -> list[str]:
        """Names of what a run has left here."""
        there = [name for name in RESULTS if (self.path / name).exists()]
        return sorted([*there, *(folder.path.name for folder in self.seeds() if folder.results())])

    def delete(self) -> None:
        """Deletes the files that runs write, and nothing else that may be in the folder."""
        for name in FILES:  # in this order: without settings nothing is resumed: half of a run least of all
            (self.path / name).unlink(missing_ok=True)
        self.delete_temporary()
        for name in (TENSORBOARD, WANDB):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for folder in self.seeds():
            folder.delete()
            with suppress(OSError):  # not empty
                folder.path.rmdir()

    def delete_temporary(self) -> None:
        """Deletes what a killed process was writing."""
        for name in (CONFIG, *RESULTS, IDS):
            delete_temporary(self.path / name)

    def lost(self) -> str | None:
        """What a run has left that was begun, though its last checkpoint is gone; None when nothing is amiss."""
        if self.last.exists():
            return None
        left = [path.name for path in (self.best, self.result) if path.exists()]
        if self.metrics.exists() and self.metrics.stat().st_size:
            left.append(self.metrics.name)
        return ", ".join(left) or None


def new_run_dir(config: RunConfig, overwrite: bool = False) -> Path:
    """Where a new run goes. Raises `FileExistsError` when a run is there already and `overwrite` is false.

    Nothing is deleted here: `train` does it, with `overwrite`, once the new run is known to start.
    """
    cfg = config.train
    if cfg.output_dir is None:
        stem = Path("runs") / f"{short_name(cfg.model)}-{cfg.dataset}-{time.strftime('%Y%m%d-%H%M%S')}"
        run_dir, count = stem, 1
        while run_dir.exists():
            count += 1
            run_dir = stem.with_name(f"{stem.name}-{count}")
        return run_dir
    if not overwrite:
        check_new(RunFolder(cfg.output_dir))
    return cfg.output_dir


def check_output(path: Path) -> None:
    """Raises `FileExistsError` where a file that is written there would take the place of one of a run's, or a folder
    is a run's."""
    if path.name in FILES and _is_run(path.parent):
        raise FileExistsError(f"{path} is a file of the run in {path.parent}: write to another one")


def check_output_folder(path: Path) -> None:
    """The same of a folder that several files are written to."""
    if _is_run(path):
        raise FileExistsError(f"{path} holds a run: write to another folder")


def _is_run(path: Path) -> bool:
    folder = RunFolder(path)
    return folder.config.exists() or bool(folder.results())


def check_new(folder: RunFolder) -> None:
    """Raises `FileExistsError` when a run is there."""
    if held := folder.results():
        raise FileExistsError(
            f"{folder.path} already holds a run ({', '.join(held)}): "
            f"go on with it by --resume {folder.path}, or delete it by --overwrite"
        )
