"""SIGTERM as Ctrl-C: what stops a process says so in one way, and what is written at the end is written."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminated_as_interrupt(once: bool = False) -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt` as Ctrl-C does, so a stopped job says where its checkpoint is.

    With `once` both do so, and whatever comes after the first is ignored: who waits for this process sends a second.
    """

    def interrupt(*_: object) -> None:
        for name in names if once else ():
            signal.signal(name, lambda *_: None)  # not SIG_IGN: one that is pending would be told of on stderr
        raise KeyboardInterrupt

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a shell's background jobs have it
    names = (signal.SIGTERM, signal.SIGINT) if once and not ignored else (signal.SIGTERM,)
    try:
        before = [signal.signal(name, interrupt) for name in names]
    except ValueError:  # not the main thread: signals are not ours
        yield
        return
    try:
        yield
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
