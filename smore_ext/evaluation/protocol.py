"""The evaluation protocol (docs/spec.md, section 3): what is ranked, what is masked, which users count.

All items are candidates. Both protocols mask the user's train items; at test `strict` masks the validation
items too, `mmrec` does not. The two give different numbers for the same weights, so whoever prints a number
prints the protocol's name with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from smore_ext.data import Dataset, Pairs
from smore_ext.evaluation.metrics import DEFAULT_METRICS, user_metrics
from smore_ext.evaluation.ranking import Model, Ranker
from smore_ext.graph import Graph

KS = (5, 10, 20, 50)
MASKED = {
    "mmrec": "train items masked",
    "strict": "train items masked, at test validation items too",
}
Split = Literal["valid", "test"]


class Evaluator:
    """Metrics of a model on the splits of one data set under one protocol.

    The lists of masked and relevant items are built once and kept; a call computes the embeddings once, ranks
    `batch_size` users at a time (by scores in smaller blocks), and leaves the model in the mode it was in. `ks` are the
    cut-offs of `metrics`, names in `smore_ext.evaluation.metrics.METRICS`.
    """

    def __init__(
        self,
        dataset: Dataset,
        protocol: str = "mmrec",
        ks: Sequence[int] = KS,
        batch_size: int = 4096,
        device: str | torch.device = "cpu",
        metrics: Sequence[str] = DEFAULT_METRICS,
    ) -> None:
        if protocol not in MASKED:
            raise ValueError(f"protocol: expected one of {', '.join(MASKED)}, got {protocol!r}")
        self.dataset = dataset
        self.protocol = protocol
        self.ks = tuple(sorted(ks))
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.metrics = tuple(metrics)

    def __call__(self, model: Model, split: Split) -> dict[str, float]:
        """`{"recall@20": ...}`, means over the users of `split` with at least one relevant item.

        Empty when the split is. Raises `FloatingPointError` when an embedding or a score is NaN or infinite.
        """
        return {name: values.mean().item() for name, values in self.of_users(model, split)[1].items()}

    def of_users(self, model: Model, split: Split) -> tuple[Tensor, dict[str, Tensor]]:
        """The users [V] of `split` with at least one relevant item, ascending, and each metric of each of them [V].

        A metric that has one value for all lists is a scalar. Raises as a call does.
        """
        lists = self._valid if split == "valid" else self._test
        if not lists.batches:
            return torch.empty(0, dtype=torch.int64), {}
        ranker = Ranker(model)
        k = min(max(self.ks), self.dataset.n_items)
        ranked = [ranker.topk(users, k, seen)[1] for users, seen in lists.batches]
        users = torch.cat([users for users, _ in lists.batches])
        return users, user_metrics(torch.cat(ranked), lists.relevant, self.ks, self.metrics)

    @cached_property
    def _valid(self) -> _Lists:
        return self._lists(self.dataset.valid, [self.dataset.train])

    @cached_property
    def _test(self) -> _Lists:
        masked = [self.dataset.train]
        if self.protocol == "strict":
            masked.append(self.dataset.valid)
        return self._lists(self.dataset.test, masked)

    def _lists(self, relevant: Pairs, masked: Sequence[Pairs]) -> _Lists:
        return _Lists(relevant, masked, self.dataset.n_items, self.batch_size, self.device)


class _Lists:
    """Users of a split, in ascending order, with their relevant items and, by batch, their masked items."""

    def __init__(
        self,
        relevant: Pairs,
        masked: Sequence[Pairs],
        n_items: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        users = torch.unique(relevant.users)  # [n] ascending
        self.batches: list[tuple[Tensor, Graph]] = []  # user ids [b], their masked items [b, I]
        if not len(users):
            return
        self.relevant = rows_of(users, [relevant], n_items).to(device)  # [n, I]
        for batch in users.split(batch_size):
            self.batches.append((batch.to(device), rows_of(batch, masked, n_items).to(device)))


def rows_of(users: Tensor, pairs: Sequence[Pairs], n_items: int) -> Graph:
    """Interactions of `users` ([n >= 1] int64, ascending, each once) as a graph `[n, I]`, one row a user."""
    rows, items = [], []
    for part in pairs:
        row = torch.searchsorted(users, part.users).clamp_(max=len(users) - 1)
        inside = users[row] == part.users
        rows.append(row[inside])
        items.append(part.items[inside])
    return Graph.from_edges(torch.cat(rows), torch.cat(items), None, (len(users), n_items))
