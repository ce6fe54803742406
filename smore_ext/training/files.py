"""Files of a run: written so that a crash leaves the old one, read only if they are files."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` if the block succeeds; else `path` stays as it was.

    It is in a folder of its own, so that what a library writes beside it (safetensors does) is found and deleted too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    delete_temporary(path)
    folder = _temporary(path)
    temporary = folder / path.name
    try:
        with naming(path):
            folder.mkdir()
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # safetensors makes files that only their owner can read
            _sync(temporary)
            os.replace(temporary, path)
    except SafetensorError as error:
        if "I/O error" not in str(error):
            raise
        raise OSError(f"{path}: cannot be written: {error}") from error
    finally:
        delete_temporary(path)
    _sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk that names no file, as of a full one, names this."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def delete_temporary(path: Path) -> None:
    """Deletes what a killed process left of a `path` that it was writing."""
    if (folder := _temporary(path)).is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)  # versions before 0.2 made a file


def _temporary(path: Path) -> Path:
    """The folder in which `path` is written first: one name, whoever writes."""
    return path.with_name(f".{path.name}.tmp")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_regular(path: Path) -> None:
    """Raises `FileNotFoundError`, or another `OSError` that names what is no file, as a pipe that one would wait at."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a folder, expected a file")
    if not stat.S_ISREG(mode):
        raise OSError(f"{path} is a pipe, socket or device, expected a file")


def _sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
