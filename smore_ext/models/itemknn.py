"""ItemKNN (Sarwar et al., WWW 2001): items are recommended that are like those a user has; nothing is trained.

Cosine similarity of two items' columns of the interactions, with a shrinkage h that discounts what few users say (Bell
and Koren, KDD Cup 2007): s_ij = n_ij / (sqrt(n_i n_j) + h), n users who have an item, or both. Of each item the k most
similar vote, and a score is the sum of the votes of the items that the user has.
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
class ItemKNNConfig:
    """Settings of ItemKNN, to be tuned on validation.

    n_neighbours: items that vote for an item, k.
    shrinkage: h, added to the denominator of a similarity.
    backend: native (this package's kernels) or reference (plain PyTorch) for the scores.
    """

    n_neighbours: int = 100
    shrinkage: float = 10.0
    backend: str = "native"

    def __post_init__(self) -> None:
        check_at_least("n_neighbours", self.n_neighbours, 1)
        check_at_least("shrinkage", self.shrinkage, 0)
        check_backend(self.backend)


class ItemKNN(ItemMatrix):
    """ItemKNN on the train interactions."""

    config_class = ItemKNNConfig
    reads_no_features = True

    def __init__(self, dataset: Dataset, config: ItemKNNConfig | None = None) -> None:
        super().__init__()
        self.config = config or ItemKNNConfig()
        self.add_matrix(dataset.seen)

    def fit(self, dataset: Dataset) -> None:
        users, items = degrees(dataset.seen)
        together = gram(dataset.seen, torch.ones_like(users), torch.ones_like(items))  # n_ij
        together = together.drop_edges(together.row != together.col)
        length = (items[together.row.long()] * items[together.col.long()]).sqrt()
        similar = together.with_weight(together.weight / (length + self.config.shrinkage))
        self.keep(largest_of_rows(similar, self.config.n_neighbours))

    def history_scores(self, had: Graph) -> Tensor:
        return BACKENDS[self.config.backend].spmm(self.matrix, self.columns(had)).T  # [B, I]


def largest_of_rows(graph: Graph, k: int) -> Graph:
    """The k edges of largest weight of each row; of equal ones those of lower columns."""
    order = graph.weight.argsort(descending=True, stable=True)
    order = order[graph.row[order].argsort(stable=True)]  # by row, weights descending, columns ascending
    place = torch.arange(graph.n_edges) - graph.rowptr[graph.row.long()]
    return graph.drop_edges(order[place < k])
