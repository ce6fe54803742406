"""What this machine can do at best, measured in the session, and the floor of a case that follows from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch

from benchmarks.device import CPU, synchronize
from smore_ext.training.device import matrix_products

DEVICE_CALLS = 10  # in a row on a GPU, so that launching them does not count
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
class DeviceCeilings(Ceilings):
    """Of a GPU: `sgemm_gflop_s` is in full float32."""

    tf32_gflop_s: float


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


def best_seconds(run: Callable[[], object], repeats: int, device: torch.device = CPU) -> float:
    """The shortest of some runs: a ceiling is what the machine can do when nothing disturbs it."""
    calls = DEVICE_CALLS if device.type == "cuda" else 1
    run()
    timed = replay(run, calls) if device.type == "cuda" else run
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        begin = time.perf_counter()
        timed()
        synchronize(device)
        seconds.append((time.perf_counter() - begin) / calls)
    return min(seconds)


def replay(run: Callable[[], object], calls: int) -> Callable[[], None]:
    """So many calls as one CUDA graph: launched one by one, a copy of 8 MB takes as long as its launch."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up outside of the capture
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            run()
    return graph.replay


def copy_rate(megabytes: int, repeats: int, device: torch.device = CPU) -> float:
    source = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / best_seconds(lambda: target.copy_(source), repeats, device) / 1e9


def read_rate(megabytes: int, repeats: int, device: torch.device = CPU) -> float:
    """The better of a sum and a matrix-vector product: both read each number once."""
    table, vector = torch.ones(megabytes << 8, 1024, device=device), torch.ones(1024, device=device)
    seconds = min(best_seconds(table.sum, repeats, device), best_seconds(lambda: table @ vector, repeats, device))
    return 4 * table.numel() / seconds / 1e9


def sgemm_rate(size: int, repeats: int, device: torch.device = CPU) -> float:
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    out = torch.empty(size, size, device=device)
    return 2 * size**3 / best_seconds(lambda: torch.mm(left, right, out=out), repeats, device) / 1e9


@lru_cache(maxsize=1)
def measured() -> Ceilings:
    """Measured at the first call, with torch's threads as they are then; about two seconds."""
    return Ceilings(copy_rate(256, 7), copy_rate(4, 200), read_rate(8, 200), sgemm_rate(2048, 7))


@lru_cache(maxsize=1)
def measured_on(device: torch.device, shrink: int = 1) -> DeviceCeilings:
    """The same of a GPU, measured at the first call. shrink: divides what is copied and multiplied (smoke form)."""
    size, copied, cached = 4096 // shrink, 1024 // shrink, 8
    with matrix_products(tf32=True):
        tf32 = sgemm_rate(size, 5, device)
    with matrix_products(tf32=False):
        rates = [copy_rate(copied, 5, device), copy_rate(cached, 10, device), read_rate(cached, 10, device)]
        return DeviceCeilings(*rates, sgemm_rate(size, 5, device), tf32)
