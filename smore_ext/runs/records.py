"""What a run leaves behind besides checkpoints: its log, its result, TensorBoard's files; and how they are read back.

The reports are listeners of the loop's events.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smore_ext.runs.folder import RunFolder
from smore_ext.settings.fields import ConfigError
from smore_ext.training.checkpoint import write_text
from smore_ext.training.events import EpochDone, Event, RunFinished, RunStarted


class JsonReport:
    """`metrics.jsonl`, one line per epoch, and `result.json` in the run's directory.

    On resume the lines of epochs that the checkpoint does not know are cut off before the loop repeats them.
    """

    def __init__(self, run_dir: Path) -> None:
        folder = RunFolder(run_dir)
        self.metrics, self.result = folder.metrics, folder.result

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                lines = [line for line in self._lines() if json.loads(line)["epoch"] < event.first_epoch]
                write_text(self.metrics, "".join(f"{line}\n" for line in lines))
            case EpochDone():
                with self.metrics.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(event.record) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            case RunFinished():
                write_json(self.result, event.result)

    def _lines(self) -> Iterable[str]:
        """Whole lines only: a killed process may have left half of its last one."""
        if not self.metrics.is_file():
            return
        for line in self.metrics.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                yield line.rstrip("\n")


class TensorBoardReport:
    """Losses, validation metrics, rate and model statistics by epoch. `ImportError` without tensorboard."""

    def __init__(self, run_dir: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("tensorboard logs were asked for: pip install tensorboard") from None
        self._make, self._folder = SummaryWriter, RunFolder(run_dir).tensorboard
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._writer = self._make(str(self._folder), purge_step=event.first_epoch)
                self._writer.add_text("protocol", event.protocol, event.first_epoch)
            case EpochDone(record):
                for group in ("loss", "validation", "statistics"):
                    for name, value in record.get(group, {}).items():
                        self._writer.add_scalar(f"{group}/{name}", value, record["epoch"])
                self._writer.add_scalar("lr", record["lr"], record["epoch"])
                self._writer.flush()
            case RunFinished(_, result):
                for name, value in result["test"].items():
                    self._writer.add_scalar(f"test/{name}", value, result["best_epoch"])
                self._writer.close()


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON atomically; `ValueError` for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_result(path: Path) -> dict[str, Any]:
    """The content of a `result.json`; `ConfigError` that names the file when it is damaged."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, not UTF-8
        raise ConfigError(f"{path} is damaged: {error}; delete it to let --resume write it again") from None
    if not isinstance(result, dict) or not ("runs" in result or {"stopped", "epochs_run"} <= set(result)):
        raise ConfigError(f"{path} is damaged: expected the result of a run")
    return result
