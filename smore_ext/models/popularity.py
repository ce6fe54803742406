"""Popularity: every user is shown the items most often interacted with in train. The floor for any model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.models.contract import Recommender


@dataclass
class PopularityConfig:
    """Nothing to set."""


class Popularity(Recommender):
    """Items scored by their number of train interactions. No parameters, nothing to train."""

    config_class = PopularityConfig
    reads_no_features = True
    users: Tensor
    items: Tensor

    def __init__(self, dataset: Dataset, config: PopularityConfig | None = None) -> None:
        super().__init__()
        self.config = config or PopularityConfig()
        counts = torch.bincount(dataset.train.items, minlength=dataset.n_items)
        self.register_buffer("items", counts.float()[:, None], persistent=False)  # [I, 1]
        self.register_buffer("users", torch.ones(dataset.n_users, 1), persistent=False)  # [U, 1]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items
