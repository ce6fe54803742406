"""BM3 (Zhou et al., WWW 2023, arXiv 2207.05969): users and items drawn to each other and to features, no negatives.

A view h of a node predicts, through one linear layer p, another view with dropout and without gradient:
C(x, y) = -cos(p(x), dropout(y)). Three terms: users and items predict each other, an item's features its id, and its
features themselves. As in the code behind the published numbers, the last two have a weight of their own, and the
penalty takes norms of the batch's views that are not squared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext.data import Dataset
from smore_ext.models.contract import Batch, check_at_least, setting, takes_parts
from smore_ext.models.lightgcn import LightGCN, LightGCNConfig
from smore_ext.models.modalities import ProjectsFeatures, chosen_modalities


@dataclass
class BM3Config(LightGCNConfig):
    """Settings of BM3; defaults as its authors give them for Amazon Baby.

    embedding_dim: width d of all embeddings.
    n_ui_layers: layers over the user-item graph.
    reg_weight: weight of the norms of the batch's users and items.
    batch_size: interactions a step, by which the norms are divided; in a run the loop's.
    backend: native (this package's kernels) or reference (plain PyTorch).
    feature_weight: weight of the terms of features.
    dropout: share of what is predicted that is dropped.
    freeze_features: keep the raw features as they are instead of training them.
    """

    unread: ClassVar[tuple[str, ...]] = ("feat_embed_dim",)  # in published files; published code has embedding_size

    n_ui_layers: int = setting(1, aliases=("n_layers",))
    reg_weight: float = 0.1
    feature_weight: float = setting(2.0, aliases=("cl_weight",))
    dropout: float = 0.5
    freeze_features: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("feature_weight", self.feature_weight, 0)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class BM3(ProjectsFeatures, LightGCN):
    """BM3 on a dataset with at least one modality. Its batches need no negatives."""

    config_class = BM3Config
    sampler = "none"

    def __init__(self, dataset: Dataset, config: BM3Config | None = None) -> None:
        config = config or BM3Config()
        super().__init__(dataset, config)
        self.modalities = chosen_modalities("BM3", dataset)
        self.add_features(dataset, config.embedding_dim)
        self.predictor = nn.Linear(config.embedding_dim, config.embedding_dim)  # p

    def views(self) -> tuple[Tensor, Tensor]:
        """Views by ids of users [U, d] and items [I, d]: means over layers, for items with their ids once more."""
        users, items = super().embeddings()
        return users, items + self.item_embedding.weight

    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items = self.views()
        return self.predictor(users), self.predictor(items)

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        config = self.config
        users, items = self.views()
        user, item = F.embedding(batch.users, users), F.embedding(batch.positives, items)  # [B, d]
        target_user, target_item = self._target(user), self._target(item)
        rec = self._term(user, target_item) + self._term(item, target_user)
        align, mask = rec.new_zeros(()), rec.new_zeros(())
        for m in self.modalities:
            feature = F.embedding(batch.positives, self.projected(m))  # [B, d]
            align = align + self._term(feature, target_item)
            mask = mask + self._term(feature, self._target(feature))
        reg = config.reg_weight * (user.norm() + item.norm()) / config.batch_size
        parts = {"rec": rec, "align": config.feature_weight * align, "mask": config.feature_weight * mask, "reg": reg}
        self.loss_parts = {name: part.detach() for name, part in parts.items()}
        return torch.stack(list(parts.values())).sum()

    def _target(self, view: Tensor) -> Tensor:
        return F.dropout(view.detach(), self.config.dropout, self.training)

    def _term(self, view: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch of -cos(p(view), target)."""
        return -F.cosine_similarity(self.predictor(view), target).mean()
