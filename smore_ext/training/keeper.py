"""Checkpoints by time: what an epoch leaves is copied, and files are written beside training, no oftener than pays.

What is newer than the files is in memory; `close` writes it, at the end and when a run is interrupted. A killed
process loses the epochs since the last write, which resuming repeats bit for bit. The best weights are written before
the last, so the last checkpoint never names a best epoch that its folder lacks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smore_ext.training import checkpoint
from smore_ext.training.store import Store

SHARE = 0.02  # of a run's time that writing may take where no setting says how often


class Snapshot(NamedTuple):
    """What a checkpoint is made of; the tensors may be those of a model that trains on."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


class _Copy:
    """A snapshot in memory of its own, which is used again."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}
        self.metadata: dict[str, Any] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, snapshot: Snapshot) -> None:
        memory = {}
        for name, tensor in snapshot.tensors.items():
            tensor, own = tensor.detach(), self._memory.get(name)
            fits = own is not None and (own.shape, own.dtype, own.device) == (tensor.shape, tensor.dtype, tensor.device)
            memory[name] = own.copy_(tensor) if fits and own is not None else tensor.clone()
        self._memory, self.metadata = memory, snapshot.metadata
        if any(tensor.is_cuda for tensor in memory.values()):
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> Snapshot:
        """In any thread."""
        if self._copied is not None:
            self._copied.synchronize()
        return Snapshot(self._memory, self.metadata)


class _Handed:
    """What a thread writes while training goes on. Whoever needs it written calls it too: that waits for the thread, or
    writes in its stead where it never began, as an interrupt may come before a thread starts, and on the way."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write, self._lock = write, threading.Lock()
        self.done = False
        self.error: BaseException | None = None

    def __call__(self) -> None:
        with self._lock:
            if self.done:
                return
            try:
                self._write()
            except BaseException as error:  # told by the thread that trains
                self.error = error
            self.done = True


class Keeper:
    """Writes the two checkpoints of a run.

    Args:
        store: where they go.
        seconds: least time between two writes; 0: every time, before the run goes on; None: as much as keeps writing
            below `SHARE` of the time.
    """

    def __init__(self, store: Store, seconds: float | None) -> None:
        self.store, self.seconds = store, seconds
        self.waited = 0.0  # seconds that the run spent in here
        self._last, self._best = _Copy(), _Copy()
        self._newer_last = self._newer_best = False  # than the files
        self._spare: list[tuple[_Copy, _Copy]] = [(_Copy(), _Copy())]  # while the others are written
        self._handed: _Handed | None = None
        self._next = 0.0  # when the next write may begin

    def keep(self, last: Snapshot, best: Snapshot | None, *, write: bool, now: bool = False) -> None:
        """What an epoch leaves; `best` where it is the best so far.

        write: whether files may be written; now: they are, before this returns, as nothing follows.

        Raises what writing raised, here or beside the epochs since.
        """
        begin = time.monotonic()
        try:
            self._keep(last, best, write, now)
        finally:
            self.waited += time.monotonic() - begin

    def _keep(self, last: Snapshot, best: Snapshot | None, write: bool, now: bool) -> None:
        if now or (write and self.seconds == 0):
            self._join()
            begin = time.monotonic()
            self._write(last, best or (self._best.read() if self._newer_best else None))
            self._newer_last = self._newer_best = False
            self._wrote(begin)
            return
        writing = self._handed is not None and not self._handed.done
        if not writing:
            self._join()
        begin = time.monotonic()
        if best is not None:
            # Interrupted on the way, neither counts: a last checkpoint must not name a best one that is half a copy.
            self._newer_last = self._newer_best = False
            self._best.take(best)
            self._newer_best = True
        self._newer_last = False
        self._last.take(last)
        self._newer_last = True
        if write and not writing and begin >= self._next and self.seconds != 0:
            self._begin(begin)

    def close(self) -> None:
        """Writes what is newer than the files."""
        begin = time.monotonic()
        try:
            self._close()
        finally:
            self.waited += time.monotonic() - begin

    def _close(self) -> None:
        self._join()
        if self._newer_best or self._newer_last:
            last, best = (self._last if self._newer_last else None), (self._best if self._newer_best else None)
            self._write(last and last.read(), best and best.read())
            self._newer_last = self._newer_best = False

    def _begin(self, begin: float) -> None:
        last, best = self._last, self._best if self._newer_best else None
        used = self._last, self._best

        def write() -> None:
            try:
                self._write(last.read(), best and best.read())
            finally:
                self._spare.append(used)
                self._wrote(begin)

        self._handed = _Handed(write)  # from here on `close` sees to it
        self._last, self._best = self._spare.pop()
        self._newer_last = self._newer_best = False
        threading.Thread(target=self._handed, name="smore_ext checkpoint").start()

    def _join(self) -> None:
        if self._handed is None:
            return
        self._handed()
        error, self._handed = self._handed.error, None
        if error is not None:
            raise error

    def _write(self, last: Snapshot | None, best: Snapshot | None) -> None:
        if best is not None:
            checkpoint.save(self.store.best, *best)
        if last is not None:
            checkpoint.save(self.store.last, *last)

    def _wrote(self, begin: float) -> None:
        end = time.monotonic()
        self._next = end + ((end - begin) / SHARE if self.seconds is None else self.seconds)
