"""FREEDOM (Zhou and Shen, MM 2023, arXiv 2211.06924): a frozen item graph, and interactions thinned out each epoch.

Items are LightGCN's plus their ids smoothed over one item graph of unweighted nearest neighbours, that of each modality
with its share. Each epoch trains on a sample of the interactions, those of popular nodes less likely; ranking reads all
of them. Projected features are ranked too, by a BPR term of their own, which is their only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import BACKENDS, Batch, check_at_least, check_backend, check_layers, setting, takes_parts
from smore_ext.models.id_embeddings import IdEmbeddings
from smore_ext.models.modalities import (
    BuildsItemGraphs,
    checked_cache_dir,
    chosen_modalities,
    default_cache_dir,
    item_graph,
)

DEGREE_EPS = 1e-7  # added to degrees of the item graphs


@dataclass
class FREEDOMConfig:
    """Settings of FREEDOM; defaults as published, of what was tuned the first of those searched that is not 0.

    embedding_dim: width d of all embeddings.
    n_ui_layers: layers over the user-item graph.
    n_mm_layers: layers over the item graph.
    knn_k: neighbours of an item in each modality, itself among them.
    image_weight: share of images in the item graph; other modalities have equal shares of the rest.
    edge_dropout: share of the interactions that an epoch does not train on.
    feature_weight: weight lambda of the BPR terms of projected features.
    freeze_features: keep the raw features as they are instead of training them.
    backend: native (this package's kernels) or reference (plain PyTorch).
    cache_dir: where item graphs are kept between runs, none for nowhere.
    """

    # In published files, and ignored by the published code.
    unread: ClassVar[tuple[str, ...]] = ("weight_size", "lambda_coeff", "cf_model", "degree_ratio")

    embedding_dim: int = setting(64, aliases=("embedding_size", "feat_embed_dim"))
    n_ui_layers: int = 2
    n_mm_layers: int = 1
    knn_k: int = 10
    image_weight: float = setting(0.1, aliases=("mm_image_weight",))
    edge_dropout: float = setting(0.8, aliases=("dropout",))
    feature_weight: float = setting(1e-5, aliases=("reg_weight",))
    freeze_features: bool = False
    backend: str = "native"
    cache_dir: str | None = setting(None, changeable=True, run_default=default_cache_dir)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "knn_k"):
            check_at_least(name, getattr(self, name), 1)
        check_layers("n_mm_layers", self.n_mm_layers, 1)
        check_layers("n_ui_layers", self.n_ui_layers)
        check_at_least("feature_weight", self.feature_weight, 0)
        if not 0 <= self.image_weight <= 1:
            raise ValueError(f"image_weight must be in 0..1, got {self.image_weight}")
        if not 0 <= self.edge_dropout < 1:
            raise ValueError(f"edge_dropout must be in [0, 1), got {self.edge_dropout}")
        check_backend(self.backend)
        self.cache_dir = checked_cache_dir(self.cache_dir)


class FREEDOM(BuildsItemGraphs, IdEmbeddings):
    """FREEDOM on a dataset with at least one modality. Item graphs that the data set brings give the neighbours."""

    config_class = FREEDOMConfig

    def __init__(
        self, dataset: Dataset, config: FREEDOMConfig | None = None, knn_device: torch.device | str = "cpu"
    ) -> None:
        """On the CPU. Item graphs are computed on `knn_device`: they are the same from anywhere."""
        config = config or FREEDOMConfig()
        super().__init__(dataset, config.embedding_dim)
        self.config = config
        self.modalities = chosen_modalities("FREEDOM", dataset)
        self.add_features(dataset, config.embedding_dim)
        graphs = [item_graph(dataset, m, config.knn_k, config.cache_dir, knn_device) for m in self.modalities]
        shares = modality_shares(self.modalities, config.image_weight)
        self.item_graph = Graph.weighted_sum([unweighted(graph) for graph in graphs], shares)
        self.edges = dataset.train  # on the CPU: graphs are built there
        degree = [torch.bincount(nodes)[nodes].double() for nodes in dataset.train]
        self.chance = (degree[0] * degree[1]).rsqrt()  # [E], of staying
        self.sampled = self.bipartite

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool:
        """Draws the epoch's interactions without replacement: those first in a race at speeds `chance`."""
        n = max(1, len(self.chance) - round(self.config.edge_dropout * len(self.chance)))
        race = torch.empty_like(self.chance).exponential_(generator=generator) / self.chance
        kept = race.topk(n, largest=False).indices
        users, items = (nodes[kept] for nodes in self.edges)
        sampled = Graph.bipartite(users, items, self.n_users, self.n_items)
        self.sampled = sampled.to(self.user_embedding.weight.device)
        return True  # a new graph

    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items = self._behaviour()
        return users, items + self._content()

    def item_parts(self) -> dict[str, Tensor]:
        """LightGCN's items, and what comes over the item graph."""
        return {"behaviour": self._behaviour()[1], "content": self._content()}

    def _behaviour(self) -> tuple[Tensor, Tensor]:
        ids = torch.cat([self.user_embedding.weight, self.item_embedding.weight])  # [U+I, d]
        graph = self.sampled if self.training else self.bipartite
        nodes = BACKENDS[self.config.backend].propagate(graph, ids, self.config.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items

    def _content(self) -> Tensor:
        """Ids smoothed over the item graph, [I, d]."""
        f, config = BACKENDS[self.config.backend], self.config
        return f.propagate(self.item_graph, self.item_embedding.weight, config.n_mm_layers, "last")

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        f, triples = BACKENDS[self.config.backend], batch.triples()
        users, items = self.embeddings()
        bpr, _ = f.bpr_loss(users, items, *triples)
        of_features = [f.bpr_loss(users, self.projected(m), *triples)[0] for m in self.modalities]
        feature = self.config.feature_weight * torch.stack(of_features).sum()
        self.loss_parts = {"bpr": bpr.detach(), "feature": feature.detach()}
        return bpr + feature


def unweighted(graph: Graph) -> Graph:
    """D^-1/2 A D^-1/2 of a graph's edges A without their weights."""
    return graph.with_weight(torch.ones_like(graph.weight)).normalized("sym", DEGREE_EPS)


def modality_shares(modalities: list[str], image_weight: float) -> list[float]:
    """Shares of the modalities' item graphs, 1 in sum: that of "image", the rest equally."""
    if "image" not in modalities or len(modalities) == 1:
        return [1 / len(modalities)] * len(modalities)
    rest = (1 - image_weight) / (len(modalities) - 1)
    return [image_weight if m == "image" else rest for m in modalities]
