"""Settings by the names that other programs have for them, and MMRec's files of settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from smore_ext.settings.config import TrainConfig, flag_name
from smore_ext.settings.fields import ConfigError, Setting, aliases_of, settings_of

GRIDS = "hyper_parameters"  # MMRec's list of the settings that it tries several values of
_FIELDS = "USER_ID_FIELD"  # stands in its files on data sets, which have no list
_SCHEDULE = "learning_rate_scheduler"  # [decay, epochs]
_SEEDS = "seed"
_MEASURES, _CHOICE = "metrics", "valid_metric"  # Recall, NDCG; Recall@20
_UNREAD = {
    *("is_multimodal_model", "use_neg_sampling"),  # a model says so itself here
    *("use_gpu", "gpu_id"),  # the flag --device says it
    "topk",  # those that are usual are always reported
    *("checkpoint_dir", "save_recommended_topk", "recommend_topk"),  # a run has a folder of its own
    # What the reader finds by itself, or says is missing.
    *("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD", "RATING_FIELD", "NEG_PREFIX", "field_separator"),
    *("inter_splitting_label", "inter_file_name", "vision_feature_file", "text_feature_file", "user_graph_dict_file"),
    # Of models that encode texts and images themselves, of which there are none.
    *("max_txt_len", "max_img_size", "vocab_size", "type_vocab_size", "hidden_size", "pad_token_id"),
    *("max_position_embeddings", "layer_norm_eps", "hidden_dropout_prob"),
}
_ONLY = {  # what training does here in the one way that MMRec's own files ask for
    "learner": "adam", "weight_decay": "0", "eval_step": "1", "training_neg_sample_num": "1", "req_training": "true",
    "use_full_sampling": "false", "use_raw_features": "false", "end2end": "false", "filter_out_cod_start_users": "true",
}  # fmt: skip


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
    for name, (own, made_of) in _translated(cls).items():
        value = values[name] if names is None or name in names else None
        if value is not None:
            out.setdefault(own, made_of(value))
    return {own: settings[own].convert(value, own) for own, value in out.items()}


def is_mmrec(values: Mapping[str, Any]) -> bool:
    """Whether a file of settings is one of MMRec's."""
    return GRIDS in values or _FIELDS in values


def _translated(cls: type) -> Mapping[str, tuple[str, Callable[[Any], Any]]]:
    """Settings of MMRec's that another of ours is made of: name, and how."""
    return getattr(cls, "translated", {})


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
    grids = values.get(GRIDS, [])
    grids = grids if isinstance(grids, list) else [grids]
    out: dict[str, Any] = _measured(values)
    several, unknown, others = [], [], []
    for name, value in _without_unread(values, cls):
        wanted = {**_ONLY, **getattr(cls, "only", {})}.get(name)
        if wanted is not None:
            if not _is_text(value, wanted):
                others.append(f"{name}: expected {wanted}, got {value}")
            continue
        if name in _translated(cls):
            short, made_of = _translated(cls)[name]
            out[f"model.{short}"] = made_of(value)
            continue
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
    told += others
    if unknown:
        told.append(f"no such setting here: {', '.join(unknown)}")
    if told:
        raise ConfigError(f"{place}: a file of MMRec's; {'; '.join(told)}")
    return out


def _modality(name: str, own: str, setting: Setting) -> str:
    """`image` of `image_knn_k`, for a setting that maps names; else nothing."""
    maps = name != own and name.endswith(f"_{own}") and "dict" in str(setting.hint)
    return name.removesuffix(f"_{own}") if maps else ""


def _measured(values: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics, and the one that chooses the epoch, as we spell them."""
    out: dict[str, Any] = {}
    if isinstance(measures := values.get(_MEASURES), list):
        out["train.metrics"] = [str(measure).lower() for measure in measures]
    if choice := values.get(_CHOICE):
        out["train.select_by"] = str(choice).lower()
    return out


def _is_text(value: Any, wanted: str) -> bool:
    text = str(value).lower()
    if text == wanted:
        return True
    try:
        return float(text) == float(wanted)
    except ValueError:
        return False


def _without_unread(values: Mapping[str, Any], cls: type) -> Iterator[tuple[str, Any]]:
    unread = {GRIDS, _CHOICE, _MEASURES, *_UNREAD, *getattr(cls, "unread", ())}
    return ((name, value) for name, value in values.items() if name not in unread)


def own_name(name: str, cls: type) -> str | None:
    """The full name of a setting here, None where there is none; the model's comes first."""
    for section, of in (("model", cls), ("train", TrainConfig)):
        settings = settings_of(of)
        own = name if name in settings else aliases_of(settings.values()).get(name)
        if own is not None and name != _SCHEDULE:
            return f"{section}.{own}"
    return None
