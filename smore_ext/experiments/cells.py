"""What experiments are made of: a model trained once on one data set, named by what it is, and what was measured of it.

Cells are plain data. Two experiments that need the same one share it, and one that is finished in a folder is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smore_ext.training.files import replacing

VERSION = 1  # of what a cell measures: a greater number makes all of them anew


@dataclass(frozen=True)
class Data:
    """A data set and what is done to its content.

    Attributes:
        source: "synthetic", or the name of a data set's folder.
        options: of the built-in generator.
        changes: applied in order, each `{"kind": ..., argument: value}` (`smore_ext.experiments.content`).
    """

    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[Mapping[str, Any]] = ()

    def changed(self, kind: str, **arguments: Any) -> Data:
        return Data(self.source, self.options, (*self.changes, {"kind": kind, **arguments}))


@dataclass(frozen=True)
class Cell:
    """A model trained once.

    Attributes:
        data: what it is trained on.
        model: a registered name, or package.module:Class.
        settings: of the loop and the model, by name.
        seed: of the run.
        probes: what is measured beside quality, functions as module:name (`smore_ext.experiments.probes`).
    """

    data: Data
    model: str
    settings: Mapping[str, Any]
    seed: int
    probes: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The cell as JSON, the same for equal cells."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{VERSION} {self.text}".encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Record:
    """What was measured of a cell.

    Attributes:
        values: test metrics of each user with test items, `{"recall@20": [V]}`, users ascending.
        validation: recall@20 after each epoch.
        bpr: the ranking loss of each epoch, empty for models without one.
        best_epoch: from 0.
        seconds: of a training step, the mean.
        figures: of the probes.
        arrays: of the probes, where one number does not do.
        made: with what commit, torch and processor, and in how many seconds in all; empty where nobody wrote it down.
    """

    values: dict[str, NDArray[np.float64]]
    validation: list[float]
    bpr: list[float]
    best_epoch: int
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.values["recall@20"]


def write_record(file: Path, cell: Cell, record: Record) -> None:
    told = {name: getattr(record, name) for name in ("validation", "bpr", "best_epoch", "seconds", "figures", "made")}
    arrays: dict[str, Any] = {f"values {name}": each for name, each in record.values.items()}
    arrays |= {f"arrays {name}": each for name, each in record.arrays.items()}
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, cell=np.array(cell.text), told=np.array(json.dumps(told)), **arrays)


def read_record(file: Path) -> Record:
    with np.load(file, allow_pickle=False) as stored:
        told = json.loads(str(stored["told"]))
        values, arrays = (
            {name.removeprefix(kind): stored[name] for name in stored.files if name.startswith(kind)}
            for kind in ("values ", "arrays ")
        )
    return Record(values=values, arrays=arrays, **told)


class Records:
    """The records of a folder by cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cells"
        self._read: dict[str, Record] = {}

    def file(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key}.npz"

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those that are not there yet, each once."""
        return list({cell.key: cell for cell in cells if not self.file(cell).is_file()}.values())

    def __getitem__(self, cell: Cell) -> Record:
        if cell.key not in self._read:
            self._read[cell.key] = read_record(self.file(cell))
        return self._read[cell.key]
