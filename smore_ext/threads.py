"""Threads of a command's process: how many, and how long one that waits spins. Decided before torch is loaded.

A thread that waits for others at the end of a parallel region spins, about a millisecond by libgomp's default. Where
other processes want the cores it so keeps from running the very thread that it waits for: with two other busy
processes on two cores a step takes many times what it should. And torch starts a thread for each core of the machine
also in a container that may use two of sixty-four. Commands therefore look at affinity and quota, and let a waiting
thread spin briefly; variables that the user has set stay. A program that imports the package decides for itself.
"""

import math
import os
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path

SPINS = 10_000  # some tens of microseconds: longer than between two regions of a step, shorter than others' turns
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_GROUP = Path("/sys/fs/cgroup")


def is_command(words: Sequence[str]) -> bool:
    """Whether the interpreter, started with these words (`sys.orig_argv`), runs a command of this package."""
    rest = iter(words[1:])
    for option in rest:
        if option == "-m":
            module = next(rest, "")
            return module == "smore_ext" or module.startswith("smore_ext.")
        if option in ("-W", "-X"):
            next(rest, None)  # its value
        elif not option.startswith("-"):
            return Path(option).name == "smore"
        elif option == "-c":
            return False
    return False


def quota(group: Path = _GROUP) -> float | None:
    """Cores that the control group of this process may keep busy, None for as many as there are."""
    try:
        allowed, period = (group / "cpu.max").read_text().split()  # version 2
    except (OSError, ValueError):
        try:
            allowed, period = ((group / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return None if allowed == "max" or int(allowed) <= 0 else int(allowed) / int(period)
    except (ValueError, ZeroDivisionError):
        return None


def usable_cores(group: Path = _GROUP) -> int:
    """Cores that this process may run on and has time for."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = quota(group)
    return there if limit is None else max(1, min(there, math.floor(limit)))


def prepare(environment: MutableMapping[str, str] = os.environ, group: Path = _GROUP) -> None:
    """Sets what OpenMP reads when it is loaded, but for what is set already."""
    if "OMP_NUM_THREADS" not in environment and quota(group) is not None:
        environment["OMP_NUM_THREADS"] = str(usable_cores(group))
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = str(SPINS)


def busy_elsewhere(seconds: float = 0.2) -> float | None:
    """Cores that other processes keep busy now, None where the system does not tell."""
    before = _times()
    own = time.process_time()
    time.sleep(seconds)
    after = _times()
    if before is None or after is None:
        return None
    busy = (after - before) / os.sysconf("SC_CLK_TCK") - (time.process_time() - own)
    return max(0.0, busy / seconds)


def _times() -> int | None:
    """Ticks that all cores were busy since the start, whoever for."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return None
    user, nice, system, _, _, irq, soft_irq, *_ = map(int, fields)
    return user + nice + system + irq + soft_irq
