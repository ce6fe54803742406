"""Settings by the names that other programs have for them, and MMRec's files of settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from smore_ext.settings.config import TrainConfig, flag_name
from smore_ext.settings.fields import ConfigError, Setting, aliases_of, settings_of

GRIDS = "hyper_parameters"  # MMRec's list of the settings that it tries several values of: only its files have one
_SCHEDULE = "learning_rate_scheduler"  # [decay, epochs]
_SEEDS = "seed"
_IMPLIED = ("is_multimodal_model", "use_neg_sampling")  # a model says so itself here


def own_settings(cls: type, values: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, Any]:
    """`values` as settings of the dataclass `cls`: those that it has, under its names and of its types.

    A setting that maps modalities is also known by one name for each (`image_knn_k`). A name of its own comes before
    one of others.

    Args:
        values: anything with `values[name]`; None stands for nothing.
        names: those to ask for; None: all that mean something here.

    Raises:
        ConfigError: a value of a wrong type.
    """
    settings = settings_of(cls)
    aliases = {name: name for name in settings} | aliases_of(settings.values())
    out: dict[str, Any] = {}
    for name, own in aliases.items():
        value = values[name] if names is None or name in names else None
        if value is None:
            continue
        if modality := _modality(name, own, settings[own]):
            given = out.get(own)
            out[own] = (given if isinstance(given, dict) else {}) | {modality: value}
        else:
            out.setdefault(own, value)
    return {own: settings[own].convert(value, own) for own, value in out.items()}


def from_mmrec(values: Mapping[str, Any], cls: type, place: str, given: Collection[str]) -> dict[str, Any]:
    """Settings of a run (`train.lr`, `model....`) from one of MMRec's YAML files.

    A grid of one value is that value, a grid of seeds our `seeds`; of any other one value must be chosen by a flag.

    Args:
        values: of the file, by MMRec's names or ours; texts, as `read_yaml` gives them.
        cls: the settings of the model.
        place: the file, for errors.
        given: names of flags, which choose.

    Raises:
        ConfigError: names all grids that nobody has chosen from and all names that mean nothing here.
    """
    flags = {name.replace("-", "_").rpartition(".")[2] for name in given}
    grids = values[GRIDS] if isinstance(values[GRIDS], list) else [values[GRIDS]]
    out: dict[str, Any] = {}
    several, unknown = [], []
    for name, value in _without_unread(values, cls):
        own = own_name(name, cls)
        if own is None and name != _SCHEDULE:
            unknown.append(name)
            continue
        if name in grids and isinstance(value, list):
            if name == _SEEDS and len(value) > 1:
                out["train.seeds"] = value
                continue
            if len(value) > 1:
                if own and own.partition(".")[2] not in flags:
                    several.append(own.partition(".")[2])
                continue
            value = value[0] if value else None
        if name == _SCHEDULE and isinstance(value, list) and len(value) == 2:
            out |= {"train.lr_decay": value[0], "train.lr_decay_epochs": value[1]}
        elif own is None:
            unknown.append(name)
        elif value is not None:
            section, _, short = own.partition(".")
            setting = settings_of(cls if section == "model" else TrainConfig)[short]
            modality = _modality(name, short, setting)
            out[own] = {**out.get(own, {}), modality: value} if modality else value
    told = []
    if several:
        names = dict.fromkeys(several)
        told.append(f"several values of {', '.join(names)}: choose by {' ... '.join(map(flag_name, names))} ...")
    if unknown:
        told.append(f"no such setting here: {', '.join(unknown)}")
    if told:
        raise ConfigError(f"{place}: a file of MMRec's; {'; '.join(told)}")
    return out


def _modality(name: str, own: str, setting: Setting) -> str:
    """`image` of `image_knn_k`, for a setting that maps names; else nothing."""
    maps = name != own and name.endswith(f"_{own}") and "dict" in str(setting.hint)
    return name.removesuffix(f"_{own}") if maps else ""


def _without_unread(values: Mapping[str, Any], cls: type) -> Iterator[tuple[str, Any]]:
    unread = {GRIDS, *_IMPLIED, *getattr(cls, "unread", ())}
    return ((name, value) for name, value in values.items() if name not in unread)


def own_name(name: str, cls: type) -> str | None:
    """The full name of a setting here, None where there is none; the model's comes first."""
    for section, of in (("model", cls), ("train", TrainConfig)):
        settings = settings_of(of)
        own = name if name in settings else aliases_of(settings.values()).get(name)
        if own is not None and name != _SCHEDULE:
            return f"{section}.{own}"
    return None
