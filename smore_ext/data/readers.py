"""Data sets by name. A reader takes (folder that holds data sets, name) and returns a `Dataset`.

One with a third parameter is given `ReadOptions` too: raw ids, splits, separators, and the features that are used.
Others come by an entry point of the group `smore_ext.readers`, or as `package.module:function`. A reader goes through
`Dataset.from_pairs`, which checks what it brings, and raises `FileNotFoundError` for what is not there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from smore_ext.data.dataset import Dataset, DatasetError
from smore_ext.data.options import NOT_OF_DATA, ReadOptions
from smore_ext.registry import Registry

Reader: TypeAlias = Callable[..., Dataset]  # (folder, name) or (folder, name, options)

DEFAULT_READER = "mmrec"


def _wrong(loaded: Any) -> str | None:
    return None if callable(loaded) else f"must be a function of a folder and a name, got {loaded!r}"


READERS: Registry[Reader] = Registry(
    "reader", "smore_ext.readers", {DEFAULT_READER: "smore_ext.data.read:read_mmrec"}, _wrong
)


def read_dataset(
    name: str, data_path: Path, reader: str = DEFAULT_READER, options: ReadOptions | None = None
) -> Dataset:
    """The data set `name` of the folder `data_path`, by a reader of that name.

    Raises what the reader raises, `UnknownName` or `PluginError` for the reader, and `DatasetError` for options that it
    does not take.
    """
    read, options = READERS[reader], options or ReadOptions()
    if _takes_options(read):
        dataset = read(data_path, name, options)
    else:
        if given := changed_options(options):
            raise DatasetError(f"{given[0]}: expected the default, as the reader {reader!r} takes no options")
        dataset = read(data_path, name)
    if not isinstance(dataset, Dataset):
        raise TypeError(f"reader {reader!r} must return a Dataset, got {type(dataset).__name__}")
    return dataset


def changed_options(options: ReadOptions) -> list[str]:
    """The options that say how data are read, where they are not the default."""
    usual, names = ReadOptions(), (f.name for f in fields(options) if f.name not in NOT_OF_DATA)
    return [name for name in names if getattr(options, name) != getattr(usual, name)]


def _takes_options(reader: Reader) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = list(inspect.signature(reader).parameters.values())
    except (TypeError, ValueError):  # a callable without a signature
        return False
    return sum(parameter.kind in positional for parameter in parameters) > 2
