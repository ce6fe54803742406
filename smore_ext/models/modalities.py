"""What models of item features share: which modalities they read, item graphs, raw features that are trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from smore_ext.data import Dataset
from smore_ext.data.graph_cache import item_knn_graph
from smore_ext.data.kept import cache_folder
from smore_ext.graph import Graph
from smore_ext.models.contract import Recommender, check_knn_k
from smore_ext.models.table_linear import TableLinear


def default_cache_dir() -> str | None:
    """Where runs keep item graphs unless they say otherwise."""
    return cache_folder("graphs")


def checked_cache_dir(path: str | None) -> str | None:
    """With ~ as the home directory; `ValueError` where there is none, as a folder named ~ would be made instead."""
    expanded = None if path is None else os.path.expanduser(path)
    if expanded is not None and expanded.startswith("~"):
        raise ValueError(f"cache_dir must be a path, got {path}, and no such home directory is known")
    return expanded


def chosen_modalities(model: str, dataset: Dataset, chosen: Sequence[str] | None = None) -> list[str]:
    """Names of the modalities that a model reads; None: all that the data set has. `ValueError` for one it lacks."""
    known = list(dataset.features)
    names = list(chosen) if chosen is not None else known
    missing = [m for m in names if m not in dataset.features]
    if missing or not names:
        raise ValueError(
            f"{model} needs features of {', '.join(missing) or 'at least one modality'}; dataset "
            f"{dataset.name!r} has {', '.join(known) or 'none'}{dataset.hint}"
        )
    return names


def item_graph(
    dataset: Dataset, modality: str, k: int, cache_dir: str | None = None, device: torch.device | str = "cpu"
) -> Graph:
    """The item graph [I, I] that the data set brings, else that of the k nearest by raw features (`item_knn_graph`)."""
    if modality in dataset.graphs:
        return dataset.graphs[modality]
    check_knn_k(k, dataset)
    return item_knn_graph(dataset.features[modality], k, None if cache_dir is None else Path(cache_dir), device)


class ProjectsFeatures(Recommender):
    """A base of models whose raw features X_m [I, D_m] are parameters, each read through one linear layer.

    `config` has `freeze_features` and `backend`.
    """

    modalities: list[str]
    features: nn.ParameterDict
    projection: nn.ModuleDict

    def add_features(self, dataset: Dataset, width: int) -> None:
        """Makes the tables and their layers to `width` columns, of each of `modalities`."""
        config = self.config
        self.features = nn.ParameterDict()
        for m in self.modalities:
            self.features[m] = nn.Parameter(dataset.features[m].clone(), requires_grad=not config.freeze_features)
        layer = TableLinear if config.backend == "native" else nn.Linear
        self.projection = nn.ModuleDict({m: layer(dataset.features[m].shape[1], width) for m in self.modalities})

    def projected(self, m: str) -> Tensor:
        """X_m W_m^T + b_m, [I, width]."""
        return self.projection[m](self.features[m])

    def of_data(self) -> frozenset[str]:
        frozen = self.modalities if self.config.freeze_features else []
        return frozenset(f"features.{m}" for m in frozen)

    def feature_tables(self) -> list[tuple[nn.Parameter, TableLinear]]:
        if self.config.freeze_features or self.config.backend != "native":
            return []
        return [(self.features[m], cast(TableLinear, self.projection[m])) for m in self.modalities]


class BuildsItemGraphs(ProjectsFeatures):
    """A base of models of item graphs; the third argument of such a class is the device on which they are computed."""

    @classmethod
    def on_device(cls, dataset: Dataset, config: Any, device: torch.device) -> Self:
        return cls(dataset, config, device).to(device)
