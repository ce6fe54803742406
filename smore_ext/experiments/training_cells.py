"""Cells are trained: many in one process after another, as each is short, and so many processes side by side."""

from __future__ import annotations

import json
import math
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch

from smore_ext import runs
from smore_ext.data import Dataset, SyntheticConfig, SyntheticTruth, generate
from smore_ext.experiments import content
from smore_ext.experiments.cells import Cell, Data, Record, Records, write_record
from smore_ext.experiments.jobs import processes
from smore_ext.experiments.measured import ERRORS
from smore_ext.experiments.probes import Trained
from smore_ext.settings.config import RunConfig, without_places
from smore_ext.training.device import deterministic
from smore_ext.training.events import EpochDone, Event
from smore_ext.training.loop import Trainer, make_evaluator


def open_data(data: Data, folder: Path | None) -> tuple[Dataset, SyntheticTruth | None]:
    """The data set of a cell, and what was planted in the built-in one. `folder`: where those of files are."""
    dataset, truth = _source(data.source, json.dumps(data.options, sort_keys=True), folder)
    for change in data.changes:
        dataset = content.apply(dataset, change)
    return dataset, truth


@lru_cache(maxsize=4)
def _source(source: str, options: str, folder: Path | None) -> tuple[Dataset, SyntheticTruth | None]:
    if source == "synthetic":
        return generate(SyntheticConfig(**json.loads(options)))
    return runs.open_dataset(without_places(runs.resolve({"dataset": source, "data_path": folder}))), None


def settings_of(cell: Cell) -> RunConfig:
    """Settings of a cell's run. Nothing is kept between runs: what a run has by default to that end is left out."""
    return without_places(runs.resolve({"model": cell.model, "seed": cell.seed, **cell.settings}))


def train_cell(cell: Cell, folder: Path | None = None, device: str = "cpu") -> Record:
    """Trains on a device; evaluates on test with the weights of the best epoch, and asks the probes, on the CPU."""
    begin = time.monotonic()
    dataset, truth = open_data(cell.data, folder)
    config = settings_of(cell)
    epochs: list[dict[str, Any]] = []

    def keep(event: Event) -> None:
        if isinstance(event, EpochDone):
            epochs.append(event.record)

    with tempfile.TemporaryDirectory() as place:
        trainer = Trainer(config.replace(device=device), dataset, runs.RunFolder(Path(place) / "run"), [keep])
        result = trainer.run()
        trainer.model.zero_grad()  # a feature table's gradient would be formed to be moved
        trainer.model.to("cpu")
        with deterministic():
            _, values = make_evaluator(config.train, dataset, config.train.protocol).of_users(trainer.model, "test")
    wanted = (config.train.selection, "ndcg@20")
    record = Record(
        values={name: values[name].numpy() for name in wanted},
        validation=[epoch["validation"][config.train.selection] for epoch in epochs],
        bpr=[epoch["loss"]["bpr"] for epoch in epochs if "bpr" in epoch["loss"]],
        best_epoch=result["best_epoch"],
        seconds=result["seconds"]["training"] / max(1, len(epochs) * trainer.n_steps),
    )
    for name in cell.probes:
        with deterministic():
            for figure, value in resolve_name(name)(Trained(trainer.model, dataset, truth, config)).items():
                if isinstance(value, np.ndarray):
                    record.arrays[figure] = value
                else:
                    record.figures[figure] = float(value)
    seconds = time.monotonic() - begin
    where = {"processor": _processor(), **({} if device == "cpu" else {"device": device})}
    record.made.update(commit=_commit(), torch=torch.__version__, seconds=seconds, **where)
    return record


def training_seconds(records: Records, cells: Iterable[Cell], folder: Path | None = None) -> float:
    """What training took in all runs: the mean time of a step, as often as there were steps."""
    total = 0.0
    for cell in {cell.key: cell for cell in cells}.values():
        pairs = len(open_data(Data(cell.data.source, cell.data.options), folder)[0].train.users)
        steps = math.ceil(pairs / settings_of(cell).train.batch_size)
        total += records[cell].seconds * len(records[cell].validation) * steps
    return total


@lru_cache(maxsize=1)
def _commit() -> str:
    """Of the package's source, where it is in a git tree."""
    git = Path(__file__).parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head[:7]
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text(encoding="ascii").strip()[:7]
        packed = (git / "packed-refs").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return "unknown"
    return next((line[:7] for line in packed if line.endswith(f" {name}")), "unknown")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def train_cells(
    cells: Sequence[Cell], files: Mapping[str, Path], jobs: int, folder: Path | None = None, device: str = "cpu"
) -> Iterator[tuple[Cell, str | None]]:
    """Trains cells, each to its file by key, and yields them as they end with what went wrong, None if nothing.

    Args:
        jobs: processes, of one thread each.
        folder: where data sets of files are.
        device: where models are trained; several runs share a GPU.
    """
    pool = ProcessPoolExecutor(jobs, processes(device), initializer=torch.set_num_threads, initargs=(1,))
    left = list(reversed(cells))
    running: dict[Future[str | None], Cell] = {}
    try:
        while left or running:
            while left and len(running) < jobs:
                cell = left.pop()
                running[pool.submit(_work, cell, files[cell.key], folder, device)] = cell
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(done)
                try:
                    yield cell, done.result()
                except BrokenProcessPool:  # all that ran are lost with it; the caller may start again
                    yield cell, "its process died"
                    return
    finally:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _work(cell: Cell, file: Path, folder: Path | None, device: str) -> str | None:
    try:
        write_record(file, cell, train_cell(cell, folder, device))
    except KeyboardInterrupt:
        return "interrupted"
    except ERRORS as error:
        return " ".join((str(error) or type(error).__name__).split())
    return None
