"""The seeds of a run side by side, each in a process of its own.

The folder is that of seeds trained one after the other, and with the same number of threads so are the numbers: a seed
does not know of the others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from smore_ext import runs
from smore_ext.data import Dataset
from smore_ext.experiments.jobs import Job, available_memory, run_jobs, share_of_cores, taken_of
from smore_ext.experiments.measured import peak_bytes, telling
from smore_ext.runs.config_files import write_config
from smore_ext.runs.folder import check_new
from smore_ext.runs.lock import locked
from smore_ext.runs.records import write_ids
from smore_ext.settings.config import RunConfig
from smore_ext.training.loop import check_data


class SeedsFailed(RuntimeError):
    """Seeds that did not come to an end, and why; what they and the others have written is kept."""


def train_seeds(
    config: RunConfig,
    dataset: Dataset,
    run_dir: Path,
    jobs: int,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """`runs.train` with `jobs` of the `seeds` at a time. Without `threads` they share the cores equally.

    The first ones begin at once; once a seed has ended, its peak of memory says whether another one fits. What listens
    to a run (a progress bar) is not told; trackers are.

    Args:
        tell: called with a line as each seed ends.

    Raises:
        SeedsFailed: names the seeds that failed. Going on with `resume` trains these alone.
        ValueError: no seed could begin.
        RunInUse, FileExistsError: as `runs.train`.
    """
    folder, device = runs.RunFolder(run_dir), config.train.device
    threads = config.train.threads or share_of_cores(jobs)
    peaks, failed = dict[int, int](), dict[int, str]()
    with locked(run_dir), tempfile.TemporaryDirectory() as place, _described(folder, config, dataset, resume):
        work = []
        for seed in config.train.seeds:
            one = folder.seed(seed)
            if (result := runs.finished(one.path, config.replace(seed=seed, seeds=()))) is not None:
                check_data(result["data"]["fingerprint"], dataset, str(one.result))
            else:
                work.append(Job(seed, _train, (config.to_dict(), config.sources, run_dir, seed, threads, Path(place))))

        def need(_: int) -> int:
            return taken_of(device, max(peaks.values(), default=0))

        free = partial(available_memory, device)
        for seed, wrong in run_jobs(work, jobs, need, free, alone=device != "cpu"):
            if wrong is None:
                peaks[seed] = int((Path(place) / str(seed)).read_text())
                result, metric = runs.read_result(folder.seed(seed).result), config.train.selection
                tell(f"seed {seed}: best epoch {result['best_epoch']}, test {metric} {result['test'][metric]:.4f}")
            else:
                failed[seed] = wrong
                if folder.seeds():
                    tell(f"seed {seed}: {wrong}")
        if failed and not folder.seeds():
            raise ValueError(next(iter(failed.values())))
    if failed:
        raise SeedsFailed("; ".join(f"seed {seed}: {why}" for seed, why in failed.items()))
    return runs.train(config, dataset, run_dir, resume=True)  # all are finished: read, and put together


@contextmanager
def _described(folder: runs.RunFolder, config: RunConfig, dataset: Dataset, resume: bool) -> Iterator[None]:
    """The settings and raw ids of the whole in its folder; where it is new and no seed began, not afterwards."""
    if resume:
        yield
        return
    check_new(folder)
    write_config(folder, config)
    write_ids(folder.ids, dataset)
    try:
        yield
    finally:
        if not folder.seeds():
            for path in (folder.config, folder.ids):
                path.unlink(missing_ok=True)


def _train(
    config: Mapping[str, Any],
    sources: tuple[str, ...],
    run_dir: Path,
    seed: int,
    threads: int,
    peaks: Path,
    told: Connection,
) -> None:
    """The target of a process: one seed, and its peak of memory in a file."""
    with telling(told):
        settings = RunConfig.from_dict(config)
        whole = RunConfig(settings.train, settings.model, sources)
        runs.train_seed(whole, run_dir, seed, threads)
        (peaks / str(seed)).write_text(str(peak_bytes(whole.train.device)))
