"""A trained model by its weights between items: a score is the sum of the votes of what a user has had.

Scores of a user are the user's row of the train interactions times weights W [I, I], as in EASE, L3AE, ItemKNN and
Turbo-CF, so a score is explained by the user's own items, and somebody new is scored exactly. Shapes: U users, I items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.data.messages import shown
from smore_ext.evaluation.ranking import among, topk_of_scores
from smore_ext.graph import Graph
from smore_ext.models import Recommender
from smore_ext.serving.served import Explanation, Id, QuestionError, Served, Similar, check_k, numbers_of

SCORES = 1 << 22  # scores, and votes of sparse weights, that are held at once
SPARSE = 1 / 8  # share of weights other than 0 up to which they are kept as edges
PART = "history"  # what contributes to a score


@dataclass(frozen=True)
class ItemWeights(Served):
    """Weights between items, with what the model's users have had.

    Attributes:
        weights: W [I, I], row j holds the votes of item j; sparse where most are 0.
        voters: [U, I], the train interactions: what votes. `seen` has those of the other splits too.
    """

    weights: Tensor | Graph
    voters: Graph

    nearness: ClassVar[str] = "vote"
    whole: ClassVar[str] = "weights between items"

    def scores(self, had: Graph) -> Tensor:
        """Scores [B, I] of all items for somebody who has had the items in each row of `had` [B, I]."""
        if isinstance(self.weights, Tensor):
            return ops.spmm(had.to(self.weights.device), self.weights)
        votes = self.weights.rows(had.col.long().to(self.weights.col.device))
        who = had.row.long().to(votes.col.device)[votes.row.long()]
        # Votes of the user's items alone, which are few; a model that goes over all of W may round in another order.
        return Graph.from_edges(who, votes.col, votes.weight, had.shape).to_dense()  # duplicates are summed

    def _ranked(self, users: Tensor, k: int, masked: Graph | None, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        had, found = self.voters.rows(users), []
        for rows in self._blocks(had):
            theirs = None if masked is None else masked.rows(rows)
            found.append(self._best(had.rows(rows), k, theirs, candidates))
        score, index = zip(*found, strict=True)
        return torch.cat(score), torch.cat(index)

    def _ranked_for(
        self, items: list[int], k: int, masked: Graph | None, candidates: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Exactly as a user would be who has these in train."""
        return self._best(self._row_of(items), k, masked, candidates)

    def _best(self, had: Graph, k: int, masked: Graph | None, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        check_k(k)
        chosen = self.known if candidates is None else candidates
        scores = self.scores(had)
        masked = self._nothing(had.n_rows) if masked is None else masked
        if len(chosen) < had.n_cols:
            scores, masked = scores[:, chosen.to(scores.device)], among(masked, chosen)
        score, index = topk_of_scores(scores, min(k, len(chosen)), masked.to(scores.device))
        return score.cpu(), numbers_of(index.cpu(), chosen)

    def _nothing(self, rows: int) -> Graph:
        none = torch.zeros(0, dtype=torch.int64)
        return Graph.from_edges(none, none, None, (rows, self.seen.n_cols))

    def _blocks(self, had: Graph) -> Iterator[Tensor]:
        """Rows of `had` that are scored at once."""
        costs = torch.full((had.n_rows,), had.n_cols, dtype=torch.int64)
        if isinstance(self.weights, Graph):
            costs.index_add_(0, had.row.long(), self._lengths[had.col.long()])
        block = costs.cumsum(0) // SCORES
        yield from torch.arange(had.n_rows).split(block.unique_consecutive(return_counts=True)[1].tolist())

    @cached_property
    def _lengths(self) -> Tensor:
        """How many items each votes for, [I]; of sparse weights."""
        assert isinstance(self.weights, Graph)
        return self.weights.rowptr.diff().long().cpu()

    def _votes(self, voters: Tensor, item: int) -> Tensor:
        """Votes [V] of `voters` for an item, on the CPU."""
        if isinstance(self.weights, Tensor):
            return self.weights[voters.to(self.weights.device), item].cpu()
        rows = self.weights.rows(voters.to(self.weights.col.device))
        for_it = rows.col == item
        votes = rows.weight.new_zeros(len(voters))
        votes[rows.row[for_it].long()] = rows.weight[for_it]
        return votes.cpu()

    def similar(self, items: Sequence[Id], k: int = 10, by: str | None = None) -> dict[Id, list[Similar]]:
        """The items that each votes for most, by weight: what it would have recommended to somebody who has had it
        alone. Itself is left out, and so are items that it has no weight for: there may be fewer than k. There are no
        parts: `by` must be None."""
        if by is not None:
            raise QuestionError(f"by: expected none, as {self._model} has weights between items, got {shown(by)}")
        check_k(k)
        found = {}
        for number in dict.fromkeys(self.item_number(item) for item in items):
            row = self.scores(self._row_of([number]))[0].cpu()
            others = self.known[(self.known != number) & (row[self.known] != 0)]
            found[self.item(number)] = self._largest(others, row[others], k)
        return found

    def _largest(self, items: Tensor, values: Tensor, k: int) -> list[Similar]:
        value, place = values.sort(descending=True, stable=True)
        return self.named(value[:k], items[place[:k]])

    def explain(self, user: Id, item: Id, k: int = 3) -> Explanation:
        """The score, and which k of the user's train items vote most for the item. All of their votes add up to it."""
        check_k(k)
        row, number = self.user_number(user), self.item_number(item)
        theirs = self.voters.rows(torch.tensor([row]))
        voters = theirs.col.long()
        votes = self._votes(voters, number)
        score, votes_at_all = float(self.scores(theirs)[0, number]), votes != 0
        nearest = self._largest(voters[votes_at_all], votes[votes_at_all], k)
        seen = bool((self.seen.rows(torch.tensor([row])).col == number).any())
        return Explanation(score, {PART: score}, {PART: nearest}, seen)

    def with_items(self, features: Mapping[str, Tensor], ids: Sequence[str] | None = None) -> ItemWeights:
        raise QuestionError(
            f"with_items: expected a model of embeddings, got {self._model}: weights between items say nothing of an "
            f"item that nobody has had"
        )

    @property
    def _model(self) -> str:
        return self.about.get("model", "a model")

    def warm_up(self) -> None:
        super().warm_up()
        if isinstance(self.weights, Graph):
            _ = self._lengths

    def to(self, device: str | torch.device) -> ItemWeights:
        return replace(self, weights=self.weights.to(device))


def weights_of(model: Recommender, n_items: int, device: torch.device) -> Tensor | Graph:
    """W [I, I] of a model that scores histories, on the CPU: the scores of each item alone.

    Raises `FloatingPointError` when one is NaN or infinite.
    """
    size = max(1, SCORES // n_items)

    def blocks() -> Iterator[tuple[int, Tensor]]:
        for items in torch.arange(n_items).split(size):
            each = Graph.from_edges(items - items[0], items, None, (len(items), n_items))
            votes = model.history_scores(each.to(device)).detach().cpu()
            if votes.shape != (len(items), n_items) or votes.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"{type(model).__name__}.history_scores: expected float32 or float64 scores of shape "
                    f"{(len(items), n_items)}, got {votes.dtype} of shape {tuple(votes.shape)}"
                )
            if not bool(torch.isfinite(votes).all()):
                raise FloatingPointError("weights between items hold NaN or infinity")
            yield int(items[0]), votes

    edges, count = [], 0
    for first, votes in blocks():
        row, col = votes.nonzero().T
        count += len(row)
        if count > SPARSE * n_items**2:
            break
        edges.append((row + first, col, votes[row, col]))
    else:
        rows, cols, weights = (torch.cat(parts) for parts in zip(*edges, strict=True))
        return Graph.from_edges(rows, cols, weights, (n_items, n_items))
    dense = votes.new_empty(n_items, n_items)
    for first, votes in blocks():
        dense[first : first + len(votes)] = votes
    return dense
