"""Processes side by side: so many at a time, and fewer while memory would not do for one more."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from smore_ext.threads import usable_cores

Name = TypeVar("Name")
SPARE = 1 << 28  # bytes that stay free
CONTEXT = 1 << 29  # of a GPU: what a process takes beside its tensors
# What trains, with torch; and what an optimizer loads at its first step, for more than a second.
LOADED = ("smore_ext.experiments.measured", "torch._dynamo")


@dataclass(frozen=True)
class Job(Generic[Name]):
    """A function to call in a process, `target(*arguments, told)`: it sends None when done, else what went wrong."""

    name: Name
    target: Callable[..., None]
    arguments: tuple[Any, ...]


def processes(device: str = "cpu") -> BaseContext:
    """How processes begin: forked from a server that has loaded torch and done nothing, as loading takes longer than
    many a job. A fork of this process would share torch's threads and our caches. Fresh where they use a GPU."""
    if sys.platform != "linux" or device != "cpu":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LOADED))
    return context


def in_environment(environment: Mapping[str, str], target: Callable[..., None], *arguments: Any) -> None:
    """Calls a target with the variables that its caller has: the server's are those of the program's first job."""
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def run_jobs(
    jobs: Iterable[Job[Name]],
    at_once: int,
    need: Callable[[Name], int],
    free: Callable[[], int | None],
    alone: bool = False,
) -> Iterator[tuple[Name, str | None]]:
    """Runs the jobs in order and yields each with its outcome as it ends: None, or what went wrong.

    Args:
        jobs: the next one is asked for when there is room for it.
        at_once: processes at a time.
        need: bytes that a job is thought to need, 0 if nothing is known: then it waits for none.
        free: bytes that are available, None if nobody knows. One job always runs.
        alone: begins each process as a program begins: where its memory is measured as a program's, and for a GPU,
            which a forked process cannot use if loading something asked for it.

    Processes that run when the caller stops (an exception, Ctrl-C) are ended.
    """
    waiting, running = iter(jobs), dict[Any, tuple[Name, BaseProcess]]()  # by the connection that a job tells through
    context = multiprocessing.get_context("spawn") if alone else processes()
    environment = dict(os.environ)
    job: Job[Name] | None = None
    try:
        while True:
            while len(running) < at_once and (job := job or next(waiting, None)) is not None:
                if running and not _fits(need(job.name), free()):
                    break
                told, tells = context.Pipe(duplex=False)
                arguments = (environment, job.target, *job.arguments, tells)
                process: BaseProcess = context.Process(target=in_environment, args=arguments)  # type: ignore[attr-defined]
                process.start()
                tells.close()
                running[told], job = (job.name, process), None
            if not running:
                return
            ready: list[Any] = wait(list(running))
            for told in ready:
                name, ended = running.pop(told)
                yield name, _outcome(told, ended)
    finally:
        for _, left in running.values():
            left.terminate()
            left.join()


def _outcome(told: Any, process: BaseProcess) -> str | None:
    try:
        outcome = told.recv()
    except EOFError:
        process.join()
        outcome = f"its process ended with exit code {process.exitcode}"
    process.join()
    told.close()
    return outcome


def _fits(need: int, free: int | None) -> bool:
    return free is None or need + SPARE <= free


def share_of_cores(jobs: int) -> int:
    """Threads of each of so many processes."""
    return max(1, usable_cores() // jobs)


def taken_of(device: str, peak: int) -> int:
    """Bytes that a process takes of a device where its tensors take `peak`."""
    return peak + (CONTEXT if device.startswith("cuda") else 0)


def available_memory(device: str = "cpu") -> int | None:
    """Bytes that a new process can have: of a GPU those that are free, else without swapping, as the kernel says. None
    where nobody knows."""
    if device.startswith("cuda"):
        import torch

        try:
            return torch.cuda.mem_get_info(device)[0]
        except (RuntimeError, AssertionError, ValueError):  # no such GPU: a run says so
            return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
