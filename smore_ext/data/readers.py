"""Data sets by name. A reader takes (folder that holds data sets, name) and returns a `Dataset`.

Others come by an entry point of the group `smore_ext.readers`, or as `package.module:function`. A reader goes through
`Dataset.from_pairs`, which checks what it brings, and raises `FileNotFoundError` for what is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from smore_ext.data.dataset import Dataset
from smore_ext.registry import Registry

Reader: TypeAlias = Callable[[Path, str], Dataset]

DEFAULT_READER = "mmrec"


def _wrong(loaded: Any) -> str | None:
    return None if callable(loaded) else f"must be a function of a folder and a name, got {loaded!r}"


READERS: Registry[Reader] = Registry(
    "reader", "smore_ext.readers", {DEFAULT_READER: "smore_ext.data.read:read_mmrec"}, _wrong
)


def read_dataset(name: str, data_path: Path, reader: str = DEFAULT_READER) -> Dataset:
    """The data set `name` of the folder `data_path`, by a reader of that name.

    Raises what the reader raises, and `UnknownName` or `PluginError` for the reader.
    """
    dataset = READERS[reader](data_path, name)
    if not isinstance(dataset, Dataset):
        raise TypeError(f"reader {reader!r} must return a Dataset, got {type(dataset).__name__}")
    return dataset
