"""The seeds of a run side by side, each in a process of its own, as far as memory allows.

The folder is that of seeds trained one after the other, and so are the numbers: a seed does not know of the others.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from smore_ext import runs
from smore_ext.data import Dataset
from smore_ext.experiments.jobs import Job, available_memory, run_jobs
from smore_ext.experiments.measured import peak_bytes, telling
from smore_ext.runs.config_files import write_config
from smore_ext.runs.folder import check_new
from smore_ext.runs.lock import locked
from smore_ext.runs.records import write_ids
from smore_ext.settings.config import RunConfig


class SeedsFailed(RuntimeError):
    """Seeds that did not come to an end, and why; the others are kept."""


def train_seeds(
    config: RunConfig,
    dataset: Dataset,
    run_dir: Path,
    jobs: int,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """`runs.train` with `jobs` of the `seeds` at a time. Without `threads` they share the cores equally.

    Args:
        tell: called with a line as each seed ends.

    Raises:
        SeedsFailed: names the seeds that failed. Going on with `resume` trains these alone.
        RunInUse, FileExistsError: as `runs.train`.
    """
    folder = runs.RunFolder(run_dir)
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    peaks, failed = dict[int, int](), dict[int, str]()
    with locked(run_dir), tempfile.TemporaryDirectory() as place:
        if not resume:
            check_new(folder)
        configs = {
            seed: config.replace(seed=seed, seeds=(), threads=config.train.threads or share)
            for seed in config.train.seeds
        }
        work = [
            Job(seed, _train, (one.to_dict(), one.sources, folder.seed(seed).path, Path(place) / str(seed)))
            for seed, one in configs.items()
            if runs.finished(folder.seed(seed).path, one) is None
        ]
        write_config(folder, config)
        write_ids(folder.ids, dataset)
        free = partial(available_memory, config.train.device)
        for seed, wrong in run_jobs(work, jobs, lambda _: max(peaks.values(), default=0), free):
            if wrong is None:
                peaks[seed] = int((Path(place) / str(seed)).read_text())
                result = runs.read_result(folder.seed(seed).result)
                metric = config.train.selection
                tell(f"seed {seed}: best epoch {result['best_epoch']}, test {metric} {result['test'][metric]:.4f}")
            else:
                failed[seed] = wrong
                tell(f"seed {seed}: {wrong}")
    if failed:
        raise SeedsFailed("; ".join(f"seed {seed}: {why}" for seed, why in failed.items()))
    return runs.train(config, dataset, run_dir, resume=True)  # all are finished: read, and put together


def _train(config: Mapping[str, Any], sources: tuple[str, ...], folder: Path, peak: Path, told: Connection) -> None:
    """The target of a process: one seed, gone on with where it was begun; its peak of memory in a file."""
    with telling(told):
        settings = RunConfig.from_dict(config)
        one = RunConfig(settings.train, settings.model, sources)
        runs.train(one, runs.dataset_of(folder, one), folder, resume=True)
        peak.write_text(str(peak_bytes(one.train.device)))
