"""LightGCN (He et al., SIGIR 2020, arXiv 2002.02126): ids smoothed over the interaction graph, nothing else.

With 0 layers it is matrix factorisation trained with BPR. It is also the shortest complete model of this package: a
configuration, parameters, `embeddings()` and `loss()` are all that a model author writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.models.contract import BACKENDS, Batch, check_at_least, check_backend, check_layers, setting, takes_parts
from smore_ext.models.id_embeddings import IdEmbeddings


@dataclass
class LightGCNConfig:
    """Settings of LightGCN; the field's runs use 64 dimensions and tune layers and reg_weight on validation.

    embedding_dim: width d of all embeddings.
    n_ui_layers: layers over the user-item graph; 0 is matrix factorisation.
    reg_weight: weight of the L2 term on the batch's rows of the parameters.
    batch_size: interactions a step, by which the L2 term divides; in a run the loop's.
    backend: native (this package's kernels) or reference (plain PyTorch).
    """

    embedding_dim: int = setting(64, aliases=("embedding_size",))
    n_ui_layers: int = setting(4, aliases=("n_layers",))
    reg_weight: float = setting(1e-4, aliases=("reg_loss",))
    batch_size: int = setting(2048, loop=True)
    backend: str = "native"

    def __post_init__(self) -> None:
        check_at_least("embedding_dim", self.embedding_dim, 1)
        check_layers("n_ui_layers", self.n_ui_layers)
        check_at_least("reg_weight", self.reg_weight, 0)
        check_at_least("batch_size", self.batch_size, 1)
        check_backend(self.backend)


class LightGCN(IdEmbeddings):
    """LightGCN on a dataset's train interactions."""

    config_class = LightGCNConfig
    reads_no_features = True

    def __init__(self, dataset: Dataset, config: LightGCNConfig | None = None) -> None:
        config = config or LightGCNConfig()
        super().__init__(dataset, config.embedding_dim)
        self.config = config

    def embeddings(self) -> tuple[Tensor, Tensor]:
        f = BACKENDS[self.config.backend]
        ids = torch.cat([self.user_embedding.weight, self.item_embedding.weight])  # [U+I, d]
        final = f.propagate(self.bipartite, ids, self.config.n_ui_layers)  # [U+I, d]
        return final.split([self.n_users, self.n_items])

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        """BPR plus L2. The penalty is on the batch's rows of the parameters, as in the paper, not on smoothed rows."""
        f, config = BACKENDS[self.config.backend], self.config
        triples = batch.triples()
        bpr, _ = f.bpr_loss(*self.embeddings(), *triples)
        _, l2 = f.bpr_loss(self.user_embedding.weight, self.item_embedding.weight, *triples)
        reg = config.reg_weight * l2 / config.batch_size
        self.loss_parts = {"bpr": bpr.detach(), "reg": reg.detach()}
        return bpr + reg
