"""Processes side by side: so many at a time, and fewer while memory would not do for one more."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

from smore_ext.threads import usable_cores

Name = TypeVar("Name")
SPARE = 1 << 28  # bytes that stay free
CONTEXT = 1 << 29  # of a GPU: what a process takes beside its tensors


@dataclass(frozen=True)
class Job(Generic[Name]):
    """A function to call in a process, `target(*arguments, told)`: it sends None when done, else what went wrong."""

    name: Name
    target: Callable[..., None]
    arguments: tuple[Any, ...]


def run_jobs(
    jobs: Sequence[Job[Name]], at_once: int, need: Callable[[Name], int], free: Callable[[], int | None]
) -> Iterator[tuple[Name, str | None]]:
    """Runs the jobs in order and yields each with its outcome as it ends: None, or what went wrong.

    Args:
        at_once: processes at a time.
        need: bytes that a job is thought to need, 0 if nothing is known: then it waits for none.
        free: bytes that are available, None if nobody knows. One job always runs.

    Processes that run when the caller stops (an exception, Ctrl-C) are ended.
    """
    waiting, running = list(jobs), dict[Any, tuple[Name, BaseProcess]]()  # by the connection that a job tells through
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads and our caches
    try:
        while waiting or running:
            while waiting and len(running) < at_once and (not running or _fits(need(waiting[0].name), free())):
                job = waiting.pop(0)
                told, tells = context.Pipe(duplex=False)
                process = context.Process(target=job.target, args=(*job.arguments, tells))
                process.start()
                tells.close()
                running[told] = job.name, process
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
