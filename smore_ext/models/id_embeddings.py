"""What models of graphs begin with: an embedding of each user and item, and the graph of the train interactions."""

from __future__ import annotations

from torch import nn

from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import Recommender


class IdEmbeddings(Recommender):
    """A base of models: `user_embedding` [U, d], `item_embedding` [I, d] and `bipartite` [U+I, U+I]."""

    def __init__(self, dataset: Dataset, embedding_dim: int) -> None:
        super().__init__()
        self.bipartite = Graph.bipartite(*dataset.train, dataset.n_users, dataset.n_items)
        self.user_embedding = nn.Embedding(dataset.n_users, embedding_dim)
        self.item_embedding = nn.Embedding(dataset.n_items, embedding_dim)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_embedding.weight)
