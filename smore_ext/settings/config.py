"""Settings of a run: one dataclass holds every default, and YAML keys, presets and flags are derived from it.

`TrainConfig` has the settings of the loop; those of a model are the fields of its `config_class`. A YAML file has a
section for each, and may have one named as a model, which holds for runs of that model only:

    train: {model: SMORE, dataset: baby, lr: 0.001}
    model: {a setting of it: 1}
    LightGCN: {a setting of it: 2, lr: 0.002}

Without a section a name is that of the loop or of the model, as flags and the files of earlier versions have it; where
both have it, it needs the section (`--train.lr`, `--model.lr`). Later layers win: defaults, preset, file, flags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Le
from pydantic_core import to_jsonable_python

from smore_ext.data.dataset import DatasetError
from smore_ext.data.kept import cache_folder
from smore_ext.data.messages import shown
from smore_ext.data.options import Ids, Overlap, ReadOptions, Split
from smore_ext.data.readers import DEFAULT_READER
from smore_ext.evaluation.metrics import DEFAULT_METRICS, METRICS, parse_metric
from smore_ext.models.registry import DEFAULT_MODEL, MODELS
from smore_ext.registry import PluginError, UnknownName, nearest_name
from smore_ext.settings.fields import ConfigError, Setting, aliases_of, check_numbers, settings_of
from smore_ext.settings.text import read

FLAGS = "flags"
SEARCH = "search"  # the section of what is searched
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]


def _setting(default: Any, help: str, **more: Any) -> Any:
    """A field; `more` as in `fields.py`. The aliases are MMRec's."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class TrainConfig:
    """Every default of the training loop; the published protocol of docs/spec.md, section 3 where it has a say."""

    model: str = _setting(DEFAULT_MODEL, "model to train, by name or as package.module:Class", short="-m")
    dataset: str = _setting("synthetic", "name of the data set; 'synthetic' is built in", short="-d")
    data_path: Path | None = _setting(
        None, "folder that holds the data set's folder, or that folder itself", changeable=True
    )
    reader: str = _setting(
        DEFAULT_READER,
        "what reads the data set from its folder: mmrec, one that a package brings, package.module:function",
    )
    ids: Ids = _setting(
        ReadOptions.ids,
        "ids in the tables: numbers from 0 (index), those with raw ids in u_id_mapping.csv (mapped), any texts (raw)",
    )
    split: Split = _setting(
        ReadOptions.split,
        "label: the column x_label or three files; else made here: random and user_time by user, time for all at once, "
        "leave_one_out",
        aliases=["eval_args", "benchmark_filename"],
    )
    split_ratios: tuple[float, float, float] = _setting(
        ReadOptions.split_ratios, "train, validation and test of a split made here"
    )
    split_seed: Natural = _setting(ReadOptions.split_seed, "seed of a random split")
    overlap: Overlap = _setting(
        ReadOptions.overlap, "a pair in two splits: an error, or it stays in the earliest of train, validation, test"
    )
    field_separator: str | None = _setting(
        ReadOptions.field_separator, "what separates columns: a character, tab, comma, ...; default as the header shows"
    )
    column_names: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "help": "names of columns where they are not the usual ones: user, item, label, time",
            "aliases": ["user_id_field", "item_id_field", "time_field", "inter_splitting_label"],
        },
    )
    table_cache: Path | None = _setting(
        None,
        "folder where parsed tables are kept between runs, none for nowhere; default in the user's cache folder",
        changeable=True,
        run_default=partial(cache_folder, "tables"),
    )
    dataset_options: dict[str, Any] = field(default_factory=dict, metadata={"help": "options of the built-in data set"})
    output_dir: Path | None = _setting(
        None, "where results go; default runs/<model>-<dataset>-<time>", short="-o", changeable=True
    )
    seed: Natural = _setting(999, "seed of weights, batches, negatives and dropout (999 is the field's habit)")
    seeds: tuple[Natural, ...] = _setting((), "train once per seed and report mean and standard deviation")
    epochs: Count = _setting(1000, "largest number of epochs", changeable=True)
    patience: Natural = _setting(
        20, "stop when more than this many epochs in a row bring no improvement", aliases=["stopping_step"]
    )
    batch_size: Count = _setting(2048, "train interactions a step", aliases=["train_batch_size"])
    lr: Annotated[float, Gt(0)] = _setting(1e-3, "learning rate of Adam", aliases=["learning_rate"])
    lr_decay: Annotated[float, Gt(0), Le(1)] = _setting(
        0.96, "the rate is lr * lr_decay^(epoch / lr_decay_epochs)", aliases=["learning_rate_scheduler"]
    )
    lr_decay_epochs: Count = _setting(50, "epochs after which the rate has fallen by lr_decay once")
    fused_adam: bool = _setting(True, "use torch's fused Adam step")
    select_by: str | None = _setting(
        None, "metric on validation that chooses the best epoch, such as ndcg@10; default recall at eval_k"
    )
    eval_k: Count = _setting(20, "the rank, where select_by is not given")
    metrics: tuple[str, ...] = _setting(DEFAULT_METRICS, f"metrics that are reported, of {', '.join(METRICS)}")
    protocol: Literal["mmrec", "strict"] = _setting(
        "mmrec", "items masked at test: the user's train items (mmrec), or validation items too (strict)"
    )
    eval_batch_size: Count = _setting(4096, "users ranked at once")
    checkpoint_seconds: Annotated[float, Ge(0)] | None = _setting(
        None,
        "least seconds between two writes of checkpoints; 0: after each epoch, before the next begins; default so that "
        "writing, beside training, stays below 2 % of the time",
        changeable=True,
    )
    checkpoint_every: Count = _setting(1, "epochs between two 'last' checkpoints")
    device: str = _setting("cpu", "torch device", aliases=["use_gpu", "gpu_id"])
    cuda_graph: bool = _setting(True, "on a GPU, capture the training step as a CUDA graph (backend native)")
    amp: bool = _setting(
        False, "bfloat16 for gates, attention and rows of graph products; sums, losses, Adam stay float32"
    )
    tf32: bool = _setting(False, "on a GPU, matrix products of float32 in TF32: faster, about three digits")
    # More can alter the last bits of products that torch itself runs; our own kernels give the same for any number.
    threads: Annotated[int, Ge(1), Le(4096)] | None = _setting(
        None, "CPU threads; default as torch chooses", changeable=True
    )
    tensorboard: bool = _setting(False, "also write TensorBoard logs into the output directory", changeable=True)
    wandb: bool = _setting(False, "also tell Weights & Biases; offline without a key", changeable=True)
    mlflow: bool = _setting(False, "also tell MLflow, by default in the output directory", changeable=True)

    def __post_init__(self) -> None:
        for name, setting in settings_of(TrainConfig).items():
            object.__setattr__(self, name, setting.convert(getattr(self, name), name))
        # a trailing slash comes from a shell's completion; the name becomes part of the run's folder
        name = self.dataset.rstrip("/\\")
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ConfigError(
                f"dataset: expected a name, got the path {shown(self.dataset)}; name its folder with --data-path DIR"
            )
        object.__setattr__(self, "dataset", name)
        try:
            self.read_options()
        except DatasetError as error:
            raise ConfigError(str(error)) from None
        if len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds: expected different numbers, got {shown(list(self.seeds))}")
        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise ConfigError(f"metrics: expected different ones, at least one, got {shown(list(self.metrics))}")
        for name, chosen in {"select_by": [self.selection], "metrics": [f"{m}@1" for m in self.metrics]}.items():
            try:
                for metric in chosen:
                    parse_metric(metric)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from None

    def read_options(self, features: tuple[str, ...] | None = None) -> ReadOptions:
        """How the data set is read; `features` are those that the model asks for, None for all."""
        names = (f.name for f in dataclasses.fields(ReadOptions) if f.name != "features")
        return ReadOptions(**{name: getattr(self, name) for name in names}, features=features)

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
        loop = {f.name: getattr(self.train, f.name) for f in dataclasses.fields(self.model) if f.metadata.get("loop")}
        if any(getattr(self.model, name) != value for name, value in loop.items()):
            object.__setattr__(self, "model", dataclasses.replace(self.model, **loop))
        for name in settings_of(type(self.model)):
            check_numbers(getattr(self.model, name), name)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """`{"train": {...}, "model": {...}}` of JSON and YAML types; `RunConfig.from_dict` reads it back.

        `data_path` is made absolute: what is stored holds from any working directory.
        """
        train = vars(self.train) | {"data_path": self.train.data_path and self.train.data_path.absolute()}
        model = {name: getattr(self.model, name) for name in settings_of(type(self.model))}
        return to_jsonable_python({"train": train, "model": model})  # a ValueError names a type that is none of these

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "stored settings") -> RunConfig:
        """Reads what `to_dict` gives, and the flat form of earlier versions."""
        return merge([Layer(source, values)])

    def replace(self, **train_settings: Any) -> RunConfig:
        """A copy with other settings of the loop."""
        return dataclasses.replace(self, train=dataclasses.replace(self.train, **train_settings))


