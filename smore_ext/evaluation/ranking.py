"""Which items a model ranks first for some users: by dot products of embeddings, or by the scores it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.graph import Graph
from smore_ext.ops.csr import CsrMatrix

BLOCK_SCORES = 1 << 24  # scores held at once: 64 MB in float32


class Model(Protocol):
    """What is ranked: any module with `embeddings`, or with `scores` and `factored` false."""

    training: bool

    def eval(self) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...

    def embeddings(self) -> tuple[Tensor, Tensor]: ...

    def scores(self, users: Tensor) -> Tensor: ...


class Ranker:
    """Ranked lists of a model as it is now. Embeddings are computed once, scores for a block of users at a time.

    Scores are asked for where the model does not say that they are dot products (`factored`).

    Args:
        candidates: [C] int64, ascending: the items that are ranked; None for all.
    """

    def __init__(self, model: Model, candidates: Tensor | None = None) -> None:
        self.model, self.candidates = model, candidates
        self.factors = embeddings(model) if getattr(model, "factored", True) else None
        if self.factors is not None and candidates is not None:
            self.factors = self.factors[0], self.factors[1][candidates]

    def topk(self, users: Tensor, k: int, seen: Graph) -> tuple[Tensor, Tensor]:
        """The k items ranked first for each of `users`, without those in the rows of `seen`.

        Args:
            users: [B] int64.
            k: 1 <= k <= I, or C.
            seen: [B, I], row r lists what to leave out for users[r].

        Returns:
            (score [B, k], index [B, k] int64): score descending, then index ascending; -inf and -1 where nothing is
            left.

        Raises:
            FloatingPointError: a score is NaN or infinite.
        """
        if self.candidates is None:
            return self._topk(users, k, seen, seen.n_cols)
        scores, index = self._topk(users, k, among(seen, self.candidates), seen.n_cols)
        return scores, torch.where(index < 0, index, self.candidates[index])

    def _topk(self, users: Tensor, k: int, seen: Graph, n_items: int) -> tuple[Tensor, Tensor]:
        """Places among the candidates."""
        if self.factors is not None:
            user_rows, items = self.factors
            return ops.masked_topk(user_rows[users], items, k, seen)
        rows = torch.arange(len(users), device=users.device).split(max(1, BLOCK_SCORES // n_items))
        blocks = [topk_of_scores(self._scores(users[r], n_items), k, seen.rows(r)) for r in rows]
        scores, index = zip(*blocks, strict=True)
        return torch.cat(scores), torch.cat(index)

    def _scores(self, users: Tensor, n_items: int) -> Tensor:
        scores = scores_of(self.model, users, n_items)
        return scores if self.candidates is None else scores[:, self.candidates]


def among(seen: Graph, candidates: Tensor) -> Graph:
    """`seen` [B, I] as places among the candidates [C], int64 and ascending: [B, C], without what is none of them."""
    items = seen.col.long()
    place = torch.searchsorted(candidates, items).clamp_(max=len(candidates) - 1)
    inside = candidates[place] == items
    return Graph.from_edges(seen.row.long()[inside], place[inside], None, (seen.n_rows, len(candidates)))


def embeddings(model: Model) -> tuple[Tensor, Tensor]:
    """Final embeddings `[U, d]`, `[I, d]` in evaluation mode, without gradients.

    Raises `FloatingPointError` when one is NaN or infinite: a ranking made of those would look like a result.
    """
    with evaluating(model):
        users, items = model.embeddings()
    for name, rows in (("user", users), ("item", items)):
        if not bool(torch.isfinite(rows).all()):
            raise FloatingPointError(f"{name} embeddings hold NaN or infinity")
    return users.detach(), items.detach()  # a model may return parameters as they are


def scores_of(model: Model, users: Tensor, n_items: int) -> Tensor:
    """Scores `[B, I]` of all items for `users` `[B]`; `FloatingPointError` as for embeddings."""
    with evaluating(model):
        scores = model.scores(users)
    if scores.shape != (len(users), n_items) or not scores.is_floating_point():
        raise ValueError(
            f"{type(model).__name__}.scores: expected floating-point scores of shape {(len(users), n_items)}, got "
            f"{scores.dtype} of shape {tuple(scores.shape)}"
        )
    if not bool(torch.isfinite(scores).all()):
        raise FloatingPointError("scores hold NaN or infinity")
    return scores


def topk_of_scores(scores: Tensor, k: int, seen: CsrMatrix) -> tuple[Tensor, Tensor]:
    """`ops.masked_topk` for scores that are there: `[B, I]` and `seen` `[B, I]` to (score, index), `[B, k]` each.

    The order is that of the op: score descending, then index ascending; -inf and -1 where nothing is left.
    """
    scores = scores.clone()
    scores[seen.row.long(), seen.col.long()] = -torch.inf
    least = scores.topk(k, dim=1).values[:, -1:]  # the k-th score, [B, 1]
    above, equal = scores > least, scores == least
    # torch.topk takes any of equal scores: of those at the border, the first in order of index
    chosen = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    index = chosen.nonzero()[:, 1].view(-1, k)  # ascending in a row
    top, order = scores.gather(1, index).sort(dim=1, descending=True, stable=True)
    index = index.gather(1, order)
    return top, index.masked_fill(top == -torch.inf, -1)


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Evaluation mode without gradients; the model is left in the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
