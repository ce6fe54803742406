"""One process at a time writes into a run's folder: the second is refused, and told who holds it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

LOCK = ".lock"  # in the run's folder, while a process works there


class RunInUse(OSError):
    """Another process works in the run's folder."""


@contextmanager
def locked(folder: Path, keep_empty: bool | None = None) -> Iterator[None]:
    """Holds the folder, which is made if it is absent, and then deleted again if it is empty in the end.

    The lock is the system's (flock), on a file that names its holder: it ends with the process, however that ends, and
    the file that a killed one leaves is taken over. Raises `RunInUse` when another holds it. Where the file system
    has no locks a warning is logged, and nothing is held.

    Args:
        keep_empty: whether it stays if it is empty in the end; by default if it was there.
    """
    keep_empty = folder.exists() if keep_empty is None else keep_empty
    path = folder / LOCK
    handle = _acquire(path)
    try:
        _write_holder(handle)
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock ends: who opens the file later finds that it is another
        os.close(handle)
        if not keep_empty:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _acquire(path: Path) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # its last holder has deleted the empty folder
            continue
        try:
            _take(handle, path)
            if _is_at(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last holder deleted it meanwhile


def _take(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            logger.warning("%s cannot be locked (%s): nothing keeps other runs out of it", path.parent, error.strerror)
            return
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
        raise RunInUse(
            f"{path.parent} is in use by {holder}: wait until it is done, end it, or name another folder"
        ) from None


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _write_holder(handle: int) -> None:
    holder = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
    os.truncate(handle, 0)
    os.pwrite(handle, holder.encode(), 0)
