"""What this machine can do at best, measured in the session, and the floor of a case that follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

IN_CACHE = 16 << 20  # bytes; a case that touches less is held against the in-cache copy rate


@dataclass(frozen=True)
class Ceilings:
    """Rates at the session's thread count. A copied byte counts twice: it is read and written."""

    copy_gb_s: float  # copy of 256 MB
    cached_copy_gb_s: float  # copy of 4 MB, again and again
    cached_read_gb_s: float  # reading 8 MB, again and again: what gathers from a small table can reach
    sgemm_gflop_s: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Floor:
    """What cannot be saved: `bytes` from and to memory, `gathered` bytes read from cache at least, `flops`.

    `touched` is what the working set holds (default: `bytes`): a small one stays in cache.
    """

    bytes: float = 0.0
    flops: float = 0.0
    gathered: float = 0.0
    touched: float | None = None

    def __add__(self, other: Floor) -> Floor:
        return Floor(
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.gathered + other.gathered,
            max(self.working_set, other.working_set),
        )

    def __mul__(self, times: float) -> Floor:
        return Floor(self.bytes * times, self.flops * times, self.gathered * times, self.working_set)

    @property
    def working_set(self) -> float:
        return self.bytes if self.touched is None else self.touched

    def milliseconds(self, ceilings: Ceilings) -> tuple[float, str]:
        """The largest of the three times, and which it is: they overlap at best."""
        copy = ceilings.cached_copy_gb_s if self.working_set <= IN_CACHE else ceilings.copy_gb_s
        times = {
            "bytes": self.bytes / copy / 1e6,
            "gathers": self.gathered / ceilings.cached_read_gb_s / 1e6,
            "flops": self.flops / ceilings.sgemm_gflop_s / 1e6,
        }
        bound = max(times, key=lambda name: times[name])
        return times[bound], bound


def best_seconds(run: Callable[[], object], repeats: int) -> float:
    """The shortest of some runs: a ceiling is what the machine can do when nothing disturbs it."""
    run()
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def copy_rate(megabytes: int, repeats: int) -> float:
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / best_seconds(lambda: target.copy_(source), repeats) / 1e9


def read_rate(megabytes: int, repeats: int) -> float:
    """The better of a sum and a matrix-vector product: both read each number once."""
    table, vector = torch.ones(megabytes << 8, 1024), torch.ones(1024)
    seconds = min(best_seconds(table.sum, repeats), best_seconds(lambda: table @ vector, repeats))
    return 4 * table.numel() / seconds / 1e9


def sgemm_rate(size: int, repeats: int) -> float:
    left, right = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    return 2 * size**3 / best_seconds(lambda: torch.mm(left, right, out=out), repeats) / 1e9


@lru_cache(maxsize=1)
def measured() -> Ceilings:
    """Measured at the first call, with torch's threads as they are then; about two seconds."""
    return Ceilings(copy_rate(256, 7), copy_rate(4, 200), read_rate(8, 200), sgemm_rate(2048, 7))
