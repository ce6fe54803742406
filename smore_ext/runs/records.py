"""What a run leaves behind besides checkpoints: its log and its result; and how they are read back.

The report is a listener of the loop's events.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from smore_ext.runs.folder import RunFolder
from smore_ext.settings.fields import ConfigError, read_as
from smore_ext.training import checkpoint
from smore_ext.training.events import EpochDone, Event, RunFinished, RunStarted
from smore_ext.training.files import check_regular, write_text
from smore_ext.training.metadata import About, DataOf


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
                lines = [line for line, epoch in logged(self.metrics) if epoch < event.first_epoch]
                write_text(self.metrics, "".join(f"{line}\n" for line in lines))
            case EpochDone():
                with self.metrics.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(event.record) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            case RunFinished():
                write_json(self.result, event.result)


def logged(path: Path) -> list[tuple[str, int]]:
    """Lines of a `metrics.jsonl`, each with its epoch; whole ones only, as a killed process may have left half of its
    last. Raises `ConfigError` that names the line that is damaged."""
    if not path.exists():
        return []
    check_regular(path)
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            found.append((line.decode().rstrip("\n"), read_as(_Line, json.loads(line)).epoch))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number} is damaged: {error}") from None
    return found


def missing_epochs(folder: RunFolder) -> list[str]:
    """Says what the log of a run lacks of the epochs that its last checkpoint knows."""
    if not folder.last.exists():
        return []
    trained = About.read(checkpoint.load_metadata(folder.last), folder.last).progress.next_epoch
    there = {epoch for _, epoch in logged(folder.metrics) if epoch < trained}
    if len(there) >= trained:
        return []
    return [
        f"{folder.metrics.name} was changed or deleted: it holds {len(there)} of the {trained} epochs before; weights "
        f"and results do not depend on it"
    ]


@dataclass(frozen=True)
class _Line:
    epoch: int


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON atomically; `ValueError` for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


class HasIds(Protocol):
    """A data set, or a served model."""

    @property
    def user_ids(self) -> tuple[str, ...] | None: ...

    @property
    def item_ids(self) -> tuple[str, ...] | None: ...


def write_ids(path: Path, of: HasIds) -> None:
    """A file of raw ids by number, where there are any: what stands for which row of the embeddings."""
    raw = {"users": of.user_ids, "items": of.item_ids}
    if any(ids is not None for ids in raw.values()):
        write_json(path, raw)


def read_result(path: Path) -> dict[str, Any]:
    """The content of a `result.json`; `ConfigError` that says what is wrong in it when it is damaged."""
    try:
        check_regular(path)
        result = json.loads(path.read_text(encoding="utf-8"))
        read_as(_SeedsResult if isinstance(result, dict) and "runs" in result else _Result, result)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, not a result
        raise ConfigError(f"{path} is damaged: {error}; delete it to let --resume write it again") from None
    return result


@dataclass(frozen=True)
class _Common:
    """What commands read of any result."""

    model: str
    dataset: str
    protocol: _Protocol
    selected_by: str
    seconds: _Seconds
    warnings: list[str]
    data: DataOf


@dataclass(frozen=True)
class _Result(_Common):
    seed: int
    best_epoch: int
    epochs_run: int
    stopped: str | None
    backend: str | None
    validation: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class _SeedsResult(_Common):
    seeds: list[int]
    validation: dict[str, _Spread]
    test: dict[str, _Spread]
    runs: list[_OneSeed]


@dataclass(frozen=True)
class _Protocol:
    name: Literal["mmrec", "strict"]


@dataclass(frozen=True)
class _Seconds:
    training: float
    evaluating: float


@dataclass(frozen=True)
class _Spread:
    mean: float
    std: float | None


@dataclass(frozen=True)
class _OneSeed:
    best_epoch: int
