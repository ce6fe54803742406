"""VBPR (He and McAuley, AAAI 2016, arXiv 1510.01784): matrix factorisation over ids and over projected item features.

x_ui = b_i + u.i + v_u.(E f_i) + b.f_i, equation 4 without the terms that are the same for all items of a user. Features
f_i of all modalities stand side by side and are not trained. L2 is on the batch's rows of ids and biases; E and b are
free of it, as in the paper's experiments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext.data import Dataset
from smore_ext.models.contract import (
    BACKENDS,
    Batch,
    Recommender,
    check_at_least,
    check_backend,
    distinct,
    setting,
    takes_parts,
)
from smore_ext.models.modalities import chosen_modalities


@dataclass
class VBPRConfig:
    """Settings of VBPR; the field's runs use 64 dimensions of each kind and tune reg_weight on validation.

    embedding_dim: width d of ids.
    feature_dim: width of the projected features, and of what a user has for them.
    reg_weight: weight of the L2 term on the batch's ids and biases.
    batch_size: interactions a step, by which the L2 term divides; in a run the loop's.
    backend: native (this package's kernels) or reference (plain PyTorch).
    """

    embedding_dim: int = setting(64, aliases=("embedding_size",))
    feature_dim: int = setting(64, aliases=("feat_embed_dim",))
    reg_weight: float = setting(1e-4, aliases=("reg_loss",))
    batch_size: int = setting(2048, loop=True)
    backend: str = "native"

    def __post_init__(self) -> None:
        check_at_least("embedding_dim", self.embedding_dim, 1)
        check_at_least("feature_dim", self.feature_dim, 1)
        check_at_least("reg_weight", self.reg_weight, 0)
        check_at_least("batch_size", self.batch_size, 1)
        check_backend(self.backend)


class VBPR(Recommender):
    """VBPR on a dataset with at least one modality."""

    config_class = VBPRConfig
    features: Tensor

    def __init__(self, dataset: Dataset, config: VBPRConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VBPRConfig()
        features = {m: dataset.features[m] for m in chosen_modalities("VBPR", dataset)}
        self.widths = {m: table.shape[1] for m, table in features.items()}  # of the columns of f, in this order
        self.register_buffer("features", torch.cat(list(features.values()), dim=1), persistent=False)  # f [I, D]
        self.user_embedding = nn.Embedding(dataset.n_users, config.embedding_dim)
        self.item_embedding = nn.Embedding(dataset.n_items, config.embedding_dim)
        self.user_preference = nn.Embedding(dataset.n_users, config.feature_dim)  # v
        self.item_bias = nn.Embedding(dataset.n_items, 1)
        self.projection = nn.Linear(self.features.shape[1], config.feature_dim, bias=False)  # E
        self.feature_bias = nn.Linear(self.features.shape[1], 1, bias=False)  # b
        for layer in (self.user_embedding, self.item_embedding, self.user_preference, self.projection):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.item_bias, self.feature_bias):
            nn.init.zeros_(layer.weight)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Rows whose dot product is x_ui: [u, v_u, 1] and [i, E f_i, b_i + b.f_i]."""
        items = self._items(self.item_embedding.weight, self.item_bias.weight, self.features)
        return self._users(self.user_embedding.weight, self.user_preference.weight), items

    def item_parts(self) -> dict[str, Tensor]:
        """Ids with their biases, and each modality's share of E f and b.f."""
        ids, bias = self.item_embedding.weight, self.item_bias.weight
        parts = {"behaviour": torch.cat([ids, ids.new_zeros(self.n_items, self.config.feature_dim), bias], dim=1)}
        weight = torch.cat([self.projection.weight, self.feature_bias.weight])  # [feature_dim + 1, D]
        widths = list(self.widths.values())
        shares = zip(self.widths, self.features.split(widths, dim=1), weight.split(widths, dim=1), strict=True)
        parts |= {m: torch.cat([torch.zeros_like(ids), table @ of_m.T], dim=1) for m, table, of_m in shares}
        return parts

    def _users(self, ids: Tensor, preference: Tensor) -> Tensor:
        return torch.cat([ids, preference, torch.ones_like(ids[:, :1])], dim=1)

    def _items(self, ids: Tensor, bias: Tensor, features: Tensor) -> Tensor:
        return torch.cat([ids, self.projection(features), bias + self.feature_bias(features)], dim=1)

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        """Projects the features of the batch's items alone: on the data sets of the field about a third of all."""
        users, positives, negatives = batch.triples()
        items, place = distinct(torch.cat([positives, negatives]))
        u, preference = (F.embedding(users, table.weight) for table in (self.user_embedding, self.user_preference))
        i, bias = (F.embedding(items, table.weight) for table in (self.item_embedding, self.item_bias))
        rows = self._users(u, preference), self._items(i, bias, self.features[items])
        at = torch.arange(len(users), device=users.device), *place.split(len(users))
        bpr, _ = BACKENDS[self.config.backend].bpr_loss(*rows, *at)
        squares = [table[nodes].square().sum() for table in (i, bias) for nodes in at[1:]]
        l2 = torch.stack([u.square().sum(), preference.square().sum(), *squares]).sum() / 2
        reg = self.config.reg_weight * l2 / self.config.batch_size
        self.loss_parts = {"bpr": bpr.detach(), "reg": reg.detach()}
        return bpr + reg
