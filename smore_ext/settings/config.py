"""Settings of a run: one dataclass holds every default, and YAML keys, presets and flags are derived from it.

`TrainConfig` has the settings of the loop; the settings of a model are the fields of its `config_class`
(`SMOREConfig`, `LightGCNConfig`, ...). A run has one flat set of names made of both. Later layers win:
defaults, then the preset, then the configuration file, then the flags.

In a YAML file a top-level key named like a model holds settings for that model only:

    epochs: 60
    SMORE: {cl_weight: 0.01}
    LightGCN: {n_ui_layers: 2}
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

import yaml

from smore_ext.data.dataset import DatasetError
from smore_ext.data.files import only_dataset
from smore_ext.data.readers import DEFAULT_READER
from smore_ext.evaluation.metrics import DEFAULT_METRICS, METRICS, parse_metric
from smore_ext.models.registry import DEFAULT_MODEL, MODELS
from smore_ext.registry import PluginError, UnknownName
from smore_ext.registry import nearest_name as nearest_spelling
from smore_ext.settings.coerce import Mismatch, convert, describe

DEFAULT_DATASET = "synthetic"
FLAGS = "flags"

# Settings that may change when a run is resumed: they do not alter what an epoch computes. (More threads can
# alter the last bits of products that torch itself runs; our own kernels give the same bits for any number.)
# Fields of a model are marked `changeable`.
CHANGEABLE_ON_RESUME = frozenset({"epochs", "threads", "tensorboard", "data_path", "output_dir"})

# What users of MMRec call these settings; used only to name the right one in an error. A model's fields have `aliases`.
MMREC_NAMES = {
    "learning_rate": "lr",
    "learning_rate_scheduler": "lr_decay",
    "stopping_step": "patience",
    "train_batch_size": "batch_size",
    "use_gpu": "device",
    "gpu_id": "device",
}


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


def _setting(default: Any, help: str, short: str | None = None) -> Any:
    return field(default=default, metadata={"help": help, "short": short})


@dataclass(frozen=True)
class TrainConfig:
    """Every default of the training loop; the published protocol of docs/spec.md, section 3 where it has a say."""

    model: str = _setting(DEFAULT_MODEL, "model to train, by name or as package.module:Class", "-m")
    dataset: str = _setting(DEFAULT_DATASET, "name of the data set; 'synthetic' is built in", "-d")
    data_path: Path | None = _setting(None, "folder that holds the data set's folder, or that folder itself")
    reader: str = _setting(
        DEFAULT_READER,
        "what reads the data set from its folder: mmrec, one that a package brings, package.module:function",
    )
    dataset_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "options of the built-in data set"})
    output_dir: Path | None = _setting(None, "where results go; default runs/<model>-<dataset>-<time>", "-o")
    seed: int = _setting(999, "seed of weights, batches, negatives and dropout (999 is the field's habit)")
    seeds: tuple[int, ...] = _setting((), "train once per seed and report mean and standard deviation")
    epochs: int = _setting(1000, "largest number of epochs")
    batch_size: int = _setting(2048, "train interactions a step")
    patience: int = _setting(20, "stop when more than this many epochs in a row bring no improvement")
    lr: float = _setting(1e-3, "learning rate of Adam")
    lr_decay: float = _setting(0.96, "the rate is lr * lr_decay^(epoch / lr_decay_epochs)")
    lr_decay_epochs: int = _setting(50, "epochs after which the rate has fallen by lr_decay once")
    fused_adam: bool = _setting(True, "use torch's fused Adam step")
    select_by: str | None = _setting(
        None, "metric on validation that chooses the best epoch, such as ndcg@10; default recall at eval_k"
    )
    eval_k: int = _setting(20, "the rank, where select_by is not given")
    metrics: tuple[str, ...] = _setting(DEFAULT_METRICS, f"metrics that are reported, of {', '.join(METRICS)}")
    protocol: Literal["mmrec", "strict"] = _setting(
        "mmrec", "items masked at test: the user's train items (mmrec), or validation items too (strict)"
    )
    eval_batch_size: int = _setting(4096, "users ranked at once")
    checkpoint_every: int = _setting(1, "epochs between two 'last' checkpoints")
    device: str = _setting("cpu", "torch device")
    cuda_graph: bool = _setting(True, "on a GPU, capture the training step as a CUDA graph (backend native)")
    amp: bool = _setting(
        False, "bfloat16 for gates, attention and rows of graph products; sums, losses, Adam stay float32"
    )
    tf32: bool = _setting(False, "on a GPU, matrix products of float32 in TF32: faster, about three digits")
    threads: int | None = _setting(None, "CPU threads; default as torch chooses")
    tensorboard: bool = _setting(False, "also write TensorBoard logs into the output directory")

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "patience": 0, "lr_decay_epochs": 1, "eval_k": 1, "eval_batch_size": 1}
        at_least |= {"checkpoint_every": 1, "seed": 0, "batch_size": 1}
        for name, low in at_least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}: expected at least {low}, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads: expected at least 1, got {self.threads}")
        # a trailing slash comes from a shell's completion; the name becomes part of the run's folder
        object.__setattr__(self, "dataset", dataset_name(self.dataset))
        if not 0 < self.lr < float("inf"):
            raise ConfigError(f"lr: expected a number above 0, got {self.lr}")
        if not 0 < self.lr_decay <= 1:
            raise ConfigError(f"lr_decay: expected a number in (0, 1], got {self.lr_decay}")
        if len(set(self.seeds)) != len(self.seeds) or any(seed < 0 for seed in self.seeds):
            raise ConfigError(f"seeds: expected different numbers of at least 0, got {list(self.seeds)}")
        for name in ("select_by", "metrics"):
            chosen = [self.selection] if name == "select_by" else [f"{metric}@1" for metric in self.metrics]
            try:
                for metric in chosen:
                    parse_metric(metric)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None

    @property
    def selection(self) -> str:
        """The metric on validation that chooses the best epoch."""
        return self.select_by or f"recall@{self.eval_k}"


@dataclass(frozen=True)
class RunConfig:
    """All settings of one run: those of the loop, those of the model, and where they came from.

    A field of the model that is marked `metadata={"loop": True}` is the loop's to decide: it takes the loop's value.
    """

    train: TrainConfig
    model: Any
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        of_loop = {name: getattr(self.train, name) for name in loop_settings(type(self.model))}
        if any(getattr(self.model, name) != value for name, value in of_loop.items()):
            object.__setattr__(self, "model", dataclasses.replace(self.model, **of_loop))
        for name, value in self.to_dict().items():
            if not _finite(value):
                raise ConfigError(f"{name}: expected finite numbers, got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as one flat dict of JSON and YAML types; `RunConfig.from_dict` reads it back.

        `data_path` is made absolute: what is stored holds from any working directory.
        """
        values = dataclasses.asdict(self.train)
        if self.train.data_path is not None:
            values["data_path"] = self.train.data_path.absolute()
        values |= {f.name: getattr(self.model, f.name) for f in dataclasses.fields(self.model) if f.init}
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "stored settings") -> RunConfig:
        return _merge([Layer(source, dict(values))])

    def replace(self, **train_settings: Any) -> RunConfig:
        """A copy with other settings of the loop."""
        return dataclasses.replace(self, train=dataclasses.replace(self.train, **train_settings))


