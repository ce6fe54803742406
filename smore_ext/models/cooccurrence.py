"""Items that the same users have: sparse item-item matrices of training-free models, and how a checkpoint holds one."""

from __future__ import annotations

import torch
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.models.contract import Recommender


def gram(seen: Graph, user_weight: Tensor, item_weight: Tensor) -> Graph:
    """X^T X of X = diag(user_weight) R diag(item_weight): [I, I], symmetric, in float64.

    Args:
        seen: the binary interactions R [U, I].
        user_weight, item_weight: [U] and [I], float64.
    """
    r = seen.to_scipy().astype("float64")
    x = r.multiply(user_weight.numpy()[:, None]).multiply(item_weight.numpy()).tocsr()
    return Graph.from_scipy(x.T @ x)


def degrees(seen: Graph) -> tuple[Tensor, Tensor]:
    """Interactions of each user [U] and of each item [I], float64; 1 where there are none, to divide by."""
    users, items = (matrix.rowptr.diff().double().clamp(min=1) for matrix in (seen, seen.t))
    return users, items


class ItemMatrix(Recommender):
    """A base of models whose result is a sparse matrix of items, which `fit` hands to `keep`.

    It is kept edge by edge in buffers, so that a checkpoint holds it. Scores of a user are what `matrix` makes of the
    user's row of the interactions: a derived class has `history_scores`.
    """

    row: Tensor
    col: Tensor
    weight: Tensor
    matrix: Graph
    seen: Graph

    def add_matrix(self, seen: Graph) -> None:
        self.seen = seen  # [U, I], binary
        for name in ("row", "col"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))  # shapes come from fit, or a checkpoint
        self.register_buffer("weight", torch.empty(0))

    def keep(self, matrix: Graph) -> None:
        self.row, self.col = matrix.row.to(self.row), matrix.col.to(self.col)
        self.weight = matrix.weight.to(self.weight)
        self.after_load()

    def after_load(self) -> None:
        self.matrix = Graph.from_edges(self.row, self.col, self.weight, (self.seen.n_cols, self.seen.n_cols))

    def scores(self, users: Tensor) -> Tensor:
        return self.history_scores(self.seen.rows(users))

    def columns(self, had: Graph) -> Tensor:
        """Columns [I, B] of the items in the rows of `had` [B, I]."""
        columns = self.weight.new_zeros(had.n_cols, had.n_rows)
        columns[had.col.long(), had.row.long()] = 1
        return columns