class Layer(NamedTuple):
    """Settings by name or by section, and where they are from."""

    source: str
    values: Mapping[str, Any]

    def place(self, name: str) -> str:
        """Where a setting was given, for an error."""
        return flag_name(name) if self.source == FLAGS else f"{self.source}: {name[:80]}"


def config_class(model: str) -> type:
    """The dataclass of a model's settings. Raises `ConfigError` for an unknown model, naming the nearest."""
    try:
        return MODELS[model].config_class
    except (UnknownName, PluginError) as error:
        raise ConfigError(str(error)) from error


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def loop_value(layers: Sequence[Layer], name: str) -> Any:
    """What the last layer that has the loop's setting `name` says, None where none has it."""
    for layer in reversed(layers):
        given = dict(_by_name(layer))
        for key in (f"train.{name}", name):
            if key in given:
                return settings_of(TrainConfig)[name].convert(given[key], layer.place(key))
    return None


def merge(layers: Sequence[Layer]) -> RunConfig:
    """The settings of a run. Raises `ConfigError` that names the layer: for an unknown name (with the nearest valid
    one), one that the loop and the model both have, a wrong type, a value out of range."""
    model = loop_value(layers, "model") or settings_of(TrainConfig)["model"].default
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for layer in layers:
        own = [name for name in layer.values if name in (*MODELS, model)]
        entries = list(_entries(layer._replace(values={k: v for k, v in layer.values.items() if k not in own}), model))
        for name in own:  # all are checked, the chosen model's counts
            section = list(_entries(Layer(f"{layer.source}, {name}", _section(layer, name)), name))
            entries += section if name == model else []
        for name, value, place in entries:
            values[name], places[name] = value, place
    sections = {"train": TrainConfig, "model": config_class(model)}
    defaults = {f"{s}.{name}": own.default for s, cls in sections.items() for name, own in settings_of(cls).items()}
    values = defaults | values | {"train.model": model}
    given = {name: value for name, value in values.items() if value is not dataclasses.MISSING}
    train, own = (_build(section, cls, given, places) for section, cls in sections.items())
    return RunConfig(train, own, tuple(layer.source for layer in layers))


