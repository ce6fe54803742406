"""Turbo-CF (Park et al., SIGIR 2024, arXiv 2404.14243): a polynomial low-pass filter of item similarities, untrained.

A user's row r of the interactions R is a signal on the items' graph P, and r p(P) are the scores, for a polynomial p.
With X = D_U^-a R D_I^(a-1), degrees D, P holds the entries of X^T X to the power s. For a = 1/2 and s = 1 it is the
normalised graph of GF-CF, whose linear filter is p(P) = P (Shen et al., CIKM 2021, arXiv 2108.07567).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import BACKENDS, check_at_least, check_backend
from smore_ext.models.cooccurrence import ItemMatrix, degrees, gram


@dataclass
class TurboCFConfig:
    """Settings of Turbo-CF, to be tuned on validation.

    user_exponent: a, 0 to 1: how far many interactions of a user count less; those of an item by 1 - a.
    similarity_exponent: s, above 0: large similarities count more above 1, less below.
    polynomial: its coefficients p_0,p_1,...; 0,1 is the linear filter, 0,2,-1 the second of the paper.
    backend: native (this package's kernels) or reference (plain PyTorch) for the scores.
    """

    user_exponent: float = 0.5
    similarity_exponent: float = 1.0
    polynomial: tuple[float, ...] = (0.0, 1.0)
    backend: str = "native"

    def __post_init__(self) -> None:
        if not 0 <= self.user_exponent <= 1:
            raise ValueError(f"user_exponent must be in 0..1, got {self.user_exponent}")
        check_at_least("similarity_exponent", self.similarity_exponent, 1e-3)
        self.polynomial = tuple(self.polynomial)
        if len(self.polynomial) < 2:
            raise ValueError(f"polynomial must have at least two coefficients, got {list(self.polynomial)}")
        check_backend(self.backend)


class TurboCF(ItemMatrix):
    """Turbo-CF on the train interactions."""

    config_class = TurboCFConfig
    reads_no_features = True

    def __init__(self, dataset: Dataset, config: TurboCFConfig | None = None) -> None:
        super().__init__()
        self.config = config or TurboCFConfig()
        self.add_matrix(dataset.seen)

    def fit(self, dataset: Dataset) -> None:
        users, items = degrees(dataset.seen)
        a = self.config.user_exponent
        similar = gram(dataset.seen, users.pow(-a), items.pow(a - 1))
        self.keep(similar.with_weight(similar.weight.pow(self.config.similarity_exponent)))

    def after_load(self) -> None:
        super().after_load()
        self.matrix = self.matrix.paired(self.matrix)  # P is symmetric

    def history_scores(self, had: Graph) -> Tensor:
        """r p(P) = (p(P) r^T)^T."""
        f, polynomial = BACKENDS[self.config.backend], torch.tensor(self.config.polynomial)
        return f.poly_filter(self.matrix, self.columns(had), polynomial.to(self.weight)).T  # [B, I]
