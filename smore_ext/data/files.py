"""What the files of a data set folder are called (docs/spec.md, section 4); nothing else knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smore_ext.data.dataset import DatasetError

TABLE = ".inter"  # <name>.inter, the interactions, tab-separated
CSV_TABLE = "inter.csv"  # the same with commas, read where there is no .inter
FEATURES = "_feat.npy"  # <modality>_feat.npy
GRAPH = "_graph.npz"  # <modality>_graph.npz


def table_of(folder: Path, name: str | None = None) -> Path:
    """The interaction table of a data set folder: `<name>.inter`, by default of the folder's name.

    Without `name` the only other `.inter` will do; in a folder without any, `inter.csv`. Raises `DatasetError`.
    """
    named = folder / f"{name or folder.resolve().name}{TABLE}"
    if named.is_file():
        return named
    found = sorted(path for path in folder.glob(f"*{TABLE}") if path.is_file())
    names = ", ".join(path.name for path in found)
    if found and name is not None:
        raise DatasetError(f"{folder}: expected an interaction table {named.name}, got {names}")
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(f"{folder}: expected one {TABLE} file or {named.name}, got {len(found)}: {names}")
    if (folder / CSV_TABLE).is_file():
        return folder / CSV_TABLE
    raise DatasetError(f"{folder}: expected an interaction table {named.name} (or {CSV_TABLE}), got none")


def by_modality(folder: Path, ending: str) -> Iterator[tuple[str, Path]]:
    """(modality, file) for every `<modality><ending>` in a folder, by name."""
    for path in sorted(folder.glob(f"*{ending}")):
        yield path.name.removesuffix(ending), path


def holds(folder: Path, name: str) -> bool:
    """Whether the folder itself is the data set `name`."""
    if (folder / f"{name}{TABLE}").is_file():
        return True
    return (folder / CSV_TABLE).is_file() and not any(folder.glob(f"*{TABLE}"))


def datasets_in(folder: Path) -> list[str]:
    """Names of the data sets that are in a folder, as tables or as folders of their own."""
    tables = {path.stem for path in folder.glob(f"*{TABLE}")}
    patterns = (f"*/*{TABLE}", f"*/{CSV_TABLE}")
    return sorted(tables | {path.parent.name for pattern in patterns for path in folder.glob(pattern)})


def only_dataset(folder: Path) -> str:
    """Name of the one data set that a folder itself is. Raises `DatasetError` when it is none, or several."""
    found = sorted(folder.glob(f"*{TABLE}"))
    if not found and (folder / CSV_TABLE).is_file():
        return folder.resolve().name
    if len(found) != 1:
        raise DatasetError(f"{folder} holds {len(found)} {TABLE} files")
    return found[0].stem
