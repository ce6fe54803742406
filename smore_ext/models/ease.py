"""EASE (Steck, WWW 2019, arXiv 1905.03375): linear weights between items, in closed form.

B is the least-squares answer to "predict each entry of a user's row of the interactions X from the other entries", with
an L2 term and a zero diagonal. While it is fitted, [I, I] is held in float64 three times: for some 20,000 items 10 GB.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import BACKENDS, Recommender, check_at_least, check_backend

LEAST_REG = 1e-3  # X^T X has rank U at most: the L2 term alone makes it invertible, and 1e-3 is far above rounding


@dataclass
class EASEConfig:
    """Settings of EASE; the weight of the L2 term is tuned on validation.

    reg_weight: weight lambda of the L2 term, in interactions an item; at least 0.001.
    backend: native (this package's kernels) or reference (plain PyTorch) for the scores.
    """

    reg_weight: float = 100.0
    backend: str = "native"

    def __post_init__(self) -> None:
        check_at_least("reg_weight", self.reg_weight, LEAST_REG)
        check_backend(self.backend)


class EASE(Recommender):
    """Scores of a user are the user's row of the train interactions times item-item weights [I, I]."""

    config_class = EASEConfig
    reads_no_features = True
    config: EASEConfig
    weight: Tensor

    def __init__(self, dataset: Dataset, config: EASEConfig | None = None) -> None:
        super().__init__()
        self.config = config or self.config_class()
        self.seen = dataset.seen  # X [U, I], binary
        self.register_buffer("weight", torch.empty(0))  # B: fit, or a checkpoint, gives it its shape

    def fit(self, dataset: Dataset) -> None:
        """P = (X^T X + lambda I)^-1 in float64; B_ij = -P_ij / P_jj, B_jj = 0."""
        inverse = regularised_inverse(self.gram(dataset), self.config.reg_weight)  # P
        b = inverse.div_(-inverse.diagonal().clone()).fill_diagonal_(0)
        self.weight = b.to(self.weight)  # float32, on the model's device

    @staticmethod
    def gram(dataset: Dataset) -> Tensor:
        """X^T X [I, I] in float64."""
        x = dataset.seen.to_scipy()
        return torch.from_numpy((x.T @ x).toarray()).double()  # counts, so float32 sums are exact

    def scores(self, users: Tensor) -> Tensor:
        return self.history_scores(self.seen.rows(users))

    def history_scores(self, had: Graph) -> Tensor:
        return BACKENDS[self.config.backend].spmm(had, self.weight)  # [B, I]


def regularised_inverse(gram: Tensor, reg_weight: float) -> Tensor:
    """(G + lambda I)^-1 of a Gram matrix G [I, I], which is overwritten."""
    gram.diagonal().add_(reg_weight)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram))  # G + lambda I is symmetric and positive definite