def changed_settings(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that differ between two runs and may not change when one is resumed: name -> (old, new)."""
    before, after, out = old.to_dict(), new.to_dict(), {}
    for name, (full, setting) in known_names(type(new.model)).items():
        section, _, own = full.partition(".")
        values = before[section].get(own), after[section].get(own)
        if values[0] != values[1] and not setting.of("changeable"):
            out.pop(full, None)  # the short name comes second, if there is one
            out[name] = values
    return out


def without_places(config: RunConfig) -> RunConfig:
    """Settings without what a run has beyond a bare configuration, which is where it keeps files."""

    def bare(section: Any) -> Any:
        places = {f.name: f.default for f in dataclasses.fields(section) if f.metadata.get("run_default")}
        return dataclasses.replace(section, **places)

    return dataclasses.replace(config, train=bare(config.train), model=bare(config.model))


def known_names(cls: type) -> dict[str, tuple[str, Setting]]:
    """Every name that a setting of a run goes by, with its full one: `train.lr` and `model.knn_k`, and after those,
    without the section, what the loop and the model do not both have."""
    train, model = settings_of(TrainConfig), settings_of(cls)
    out = {f"train.{name}": (f"train.{name}", setting) for name, setting in train.items()}
    out |= {f"model.{name}": (f"model.{name}", setting) for name, setting in model.items()}
    once = train.keys() ^ model.keys()
    return out | {name.partition(".")[2]: entry for name, entry in out.items() if name.partition(".")[2] in once}


def search_section(layer: Layer) -> dict[str, Any]:
    """What a search is to vary by this layer, as it stands there: values by name."""
    return dict(_section(layer, SEARCH)) if SEARCH in layer.values else {}


def names_in(layer: Layer) -> list[str]:
    """Names of the settings that a layer gives, with their section where it names one."""
    return [name for name, _ in _by_name(layer)]


def _by_name(layer: Layer) -> Iterator[tuple[str, Any]]:
    """The entries of a layer; those of the sections `train` and `model` as `train.lr`, `model.knn_k`. Its section
    `search` says what a search varies: no run has that."""
    for key in layer.values:
        name = key.replace("-", "_")
        if name == SEARCH and (layer.values[key] is None or isinstance(layer.values[key], Mapping)):
            continue
        if name in ("train", "model") and not isinstance(layer.values[key], str):  # a text: the name of the model
            yield from ((f"{name}.{k.replace('-', '_')}", value) for k, value in _section(layer, key).items())
        else:
            yield name, layer.values[key]


def _entries(layer: Layer, model: str) -> Iterator[tuple[str, Any, str]]:
    """(full name, converted value, place) of each entry of a layer for runs of `model`."""
    known, names = known_names(config_class(model)), dict[str, str]()
    for name, value in _by_name(layer):
        if name not in known:
            raise ConfigError(f"{layer.place(name)}: {_unknown(name, model, in_file=layer.source != FLAGS)}")
        full, setting = known[name]
        if full in names:
            raise ConfigError(f"{layer.place(name)}: expected once, got {full} as {names[full]!r} and as {name!r}")
        names[full] = name
        yield full, setting.convert(value, layer.place(name)), layer.place(name)


def _unknown(name: str, model: str, in_file: bool) -> str:
    known = known_names(config_class(model))
    full = {name.partition(".")[2]: name for name in known if "." in name}
    if name in full:
        ways = "in a section, `train:` or `model:`" if in_file else f"as --train.{name} or --model.{name}"
        return f"both the training loop and {model} have this setting: write it {ways}"
    section, _, own = name.rpartition(".")
    others = [other for other, cls in MODELS.loadable().items() if own in settings_of(cls.config_class)]
    if others and section != "train" and own not in full:
        return f"{model} has no such setting ({', '.join(others)} {'has' if len(others) == 1 else 'have'})"
    valid = [*full, *(MODELS if in_file and not section else [])]
    near = nearest_name(own, valid, aliases_of(setting for _, setting in known.values()))
    if section and near:
        near = f"{section}.{near}" if f"{section}.{near}" in known else full[near]
    return "unknown setting" + (f"; did you mean {near!r}?" if near else "")


def _section(layer: Layer, key: str) -> Mapping[str, Any]:
    """The content of a section, which may be empty."""
    value = {} if layer.values[key] is None else layer.values[key]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{layer.source}: {key}: expected settings as `name: value`, got {shown(read(value))}")
    return value


def _build(section: str, cls: type, values: Mapping[str, Any], places: Mapping[str, str]) -> Any:
    """The dataclass of a section; what it refuses is said with the place of the setting that it names first."""
    try:
        return cls(**{k.partition(".")[2]: v for k, v in values.items() if k.startswith(section)})
    except (ValueError, TypeError) as error:
        name = str(error).partition(" ")[0].rstrip(":")
        place = f"{places[f'{section}.{name}']}: " if f"{section}.{name}" in places else ""
        raise ConfigError(f"{place}{str(error).removeprefix(f'{name}: ')}") from error
