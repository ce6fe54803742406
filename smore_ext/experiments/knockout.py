"""A trained model asked to rank with content that was taken away, or that belongs to other items."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models import Recommender
from smore_ext.runs.load import LoadedRun
from smore_ext.settings.config import RunConfig, without_places
from smore_ext.training import checkpoint
from smore_ext.training.device import usable_device
from smore_ext.training.loop import build_model

Change = Literal["removed", "exchanged"]


def without_content(run: LoadedRun, names: tuple[str, ...], change: Change, seed: int = 0) -> Recommender:
    """The run's model, its weights as they are, on data whose content of the modalities `names` was changed.

    removed: every item has the mean of the features, and the item graph has no edges. exchanged: items have the
    features, and the graph's edges, of others, by one permutation for all modalities. Feature tables that were trained
    are changed alike. What a model has learned from content in other forms (LATTICE's stored neighbours) stays.
    """
    return without_content_of(run.model, run.dataset, run.config, names, change, seed)


def without_content_of(
    trained: Recommender,
    dataset: Dataset,
    config: RunConfig,
    names: tuple[str, ...],
    change: Change,
    seed: int = 0,
    share: float = 1.0,
) -> Recommender:
    """The same of a model that was trained on `dataset` under `config`. `share`: of the items whose content is
    exchanged, in a ring among them."""
    order = torch.randperm(dataset.n_items, generator=torch.Generator().manual_seed(seed))
    if share < 1:
        chosen, order = order[: round(share * dataset.n_items)], torch.arange(dataset.n_items)
        order[chosen] = chosen.roll(1)
    config = without_places(config)  # these graphs are not kept
    model = build_model(config, changed(dataset, names, change, order), usable_device(config.train.device))
    weights = checkpoint.weights_of(trained)
    for m in names:
        if (table := weights.get(name := f"features.{m}")) is not None:
            weights[name] = changed_rows(table, change, order.to(table.device))
    checkpoint.load_weights(model, weights)
    return model.eval()


def changed(dataset: Dataset, names: tuple[str, ...], change: Change, order: Tensor) -> Dataset:
    """A data set with other content; interactions are the same."""
    features, graphs = dict(dataset.features), dict(dataset.graphs)
    for m in names:
        if m in features:
            features[m] = changed_rows(features[m], change, order)
        if change == "removed":
            none = torch.empty(0, dtype=torch.int64)
            graphs[m] = Graph.from_edges(none, none, None, (dataset.n_items, dataset.n_items))
        elif m in graphs:
            graph, place = graphs[m], order.argsort()  # row i becomes row order^-1(i): item j has what order(j) had
            edges = place[graph.row.long()], place[graph.col.long()]
            graphs[m] = Graph.from_edges(*edges, graph.weight, graph.shape)
    return dataclasses.replace(dataset, features=features, graphs=graphs)


def changed_rows(rows: Tensor, change: Change, order: Tensor) -> Tensor:
    """Features [I, D] without what tells items apart, or in another order."""
    rows = rows.detach()
    return rows.mean(dim=0, keepdim=True).expand_as(rows).clone() if change == "removed" else rows[order]
