"""What the files of a data set folder are called (docs/spec.md, section 4); nothing else knows.

Only regular files count, links to them included: a pipe would make the reader wait. Hidden files (`._baby.inter`, as
macOS leaves them on other file systems) are nobody's data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from smore_ext.data.dataset import SPLITS, DatasetError
from smore_ext.data.messages import listed

TABLE = ".inter"  # <name>.inter, the interactions, or <name>.train.inter, <name>.valid.inter, <name>.test.inter
CSV_TABLE = "inter.csv"  # the same with commas, read where there is no .inter
PACKED = ".gz"  # of either
FEATURES = "_feat.npy"  # <modality>_feat.npy
GRAPH = "_graph.npz"  # <modality>_graph.npz
OF_USERS = "user"
ID_MAPS = {"user": "u_id_mapping.csv", "item": "i_id_mapping.csv"}  # raw ids and their numbers
# What `prepare` writes beside them.
MANIFEST = "manifest.json"
TEXTS = "item_texts.jsonl"
MISSING = "_missing.txt"  # <modality>_missing.txt, raw ids of the items whose features were filled in


class Tables(NamedTuple):
    """The interaction table of a data set, or the three of its splits in the order of `SPLITS`."""

    name: str  # of the data set, as the files say it; "" where they do not: inter.csv, train.inter
    paths: tuple[Path, ...]


def tables_of(folder: Path, name: str | None = None) -> Tables:
    """The interaction table of a data set folder: `<name>.inter`, by default of the folder's name, or its three splits.

    Without `name` the only other `.inter` will do; in a folder without any, `inter.csv`. Raises `DatasetError`.
    """
    found = _tables_in(folder)
    wanted = name or folder.resolve().name
    odd = [path for path in _entries(folder) if (_stem(path) is not None or _is_csv(path)) and not path.is_file()]
    for path in odd:
        if not found or _stem(path) == wanted:
            check_regular(path)
    names = listed(path.name for tables in found for path in tables.paths)
    if len(found) == 1 and (name is None or not found[0].name):
        return found[0]
    for tables in found:
        if tables.name == wanted:
            return tables
    if not found:
        raise DatasetError(f"{folder}: expected an interaction table {wanted}{TABLE} (or {CSV_TABLE}), got none")
    if name is not None:
        raise DatasetError(f"{folder}: expected an interaction table {wanted}{TABLE}, got {names}")
    raise DatasetError(
        f"{folder}: expected one {TABLE} file or {wanted}{TABLE}, got {len(found)}: {names}; "
        f"splits are three, {wanted}.train{TABLE}, {wanted}.valid{TABLE}, {wanted}.test{TABLE}"
    )


def by_modality(folder: Path, ending: str, modalities: Sequence[str] | None = None) -> Iterator[tuple[str, Path]]:
    """(modality, file) for every `<modality><ending>` in a folder, by name; only for `modalities` where given.

    Without those, `user` is none: the rows of a `user_feat.npy` are users.
    """
    for path in _entries(folder):
        modality = path.name.removesuffix(ending)
        wanted = modality != OF_USERS if modalities is None else modality in modalities
        if path.name.endswith(ending) and wanted:
            check_regular(path)
            yield modality, path


def misnamed_features(folder: Path) -> str:
    """What to say where features are missed: names of the arrays that are not called as features are."""
    there = [path.name for path in _entries(folder) if path.suffix == ".npy" and not path.name.endswith(FEATURES)]
    return f"; {listed(there)} lie in {folder}: features are called <modality>{FEATURES}" if there else ""


def id_map(folder: Path, kind: str) -> Path | None:
    """The file of the raw ids of "user" or "item" and their numbers, None where there is none."""
    path = folder / ID_MAPS[kind]
    if not path.exists():
        return None
    check_regular(path)
    return path


def check_regular(path: Path) -> None:
    """Raises `DatasetError` unless `path` is a regular file, or a link to one."""
    if path.is_file():
        return
    if path.is_dir():
        got = "a folder"
    elif path.exists():
        got = "a pipe, a socket or a device"
    else:
        got = "a link to nothing" if path.is_symlink() else "nothing there"
    raise DatasetError(f"{path}: expected a regular file, got {got}")


def check_readable(path: Path) -> None:
    """Raises `DatasetError` for a file that is there and cannot be read; libraries take it for one that is damaged."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None


def holds(folder: Path, name: str) -> bool:
    """Whether the folder itself is the data set `name`."""
    found = _tables_in(folder)
    return any(tables.name == name for tables in found) or (len(found) == 1 and not found[0].name)


def datasets_in(folder: Path) -> list[str]:
    """Names of the data sets that are in a folder, as tables or as folders of their own."""
    inside = [path for path in _entries(folder) if path.is_dir()]
    names = {tables.name for tables in _tables_in(folder) if tables.name}
    return sorted(names | {path.name for path in inside if os.access(path, os.R_OK | os.X_OK) and _tables_in(path)})


def only_dataset(folder: Path) -> str:
    """Name of the one data set that a folder itself is. Raises `DatasetError` when it is none, or several."""
    found = _tables_in(folder)
    if len(found) != 1:
        raise DatasetError(f"{folder} holds {len(found)} {TABLE} files")
    return found[0].name or folder.resolve().name


def _entries(folder: Path) -> list[Path]:
    """What a folder shows, by name. Raises `OSError` where it cannot be listed: it would look empty."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_csv(path: Path) -> bool:
    return path.name.removesuffix(PACKED) == CSV_TABLE


def _stem(path: Path) -> str | None:
    """`<name>` of `<name>.inter` and `<name>.inter.gz`, None for other names."""
    name = path.name.removesuffix(PACKED)
    return name.removesuffix(TABLE) if name.endswith(TABLE) else None


def _tables_in(folder: Path) -> list[Tables]:
    """Data sets whose tables lie in a folder, by name; `inter.csv` only where there is no other, without a name."""
    singles: dict[str, Path] = {}
    splits: dict[str, dict[str, Path]] = {}
    csv_table = None
    for path in filter(Path.is_file, _entries(folder)):
        stem = _stem(path)
        if stem is not None:
            name, dot, split = stem.rpartition(".")
            if split in SPLITS:
                splits.setdefault(name if dot else "", {}).setdefault(split, path)
            else:
                singles.setdefault(stem, path)  # one that is not packed comes first
        elif _is_csv(path):
            csv_table = csv_table or path
    whole = {name: parts for name, parts in splits.items() if len(parts) == len(SPLITS) and name not in singles}
    for name, parts in splits.items():  # others are tables of their own: a data set may be called "train"
        if name not in whole:
            singles |= {f"{name}.{split}".lstrip("."): path for split, path in parts.items()}
    found = {name: Tables(name, (path,)) for name, path in singles.items()}
    found |= {name: Tables(name, tuple(parts[split] for split in SPLITS)) for name, parts in whole.items()}
    if not found and csv_table is not None:
        return [Tables("", (csv_table,))]
    return [found[name] for name in sorted(found)]
