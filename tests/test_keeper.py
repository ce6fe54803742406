"""Checkpoints by time: copies, the thread that writes, and what is written when a run ends or is interrupted."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smore_ext.training import checkpoint, keeper
from smore_ext.training.keeper import SHARE, Keeper, Snapshot


@dataclass
class Files:
    """A store, and what was written where, in order."""

    path: Path
    written: list[tuple[str, float]]
    seconds: float = 1.0  # that a write takes
    allowed: threading.Event | None = None  # a write waits for it
    failing: bool = False

    @property
    def last(self) -> Path:
        return self.path / "last"

    @property
    def best(self) -> Path:
        return self.path / "best"

    def save(self, path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        if self.allowed is not None:
            assert self.allowed.wait(20)
        if self.failing:
            raise OSError("disk full")
        Clock.now += self.seconds
        assert (tensors["w"] == metadata["epoch"]).all(), "a file of two epochs"
        self.written.append((path.name, metadata["epoch"]))


class Clock:
    now = 0.0


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    made = Files(tmp_path, [])
    Clock.now = 0.0
    monkeypatch.setattr(keeper.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(checkpoint, "save", made.save)
    return made


WEIGHT = torch.zeros(1000)  # trained in place


def epoch(k: Keeper, n: int, best: bool = False, write: bool = True, now: bool = False, settle: bool = False) -> None:
    """An epoch of one second; `settle`: what is written beside it is done before its clock goes on."""
    WEIGHT.fill_(n)
    snapshot = Snapshot({"w": WEIGHT}, {"epoch": n})
    k.keep(snapshot, snapshot if best else None, write=write, now=now)
    if settle and k._handed is not None:
        k._handed()
    Clock.now += 1


def test_what_is_written_is_of_one_epoch_though_training_goes_on(files: Files) -> None:
    files.allowed = threading.Event()
    k = Keeper(files, 0.5)
    for n in range(1, 6):
        epoch(k, n, best=n % 2 == 1)
    assert not files.written
    files.allowed.set()
    k.close()
    assert files.written == [("best", 1), ("last", 1), ("best", 5), ("last", 5)]


def test_zero_seconds_writes_before_the_next_epoch_and_copies_nothing(files: Files) -> None:
    k = Keeper(files, 0)
    for n in range(1, 4):
        epoch(k, n, best=n == 2)
        assert files.written[-1] == ("last", n)
    assert ("best", 2) in files.written and not k._last._memory
    k.close()
    assert len(files.written) == 4


def test_seconds_between_writes(files: Files) -> None:
    k = Keeper(files, 10)
    for n in range(1, 31):
        epoch(k, n, settle=True)
    assert [n for _, n in files.written] == [1, 11, 21]


def test_by_default_writing_takes_a_small_share(files: Files) -> None:
    k = Keeper(files, None)
    for n in range(1, 1001):
        epoch(k, n, best=n % 3 == 0, settle=True)
    share = files.seconds * len(files.written) / Clock.now
    assert 0.8 * SHARE < share < 1.1 * SHARE


def test_epochs_between_writes(files: Files) -> None:
    k = Keeper(files, 0)
    for n in range(1, 8):
        epoch(k, n, best=n == 4, write=n % 3 == 0)
    assert files.written == [("last", 3), ("best", 4), ("last", 6)]
    k.close()
    assert files.written[-1] == ("last", 7)


def test_the_best_is_there_before_the_last_names_it(files: Files) -> None:
    k = Keeper(files, None)
    epoch(k, 1, best=True, now=True)
    epoch(k, 2, best=True)  # not due
    epoch(k, 3)
    assert files.written == [("best", 1), ("last", 1)]
    epoch(k, 4, now=True)
    assert files.written[2:] == [("best", 2), ("last", 4)]
    k.close()
    assert len(files.written) == 4


def test_a_failed_write_is_told_at_the_next_epoch(files: Files) -> None:
    k = Keeper(files, 0.5)
    files.failing = True
    epoch(k, 1, best=True, settle=True)
    with pytest.raises(OSError, match="disk full"):
        epoch(k, 2)
    files.failing = False
    k.close()


@pytest.mark.parametrize("which", ["best", "last"])
def test_interrupted_while_it_copies(files: Files, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    k = Keeper(files, None)
    epoch(k, 1, best=True, now=True)
    epoch(k, 2, best=True)
    copy = k._best if which == "best" else k._last
    whole = type(copy).take

    def interrupted(self: Any, snapshot: Snapshot) -> None:
        if self is copy:
            self._memory["w"][:500] = snapshot.tensors["w"][:500]
            raise KeyboardInterrupt
        whole(self, snapshot)

    monkeypatch.setattr(type(copy), "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        epoch(k, 3, best=True)
    k.close()
    newer = [("best", 3)] if which == "last" else []  # newer than the last one: resuming allows it
    assert files.written == [("best", 1), ("last", 1), *newer]


@pytest.mark.parametrize("started", [False, True])
def test_interrupted_while_a_thread_begins(files: Files, monkeypatch: pytest.MonkeyPatch, started: bool) -> None:
    """Ctrl-C before the thread runs, and after it does but before `start` knows: what it was to write is written."""
    k, start = Keeper(files, seconds=0.5), threading.Thread.start
    epoch(k, 0, settle=True)

    def interrupted(thread: threading.Thread) -> None:
        if started:
            start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    Clock.now += 10
    with pytest.raises(KeyboardInterrupt):
        epoch(k, 1, best=True)
    k.close()
    assert files.written[-2:] == [("best", 1), ("last", 1)] and not k._newer_last
