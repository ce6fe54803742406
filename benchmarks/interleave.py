"""Interleaved timing: native and its peers take turns in one process, so what else the machine does hits all alike."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.ceilings import Ceilings, Floor, measured
from benchmarks.device import CPU, peak_mb, synchronize

WARM_UP, LEAST_ROUNDS, MOST_ROUNDS = 4, 5, 300
WARM_CALLS, MOST_CALLS, SECONDS_A_MEASUREMENT = 5, 100, 3e-3  # on a GPU


class Setting(NamedTuple):
    """What a case is made under: `shrink` divides its counts (smoke pass), `folder` is its own, for files."""

    shrink: int
    threads: int
    folder: Path
    device: torch.device = CPU


@dataclass(frozen=True)
class Contender:
    """One implementation.

    run: does the work once; what it returns is dropped after the clock has stopped.
    context: held while it runs; entering and leaving is not timed.
    settle: run it once, untimed, after entering: for a context that takes effect from the second run on.
    rounds: take part in so many rounds only, and warm up with none of them: for work of many seconds.
    calls: run does the work so many times (`queued`); times are those of one.
    peak_mb: memory that the work takes on a GPU.
    """

    run: Callable[[], Any]
    context: Callable[[], AbstractContextManager] = nullcontext
    settle: bool = False
    rounds: int | None = None
    calls: int = 1
    peak_mb: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Ours, the peers by name (None: not installed here, skipped by name), and the floor of the work.

    notes: by a peer's name, what it was in this run where that depends on the run.
    """

    native: Contender
    peers: dict[str, Contender | None]
    floor: Floor
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A line of the results: `row` is the line of the target table it belongs to, `size` tells it from the others."""

    row: str
    size: str
    make: Callable[[Setting], Comparison]
    quick: bool = False

    def __str__(self) -> str:
        return re.sub(r"\W+", "-", f"{self.row} {self.size}".replace(",", ""))  # an id that -k can name


class Turns:
    """Runs contenders one at a time. Results live until the next one starts, for all alike."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._result: Any = None

    def enter(self, contender: Contender) -> None:
        self.leave()
        self._stack.enter_context(contender.context())
        if contender.settle:
            contender.run()

    def leave(self) -> None:
        self._result = None
        self._stack.close()

    def keep(self, run: Callable[[], Any]) -> None:
        self._result = run()

    def seconds(self, contender: Contender) -> float:
        self.enter(contender)
        begin = time.perf_counter()
        self.keep(contender.run)
        return time.perf_counter() - begin


def queued(contender: Contender, device: torch.device) -> Contender:
    """The contender as it is measured on a GPU: several calls in a row, then a wait for the device.

    The host launches ahead of the device, as it does in real use. So launching counts where it is what limits, and the
    wait is shared by all calls. It warms up here, for compilers, plans and captured graphs.
    """

    @contextmanager
    def idle() -> Iterator[None]:
        with contender.context():
            synchronize(device)  # nothing that was launched before may run into the measurement
            yield

    with idle():
        for _ in range(WARM_CALLS):
            contender.run()
        synchronize(device)
        begin = time.perf_counter()
        contender.run()
        synchronize(device)
        calls = min(math.ceil(SECONDS_A_MEASUREMENT / (time.perf_counter() - begin)), MOST_CALLS)
        peak = peak_mb(contender.run, device)

    def run() -> Any:
        for _ in range(calls):
            result = contender.run()
        synchronize(device)
        return result

    return replace(contender, run=run, context=idle, calls=calls, peak_mb=peak)


def planned_rounds(contenders: Sequence[Contender], turns: Turns, budget: float) -> int:
    """How many rounds fill the budget, from a warm-up of those that are not limited; the first of them is native."""
    limits = [c.rounds for c in contenders if c.rounds is not None]
    if contenders[0].rounds is not None:
        return max(limits)
    warm = [c for c in contenders if c.rounds is None]
    begin = time.perf_counter()
    tries: list[float] = []
    while not tries or (len(tries) < WARM_UP and time.perf_counter() - begin < budget / 4):
        tries.append(sum(turns.seconds(contender) * (1 + contender.settle) for contender in warm))
    # The shortest: the first run of each still makes what is made once, and a disturbed one says nothing.
    return max(LEAST_ROUNDS, *limits, min(MOST_ROUNDS, int(budget / min(tries))))


def compare(
    case: Case,
    setting: Setting,
    benchmark: BenchmarkFixture,
    budget: float,
    ceilings: Callable[[], Ceilings] = measured,
) -> dict[str, Any] | None:
    """Times a case and leaves its results in `benchmark.extra_info`, which is returned; None where timing is off.

    Each round runs every peer once, then native, which pytest-benchmark times. The number of rounds fills `budget`
    seconds. With timing off every contender runs once.
    """
    comparison = case.make(setting)
    native = comparison.native
    peers = {name: peer for name, peer in comparison.peers.items() if peer is not None}
    times: dict[str, list[float]] = {name: [] for name in peers}
    turns, rounds = Turns(), 1

    def peers_turn() -> None:
        for name, peer in peers.items():
            if peer.rounds is None or len(times[name]) < peer.rounds:
                times[name].append(turns.seconds(peer) / peer.calls)
        turns.enter(native)

    if not benchmark.disabled:
        rounds = planned_rounds([native, *peers.values()], turns, budget)
    benchmark.group = case.row
    try:
        benchmark.pedantic(lambda: turns.keep(native.run), setup=peers_turn, rounds=rounds, iterations=1)
    finally:
        turns.leave()
    if benchmark.disabled:
        return None
    floor_ms, bound = comparison.floor.milliseconds(ceilings())
    benchmark.extra_info |= {
        "row": case.row,
        "case": case.size,
        "floor": {
            "bytes": comparison.floor.bytes,
            "gathered": comparison.floor.gathered,
            "flops": comparison.floor.flops,
            "ms": floor_ms,
            "bound": bound,
        },
        "peers": {name: spread(seconds) for name, seconds in times.items()},
        "skipped": [name for name, peer in comparison.peers.items() if peer is None],
    }
    peaks = {name: c.peak_mb for name, c in {"native": native, **peers}.items() if c.peak_mb is not None}
    # Said only where there is something to say: the results of a CPU have none of it.
    further = {"calls": native.calls if native.calls > 1 else None, "peak_mb": peaks, "notes": dict(comparison.notes)}
    benchmark.extra_info |= {key: value for key, value in further.items() if value}
    return benchmark.extra_info


def spread(seconds: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {"median_s": float(median), "iqr_s": float(high - low), "rounds": len(seconds)}
