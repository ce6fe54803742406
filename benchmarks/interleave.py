"""Interleaved timing: native and its peers take turns in one process, so what else the machine does hits all alike."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ceilings import Floor, measured
from pytest_benchmark.fixture import BenchmarkFixture

WARM_UP, LEAST_ROUNDS, MOST_ROUNDS = 4, 5, 300


class Setting(NamedTuple):
    """What a case is made under: `shrink` divides its counts (smoke pass), `folder` is its own, for files."""

    shrink: int
    threads: int
    folder: Path


@dataclass(frozen=True)
class Contender:
    """One implementation.

    run: does the work once; what it returns is dropped after the clock has stopped.
    context: held while it runs; entering and leaving is not timed.
    settle: run it once, untimed, after entering: for a context that takes effect from the second run on.
    rounds: take part in so many rounds only, and warm up with none of them: for work of many seconds.
    """

    run: Callable[[], Any]
    context: Callable[[], AbstractContextManager] = nullcontext
    settle: bool = False
    rounds: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Ours, the peers by name (None: not installed here, skipped by name), and the floor of the work."""

    native: Contender
    peers: dict[str, Contender | None]
    floor: Floor


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


def compare(case: Case, setting: Setting, benchmark: BenchmarkFixture, budget: float) -> dict[str, Any] | None:
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
                times[name].append(turns.seconds(peer))
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
    floor_ms, bound = comparison.floor.milliseconds(measured())
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
    return benchmark.extra_info


def spread(seconds: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(seconds, [25, 50, 75])
    return {"median_s": float(median), "iqr_s": float(high - low), "rounds": len(seconds)}
