"""Tensors kept on disk between runs, under a hash of everything that makes them.

The file name is that hash: another input is another file, so what is kept is never stale. A file that is damaged or
does not say what its name says is made again. Writing goes through a temporary file and a rename, so processes that
work at once never see half a file; at worst each makes the same. Temporary files of processes that were killed are
deleted by the next one that writes.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import platform
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from smore_ext.data.dataset import hash_tensor
from smore_ext.data.messages import listed

logger = logging.getLogger(__name__)
Made = TypeVar("Made")


def cache_folder(kind: str) -> str | None:
    """Where runs keep files of a kind unless they say otherwise: the user's cache folder; None for a user without."""
    root = user_cache()
    return None if root is None else str(root / "smore_ext" / kind)


def user_cache() -> Path | None:
    """The folder in which programs keep what they can make again, None for a user without a home."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(root) if root else Path.home() / ".cache"
    except RuntimeError:  # neither HOME nor an entry in the list of users, as in some containers
        return None


def place(folder: str | os.PathLike[str], kind: str, wanted: Mapping[str, str]) -> Path:
    """The file of what `wanted` describes."""
    key = hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()
    return Path(folder) / f"{kind}-{key[:40]}.safetensors"


def load(
    path: Path,
    wanted: Mapping[str, str],
    names: tuple[str, ...],
    make: Callable[[dict[str, Tensor]], Made],
    what: str,
    optional: tuple[str, ...] = (),
) -> Made | None:
    """What `make` makes of the tensors `names` in `path`, and of the `optional` ones that are there; None when there is
    no such file, or (with a warning) when it cannot be trusted: `make` raises too where they are not as they must be.
    """
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            found = dict(file.metadata() or {})
            there = sorted(file.keys())
            if sorted({*there} - {*optional}) != sorted(names):
                raise ValueError(f"expected the tensors {', '.join(names)}, got {listed(there)}")
            parts = {name: file.get_tensor(name) for name in there}
        content = found.pop("content_sha256", None)
        if found != wanted:
            differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
            raise ValueError(f"its {', '.join(differing)} differ from what its name stands for")
        if content != content_hash(parts):
            raise ValueError("its content does not match its checksum")
        return make(parts)
    except (SafetensorError, OSError, ValueError, RuntimeError, LookupError, TypeError, AssertionError) as error:
        logger.warning("%s: %s rebuilt, the cached file is not usable: %s", path, what, error)
        return None


def store(path: Path, parts: Mapping[str, Tensor], wanted: Mapping[str, str], what: str) -> None:
    """Keeps tensors of the CPU; where that fails, a warning says so."""
    payload = save(dict(parts), metadata=dict(wanted) | {"content_sha256": content_hash(parts)})
    kind = path.name.partition("-")[0]
    temporary = path.with_name(f".{writer(kind)}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent, kind)
        try:
            temporary.write_bytes(payload)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)  # gone after a rename that worked
    except OSError as error:
        logger.warning("%s: %s could not be cached: %s", path, what, error)


def content_hash(parts: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(parts):
        hash_tensor(digest, name, parts[name])
    return digest.hexdigest()


def writer(kind: str) -> str:
    """Begin of the names of this machine's temporary files: processes of another have numbers of their own."""
    return f"{kind}-{platform.node()}".replace(os.sep, "-")


def _clear(folder: Path, kind: str) -> None:
    """Deletes temporary files of processes of this machine that are no more."""
    for path in folder.glob(f".{glob.escape(writer(kind))}.*.tmp"):
        number = path.name.removeprefix(f".{writer(kind)}.").partition(".")[0]
        if number.isdecimal() and not _lives(int(number)):
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True
