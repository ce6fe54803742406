"""Settings on the disk: YAML files and presets, and the settings of a command made of those and its flags."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from smore_ext.data.dataset import DatasetError
from smore_ext.data.files import only_dataset
from smore_ext.data.readers import DEFAULT_READER
from smore_ext.registry import did_you_mean
from smore_ext.runs.folder import RunFolder
from smore_ext.settings.config import FLAGS, Layer, RunConfig, TrainConfig, config_class, loop_value, merge
from smore_ext.settings.fields import ConfigError
from smore_ext.settings.foreign import from_mmrec, is_mmrec
from smore_ext.settings.text import parse_yaml
from smore_ext.training.files import check_regular, write_text

_LARGEST = 100_000  # bytes of a file of settings


def resolve(
    flags: Mapping[str, Any] | None = None, preset: str | None = None, config_file: Path | None = None
) -> RunConfig:
    """Settings of a run from its flags (a setting's text or value by name), a preset and a YAML file.

    The built-in data set has a preset of its own, taken when no other is named. Raises `ConfigError` for
    an unknown name (with the nearest valid one), a wrong type or a value out of range.
    """
    layers = []
    if preset is not None:
        layers.append(load_preset(preset))
    if config_file is not None:
        layers.append(_of_file(config_file, layers, flags or {}))
    if flags:
        layers.append(Layer(FLAGS, flags))
    dataset, data_path = loop_value(layers, "dataset"), loop_value(layers, "data_path")
    builtin = (dataset or TrainConfig().dataset).rstrip("/")
    if preset is None and data_path is None and builtin in preset_names():
        automatic = load_preset(builtin)
        layers.insert(0, automatic._replace(source=f"{automatic.source} (automatic for this data set)"))
    config = merge(layers)
    if data_path is not None and dataset is None:
        config = config.replace(dataset=_only_dataset(data_path, config.train.reader))
    return config


def _of_file(path: Path, below: list[Layer], flags: Mapping[str, Any]) -> Layer:
    """The settings of a file; one of MMRec's in our names."""
    layer = Layer(f"file {path}", read_yaml(path))
    if not is_mmrec(layer.values):
        return layer
    model = loop_value([*below, Layer(FLAGS, flags)], "model") or TrainConfig().model
    return layer._replace(values=from_mmrec(layer.values, config_class(model), layer.source, flags))


def preset_names() -> list[str]:
    folder = files("smore_ext") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Layer:
    if name not in preset_names():
        names = preset_names()
        raise ConfigError(f"unknown preset {name!r} (of {', '.join(names)}){did_you_mean(name, names)}")
    text = (files("smore_ext") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return Layer(f"preset {name}", _settings_in(text, f"preset {name}"))


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file of settings holds; scalars are texts, since the settings' types say how they are read.

    Raises `FileNotFoundError`, and `ConfigError` for what is no mapping, a name given twice, anchors, a huge file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"configuration file {path} does not exist")
    check_regular(Path(path))
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ConfigError(f"file {path}: expected settings, at most {_LARGEST:,} bytes, got a larger file")
    try:
        return _settings_in(content.decode("utf-8"), f"file {path}")
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {path}: expected UTF-8 text, got: {error}") from None


def read_config(folder: RunFolder) -> RunConfig:
    """The settings that a run's folder keeps. Raises `FileNotFoundError` when there are none."""
    if not folder.config.exists():
        raise FileNotFoundError(f"{folder.path} holds no run: {folder.config} does not exist")
    return RunConfig.from_dict(read_yaml(folder.config), str(folder.config))


def write_config(folder: RunFolder, config: RunConfig) -> None:
    write_text(folder.config, yaml.safe_dump(config.to_dict(), sort_keys=False))


def check_folder(path: Path) -> None:
    """Raises `FileNotFoundError` or `NotADirectoryError` when `--data-path` is no folder."""
    if not path.exists():
        raise FileNotFoundError(f"--data-path {path} does not exist")
    if not path.is_dir():
        raise NotADirectoryError(f"--data-path {path} is a file, expected a folder")


def _settings_in(text: str, source: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected settings as `name: value`, got {type(values).__name__}")
    return values


def _only_dataset(folder: Path, reader: str) -> str:
    """Name of the one data set in `folder`, for `--data-path DIR` without `--dataset`."""
    check_folder(folder)
    if reader != DEFAULT_READER:
        return folder.resolve().name
    try:
        return only_dataset(folder)
    except DatasetError as error:
        raise ConfigError(f"--data-path {error}; name the data set with -d NAME") from None