class Setting(NamedTuple):
    name: str
    hint: Any
    default: Any
    help: str
    short: str | None


class Layer(NamedTuple):
    source: str
    values: dict[str, Any]


def dataset_name(text: str) -> str:
    """`text` without trailing slashes. Raises `ConfigError` for a path: its folder belongs in `data_path`."""
    name = text.rstrip("/\\")
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise ConfigError(f"dataset: expected a name, got the path {text!r}; name its folder with --data-path DIR")
    return name


def check_folder(path: Path) -> None:
    """Raises `FileNotFoundError` or `NotADirectoryError` when `--data-path` is no folder."""
    if not path.exists():
        raise FileNotFoundError(f"--data-path {path} does not exist")
    if not path.is_dir():
        raise NotADirectoryError(f"--data-path {path} is a file, expected a folder")


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


@cache
def settings_of(cls: type) -> dict[str, Setting]:
    """The settings a dataclass declares: name, type, default and help of every field of its constructor."""
    hints = get_type_hints(cls)
    out = {}
    for f in dataclasses.fields(cls):
        if not f.init:
            continue
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        help = f.metadata.get("help") or _documented(cls, f.name)
        out[f.name] = Setting(f.name, hints[f.name], default, help, f.metadata.get("short"))
    return out


def loop_settings(cls: type) -> list[str]:
    """Names of a model's fields that take the loop's value."""
    return [f.name for f in dataclasses.fields(cls) if f.init and f.metadata.get("loop")]


def _documented(cls: type, name: str) -> str:
    """The sentence after `name: ` in the docstring of a dataclass, or nothing."""
    text = " ".join((cls.__doc__ or "").split())
    found = re.search(rf"(?<!\w){name}: (.+?)\.(?: |$)", text)
    return found[1] if found else ""


def model_settings(model: str) -> dict[str, Setting]:
    return settings_of(model_config_class(model))


def model_config_class(model: str) -> type:
    try:
        return MODELS[model].config_class
    except (UnknownName, PluginError) as error:
        raise ConfigError(str(error)) from error


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
        layers.append(Layer(f"file {config_file}", read_yaml(config_file)))
    if flags:
        layers.append(Layer(FLAGS, dict(flags)))
    dataset = _last(layers, "dataset", DEFAULT_DATASET)
    dataset = dataset.rstrip("/") if isinstance(dataset, str) else dataset
    data_path = _last(layers, "data_path", None)
    if preset is None and data_path is None and dataset in preset_names():
        automatic = load_preset(dataset)
        layers.insert(0, Layer(f"{automatic.source} (automatic for this data set)", automatic.values))
    config = _merge(layers)
    if data_path is not None and not any("dataset" in layer.values for layer in layers):
        config = config.replace(dataset=_only_dataset(Path(data_path).expanduser(), config.train.reader))
    return config


