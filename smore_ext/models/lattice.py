"""LATTICE (Zhang et al., MM 2021, arXiv 2104.09036): item-item structure of each modality, relearned while training.

A modality has two graphs of nearest items: an initial one from raw features, which stays, and a learned one from
projected features. The neighbours of the second are found anew at the start of each epoch; the weights of its edges
follow the projection at every step, and the ranking loss trains them. As in the code behind the published numbers, L2
is on the batch's final embeddings; unlike there, raw features are not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext import ops
from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import BACKENDS, Batch, check_at_least, check_knn_k, check_layers, setting, takes_parts
from smore_ext.models.lightgcn import LightGCN, LightGCNConfig
from smore_ext.models.modalities import chosen_modalities


@dataclass
class LATTICEConfig(LightGCNConfig):
    """Settings of LATTICE; defaults as published.

    embedding_dim: width d of all embeddings.
    n_ui_layers: layers over the user-item graph.
    reg_weight: weight of the L2 term on the batch's final embeddings.
    batch_size: interactions a step, by which the L2 term divides; in a run the loop's.
    backend: native (this package's kernels) or reference (plain PyTorch).
    feature_dim: width of the projected features.
    knn_k: neighbours of an item in each graph that is built, itself among them.
    n_mm_layers: layers over the item-item graph.
    initial_weight: share lambda of the initial graph, 0 to 1; the rest is the learned one's.
    """

    unread: ClassVar[tuple[str, ...]] = ("mess_dropout",)  # in published files, and of another cf_model
    only: ClassVar[dict[str, str]] = {"cf_model": "lightgcn"}
    translated: ClassVar[dict[str, Any]] = {"weight_size": ("n_ui_layers", len)}  # a layer a width

    n_ui_layers: int = 2
    feature_dim: int = setting(64, aliases=("feat_embed_dim",))
    knn_k: int = 10
    n_mm_layers: int = setting(1, aliases=("n_layers",))
    initial_weight: float = setting(0.9, aliases=("lambda_coeff",))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("feature_dim", self.feature_dim, 1)
        check_at_least("knn_k", self.knn_k, 1)
        check_layers("n_mm_layers", self.n_mm_layers, 1)
        if not 0 <= self.initial_weight <= 1:
            raise ValueError(f"initial_weight must be in 0..1, got {self.initial_weight}")


class LATTICE(LightGCN):
    """LightGCN whose items gain their ids smoothed over the item-item graph."""

    config_class = LATTICEConfig
    neighbours: Tensor
    learned: list[Graph]
    initial: list[Graph]

    def __init__(self, dataset: Dataset, config: LATTICEConfig | None = None) -> None:
        config = config or LATTICEConfig()
        super().__init__(dataset, config)
        check_knn_k(config.knn_k, dataset)
        self.modalities = chosen_modalities("LATTICE", dataset)
        for m, features in dataset.features.items():
            self.register_buffer(f"features_{m}", features, persistent=False)  # [I, D_m]
        self.initial = [
            dataset.graphs[m] if m in dataset.graphs else Graph.knn(features, config.knn_k, floor=0.0)
            for m, features in dataset.features.items()
        ]
        self.projection = nn.ModuleDict(
            {m: nn.Linear(features.shape[1], config.feature_dim) for m, features in dataset.features.items()}
        )
        self.modality_weight = nn.Parameter(torch.zeros(len(self.modalities)))  # [M], before the softmax
        shape = (len(self.modalities), dataset.n_items, config.knn_k)
        self.register_buffer("neighbours", torch.zeros(shape, dtype=torch.int64))  # ascending in a row
        with torch.no_grad():
            self._find_neighbours()

    def projected(self, m: str) -> Tensor:
        return self.projection[m](getattr(self, f"features_{m}"))  # [I, feature_dim]

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool:
        self._find_neighbours()
        return True  # new graphs

    def _find_neighbours(self) -> None:
        for m, neighbours in zip(self.modalities, self.neighbours, strict=True):
            index = ops.knn(self.projected(m), self.config.knn_k)[1]
            neighbours.copy_(index.sort(dim=1).values)  # the order of a graph's edges
        self.after_load()

    def after_load(self) -> None:
        """The learned graphs of the stored neighbours."""
        row = torch.arange(self.n_items, device=self.neighbours.device).repeat_interleave(self.config.knn_k)
        shape = (self.n_items, self.n_items)
        self.learned = [Graph.from_edges(row, index.flatten(), None, shape) for index in self.neighbours]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items = super().embeddings()
        return users, items + self._content()

    def item_parts(self) -> dict[str, Tensor]:
        """LightGCN's items, and what comes over the item-item graph."""
        return {"behaviour": super().embeddings()[1], "content": self._content()}

    def _content(self) -> Tensor:
        """Ids smoothed over the item-item graph, of length 1, [I, d]."""
        smooth, edges = self.item_embedding.weight, self.learned_edges()  # [I, d]
        for _ in range(self.config.n_mm_layers):
            smooth = self._product(edges, smooth)
        return F.normalize(smooth)

    def learned_edges(self) -> list[tuple[Tensor, Tensor]]:
        """Of each learned graph: edges' similarities [I k] in stored order, negative ones as 0, and D^-1/2 [I, 1]."""
        f, edges = BACKENDS[self.config.backend], []
        for m, neighbours in zip(self.modalities, self.neighbours, strict=True):
            similarity = f.cosine_at(self.projected(m), neighbours).relu()  # [I, k]
            degree = similarity.sum(dim=1, keepdim=True)  # at least 1, the item's own; of a zero row 0
            edges.append((similarity.flatten(), degree.clamp(min=1).rsqrt()))
        return edges

    def _product(self, edges: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
        """A x with A = sum over m of alpha_m (lambda S_m + (1 - lambda) D_m^-1/2 L_m D_m^-1/2), alpha a softmax."""
        f, share = BACKENDS[self.config.backend], self.config.initial_weight
        out = torch.zeros_like(x)
        for n, alpha in enumerate(self.modality_weight.softmax(dim=0)):
            similarity, scale = edges[n]
            learned = scale * f.spmm(self.learned[n], scale * x, weight=similarity)
            out = out + alpha * (share * f.spmm(self.initial[n], x) + (1 - share) * learned)
        return out

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        bpr, l2 = BACKENDS[self.config.backend].bpr_loss(*self.embeddings(), *batch.triples())
        reg = self.config.reg_weight * l2 / self.config.batch_size
        self.loss_parts = {"bpr": bpr.detach(), "reg": reg.detach()}
        return bpr + reg

    def statistics(self) -> dict[str, float]:
        """The share of each modality."""
        return dict(zip(self.modalities, self.modality_weight.detach().softmax(dim=0).tolist(), strict=True))
