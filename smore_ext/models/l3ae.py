"""L3AE (Moon et al., CIKM 2025, arXiv 2508.13500): EASE drawn towards what item texts say, in closed form.

First, weights S between items by features alone: the answer to EASE's question about the features F [D, I] of items
instead of the interactions. Then weights B that predict the interactions X and are near S: the minimum of
|X - X B|^2 + lambda |B|^2 + kappa |B - S|^2 with a zero diagonal. Of several modalities S is the mean. Where a data set
brings an item graph, its neighbours predict an item, with weights of sum 1. While it is fitted, [I, I] is held in
float64 five times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import check_at_least
from smore_ext.models.ease import EASE, LEAST_REG, EASEConfig, regularised_inverse
from smore_ext.models.modalities import chosen_modalities


@dataclass
class L3AEConfig(EASEConfig):
    """Settings of L3AE, to be tuned on validation.

    feature_weight: weight kappa of the distance to the weights by features.
    feature_reg: weight of the L2 term of the weights by features, whose rows have length 1; at least 0.001.
    modalities: names to use, none for text alone, or for all where there is no text.
    """

    feature_weight: float = 10.0
    feature_reg: float = 10.0
    modalities: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("feature_weight", self.feature_weight, 0)
        check_at_least("feature_reg", self.feature_reg, LEAST_REG)
        self.modalities = None if self.modalities is None else tuple(self.modalities)


class L3AE(EASE):
    """L3AE on a dataset with at least one modality."""

    config_class = L3AEConfig
    config: L3AEConfig

    @classmethod
    def features_read(cls, config: L3AEConfig) -> tuple[str, ...] | None:
        return config.modalities

    def __init__(self, dataset: Dataset, config: L3AEConfig | None = None) -> None:
        super().__init__(dataset, config)
        wanted = self.config.modalities or (("text",) if "text" in dataset.features else None)
        self.modalities = chosen_modalities("L3AE", dataset, wanted)

    def fit(self, dataset: Dataset) -> None:
        """B = I + kappa P S - P diag((1 + kappa diag(P S)) / diag(P)), P = (X^T X + (lambda + kappa) I)^-1.

        With the multipliers mu of the zero diagonal, the gradient is zero where (X^T X + (lambda + kappa) I) B =
        X^T X + kappa S - diag(mu), and P X^T X = I - (lambda + kappa) P.
        """
        kappa = self.config.feature_weight
        p = regularised_inverse(self.gram(dataset), self.config.reg_weight + kappa)
        pulled = kappa * (p @ self.semantic(dataset))  # kappa P S
        b = pulled.sub_(p * ((1 + pulled.diagonal()) / p.diagonal())).fill_diagonal_(0)
        self.weight = b.to(self.weight)

    def semantic(self, dataset: Dataset) -> Tensor:
        """S [I, I] in float64: the mean of the modalities' weights."""
        total = torch.zeros(dataset.n_items, dataset.n_items, dtype=torch.float64)
        for m in self.modalities:
            total += (
                graph_weights(dataset.graphs[m])
                if m in dataset.graphs
                else feature_weights(dataset.features[m], self.config.feature_reg)
            )
        return total.div_(len(self.modalities))


def feature_weights(features: Tensor, reg_weight: float) -> Tensor:
    """EASE's weights of unit feature rows [I, D]: columns of F are items, F^T F their cosine kernel."""
    unit = F.normalize(features.double(), dim=1)
    inverse = regularised_inverse(unit @ unit.T, reg_weight)
    return inverse.div_(-inverse.diagonal().clone()).fill_diagonal_(0)


def graph_weights(graph: Graph) -> Tensor:
    """Weights of an item graph without its self-loops, divided by sums over rows; column j holds those of row j."""
    kept = graph.drop_edges(graph.row != graph.col)
    return torch.from_numpy(kept.normalized("rw").to_scipy().toarray()).double().T
