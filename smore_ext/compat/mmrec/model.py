"""A model of this package as a class of somebody's tree."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.models.contract import Batch, Recommender
from smore_ext.models.registry import DEFAULT_MODEL, MODELS
from smore_ext.settings.fields import settings_of
from smore_ext.settings.foreign import own_settings


class Loader(Protocol):
    """What a tree's training loader gives."""

    def inter_matrix(self, form: str = "coo") -> Any: ...


def recommender(base: type, model: str = DEFAULT_MODEL) -> Any:
    """A class for a file in the tree's `src/models/`, which runs a model of this package under the tree's trainer.

        from common.abstract_recommender import GeneralRecommender
        from smore_ext.compat.mmrec import recommender

        SMORENative = recommender(GeneralRecommender, "SMORE")   # src/models/smorenative.py

    Args:
        base: the tree's `GeneralRecommender`: it reads `v_feat`, `t_feat`, `n_users`, `n_items`.
        model: name of a model here that is trained by steps.

    Settings come from the tree's own configuration, by this package's names for them or by the tree's
    (`embedding_size`, `n_layers`, `image_knn_k`, ...). The native model is the attribute `native`.

    Raises:
        UnknownName: no model of that name.
        ValueError: a model in closed form.
    """
    native = MODELS[model]
    if native.fit is not Recommender.fit:
        raise ValueError(f"recommender: {model} is fitted in closed form, which a trainer of epochs cannot do")

    class Native(base):  # type: ignore[misc]
        def __init__(self, config: Any, dataloader: Loader) -> None:
            super().__init__(config, dataloader)
            matrix = dataloader.inter_matrix(form="coo")
            features = {"image": getattr(self, "v_feat", None), "text": getattr(self, "t_feat", None)}
            self.v_feat = self.t_feat = None  # the model has its own
            nothing = torch.empty(0, dtype=torch.int64)
            data = Dataset.from_pairs(
                str(config["dataset"]),
                self.n_users,
                self.n_items,
                (torch.as_tensor(matrix.row).long(), torch.as_tensor(matrix.col).long()),
                (nothing, nothing),
                (nothing, nothing),
                {name: value.cpu() for name, value in features.items() if value is not None},
            )
            cls = native.config_class
            loop = {"batch_size": config["train_batch_size"]} if _has(cls, "batch_size") else {}
            self.native = native(data, cls(**own_settings(cls, config), **loop))
            self._epoch = 0

        def pre_epoch_processing(self) -> None:
            generator = torch.Generator().manual_seed((torch.initial_seed() + self._epoch) % 2**63)
            with torch.no_grad():
                self.native.begin_epoch(self._epoch, generator)
            self._epoch += 1

        def forward(self) -> tuple[Tensor, Tensor]:
            return self.native.embeddings()

        def calculate_loss(self, interaction: Tensor) -> Tensor:
            negatives = interaction[2] if len(interaction) > 2 else None
            return self.native.loss(Batch(interaction[0], interaction[1], negatives))

        def full_sort_predict(self, interaction: Any) -> Tensor:
            if not self.native.factored:
                return self.native.scores(interaction[0])
            users, items = self.native.embeddings()
            return torch.matmul(users[interaction[0]], items.t())

    Native.__name__ = Native.__qualname__ = f"{model}Native"
    return Native


def _has(cls: type, name: str) -> bool:
    """A field of the loop's, which `settings_of` leaves out."""
    return name in getattr(cls, "__dataclass_fields__", {}) and name not in settings_of(cls)
