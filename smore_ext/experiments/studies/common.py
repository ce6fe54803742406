"""What the experiments share: how much is run, and their cells on the built-in data set and on files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from smore_ext.experiments.cells import Cell, Data
from smore_ext.experiments.study import Scale

SMORE, LIGHTGCN, VBPR, FREEDOM = "SMORE", "LightGCN", "VBPR", "FREEDOM"
POPULARITY = "Popularity"
PLAIN = "spectral filter"  # the model as published
SAME = {PLAIN: SMORE}  # one thing under two names, and so of one colour
N = "recall@20 on test"
MODALITIES = {"lfm2k": ("audio", "speech", "text")}  # of folders

MODELS = (
    "Models are at their defaults, but for two layers over users and items and `cl_warmup` 0, unless an experiment "
    "says otherwise."
)

# Small enough for hundreds of runs on two cores. lr 5e-3 in place of the published 1e-3: an epoch has 16 steps.
FULL = Scale(
    name="full",
    seeds=(1, 2, 3),
    synthetic={"n_users": 1000, "n_items": 600, "n_interactions": 10_000},
    loop={"batch_size": 512, "epochs": 80, "patience": 6, "lr": 5e-3},
    folders={"lfm2k": {"batch_size": 2048, "epochs": 80, "patience": 6, "lr": 6e-3}},
    models=MODELS,
)
QUICK = Scale(
    name="quick",
    seeds=(1,),
    synthetic={"n_users": 200, "n_items": 150, "n_interactions": 2000},
    loop={"batch_size": 512, "epochs": 6, "patience": 6, "lr": 1e-2},
    models=MODELS,
)
SCALES = {scale.name: scale for scale in (FULL, QUICK)}


def built_in(scale: Scale, **options: Any) -> Data:
    return Data("synthetic", scale.synthetic | options)


def cells_of(
    scale: Scale, data: Data, model: str = SMORE, probes: Sequence[Callable[..., Any]] = (), **settings: Any
) -> list[Cell]:
    """A condition: a cell a seed. Two layers over the users and items where nothing else is said, as the built-in
    preset has."""
    loop = scale.loop if data.source == "synthetic" else scale.folders[data.source]
    own: dict[str, Any] = {"n_ui_layers": 2} if model not in (VBPR, POPULARITY) else {}
    if model not in (LIGHTGCN, VBPR, FREEDOM, POPULARITY):
        own["cl_warmup"] = 0  # as published
    named = [f"{probe.__module__}:{probe.__qualname__}" for probe in probes]
    return [Cell(data, model, loop | own | settings, seed, named) for seed in scale.seeds]


def sample(scale: Scale, data: Data | None = None) -> str:
    """What a plot's numbers are of."""
    place = "lfm2k" if data is not None and data.source != "synthetic" else "built-in data"
    users = f"{scale.synthetic['n_users']:,} users" if place == "built-in data" else "1,858 users"
    return f"{place}, {users}, {len(scale.seeds)} seed{'s' if len(scale.seeds) > 1 else ''}, 95 % intervals"


def variant(name: str) -> str:
    """A model of `variants.py` as the registry takes it."""
    return f"smore_ext.experiments.studies.variants:{name}"
