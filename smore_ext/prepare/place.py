"""Where a prepared folder goes: in the place of nothing of the user's."""

from __future__ import annotations

import json
from pathlib import Path

from smore_ext.data.files import FEATURES, ID_MAPS, MANIFEST, MISSING, TABLE, TEXTS
from smore_ext.data.messages import listed


def check_place(output: Path, overwrite: bool) -> None:
    """Raises `FileExistsError` unless nothing is at `output`, or with `overwrite` only what `prepare` wrote."""
    if not output.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{output} is there: choose another folder, or --overwrite")
    if not output.is_dir():
        raise FileExistsError(f"{output}: expected a folder to overwrite, got a file")
    written = _written(output)
    if others := sorted(path.name for path in output.iterdir() if path.name not in written):
        raise FileExistsError(
            f"{output}: expected a folder that prepare wrote, to overwrite, got others' files in it: {listed(others)}"
        )


def _written(folder: Path) -> set[str]:
    """Names of what its manifest says was written; none without one."""
    try:
        features = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    made = {f"{name}{ending}" for name in features for ending in (FEATURES, MISSING)}
    return {MANIFEST, TEXTS, f"{folder.name}{TABLE}", *ID_MAPS.values(), *made}
