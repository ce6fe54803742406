"""Files that come in: opened as text, packed or not; and what tells later whether they are the same."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from smore_ext.data.dataset import DatasetError

HASHED = 2 << 30  # bytes of an encoder up to which all its files are hashed
SMALL = 16 << 20  # bytes of a file up to which it is hashed in any encoder: settings and vocabularies, not weights


@contextmanager
def opened(path: Path, packed: bool) -> Iterator[TextIO]:
    """A file's text. Raises `DatasetError` where it cannot be read."""
    opens: Any = gzip.open if packed else open
    try:  # a carriage return in a text ends no line
        with cast(TextIO, opens(path, "rt", encoding="utf-8", newline="\n")) as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from None


def file_identity(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file, or of the `.npy` files of a folder."""
    if path.is_dir():
        return files_identity(path, sorted(path.glob("*.npy")))
    digest = hashlib.sha256()
    _hash(digest, path)
    return {"name": path.name, "bytes": _bytes([path]), "sha256": digest.hexdigest()}


def files_identity(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Name, size and SHA-256 of some files of a folder, names and contents."""
    digest = hashlib.sha256()
    for one in sorted(files):
        digest.update(one.name.encode() + b"\0")
        _hash(digest, one)
    return {"name": folder.name, "files": len(files), "bytes": _bytes(files), "sha256": digest.hexdigest()}


def model_identity(folder: Path) -> dict[str, Any]:
    """Size and SHA-256 of an encoder's folder: of names and contents of all its files, hidden ones aside.

    Beyond `HASHED` bytes files larger than `SMALL` are there with their size only, so that it takes no minute;
    "hashed" says which it was.
    """
    within = {path: path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    files = sorted(path for path, name in within.items() if not any(part.startswith(".") for part in name.parts))
    total = _bytes(files)
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{within[path].as_posix()}\0{size}\0".encode())
        if total <= HASHED or size <= SMALL:
            _hash(digest, path)
    hashed = "all files" if total <= HASHED else f"files up to {SMALL >> 20} MiB, and the sizes of larger ones"
    return {"files": len(files), "bytes": total, "sha256": digest.hexdigest(), "hashed": hashed}


def _hash(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


def _bytes(files: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in files)