def convert_setting(name: str, value: Any, model: str, source: str) -> Any:
    """`value` as setting `name` of a run of `model`; errors say where the value came from."""
    known = settings_of(TrainConfig) | model_settings(model)
    place = flag_name(name) if source == FLAGS else f"{source}: {name}"
    if name not in known:
        owners = [other for other, cls in MODELS.loadable().items() if name in settings_of(cls.config_class)]
        if owners:
            raise ConfigError(f"{place}: {model} has no such setting ({', '.join(owners)} has)")
        valid = known if source == FLAGS else [*known, *MODELS]  # a file may have a section for a model
        raise ConfigError(f"{place}: unknown setting{did_you_mean(name, valid)}")
    try:
        converted = convert(value, known[name].hint)
    except Mismatch:
        raise ConfigError(f"{place}: expected {describe(known[name].hint)}, got {value!r}") from None
    if not _finite(converted):
        raise ConfigError(f"{place}: expected finite numbers, got {value!r}")
    return converted


def _finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ between two runs and may not change when one is resumed: name -> (old, new).

    A setting of the loop that did not exist when `old` was stored had what is its default now.
    """
    defaults = {name: _plain(setting.default) for name, setting in settings_of(TrainConfig).items()}
    old = defaults | dict(old)
    of_model = dataclasses.fields(model_config_class(new["model"])) if "model" in new else ()
    changeable = CHANGEABLE_ON_RESUME | {f.name for f in of_model if f.metadata.get("changeable")}
    names = sorted((set(old) | set(new)) - changeable)
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that `name` most likely stands for, or None when none is near. `-` and `_` are alike."""
    by_spelling = {candidate.replace("-", "_"): candidate for candidate in valid}
    for meant in _meant_by(name.lower().replace("-", "_")):
        if meant in by_spelling:
            return by_spelling[meant]
    return nearest_spelling(name, by_spelling.values())


def _meant_by(alias: str) -> list[str]:
    """Settings that other frameworks call `alias`."""
    classes = [model.config_class for model in MODELS.loadable().values()]
    of_models = [f.name for cls in classes for f in dataclasses.fields(cls) if alias in f.metadata.get("aliases", ())]
    return [*([MMREC_NAMES[alias]] if alias in MMREC_NAMES else []), *of_models]


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    near = nearest_name(name, valid)
    return f"; did you mean {near!r}?" if near else ""


def preset_names() -> list[str]:
    folder = files("smore_ext") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> Layer:
    if name not in preset_names():
        names = preset_names()
        raise ConfigError(f"unknown preset {name!r} (of {', '.join(names)}){did_you_mean(name, names)}")
    text = (files("smore_ext") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return Layer(f"preset {name}", _parse_yaml(text, f"preset {name}"))


def read_yaml(path: Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"configuration file {path} does not exist")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"file {path}: expected UTF-8 text, got: {error}") from None
    return _parse_yaml(text, f"file {path}")


def _parse_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{source}: expected settings as `name: value`, got {type(values).__name__}")
    return {key if key in MODELS or ":" in key else key.replace("-", "_"): value for key, value in values.items()}


def _last(layers: list[Layer], name: str, default: Any) -> Any:
    for layer in reversed(layers):
        if name in layer.values:
            return layer.values[name]
    return default


def _merge(layers: list[Layer]) -> RunConfig:
    default_model = settings_of(TrainConfig)["model"].default
    model = convert_setting("model", _last(layers, "model", default_model), default_model, "settings")
    of_model = model_settings(model)
    config_class = model_config_class(model)
    of_loop = loop_settings(config_class)
    values: dict[str, Any] = {}
    for source, layer in layers:
        values |= {
            name: convert_setting(name, value, model, source)
            for name, value in layer.items()
            if name not in MODELS and name != model
        }
        for section in dict.fromkeys([*MODELS, model]):
            values |= _section(source, section, layer.get(section), model)
    for field_ in dataclasses.fields(config_class):  # explicit, so that `none` can mean none
        if (make := field_.metadata.get("run_default")) is not None:
            values.setdefault(field_.name, make())
    train = TrainConfig(**{name: value for name, value in values.items() if name not in of_model or name in of_loop})
    model_config = config_class(**{k: v for k, v in values.items() if k in of_model and k not in of_loop})
    return RunConfig(train, model_config, tuple(layer.source for layer in layers))


def _section(source: str, section: str, values: Any, model: str) -> dict[str, Any]:
    """The settings under a model's name: all are checked, those of the chosen model are used."""
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: {section}: expected settings as `name: value`, got {values!r}")
    named = {str(name).replace("-", "_"): value for name, value in values.items()}
    out = {name: convert_setting(name, value, section, f"{source}, {section}") for name, value in named.items()}
    return out if section == model else {}


def _only_dataset(folder: Path, reader: str) -> str:
    """Name of the one data set in `folder`, for `--data-path DIR` without `--dataset`."""
    check_folder(folder)
    if reader != DEFAULT_READER:
        return folder.resolve().name
    try:
        return only_dataset(folder)
    except DatasetError as error:
        raise ConfigError(f"--data-path {error}; name the data set with -d NAME") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
