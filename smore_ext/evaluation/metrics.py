"""Ranking metrics of one ranked list a user, vectorised. Knows no model and no data set.

Definitions are the field's common ones (docs/spec.md, section 3), so that numbers compare with published ones. A metric
is a function of `RankedLists` and a cut-off k that returns a value a user, of which the mean is reported, or one value
for all lists. Larger is better. Others come by an entry point of the group `smore_ext.metrics`, or as
`package.module:function`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.registry import Registry


class RankedLists:
    """What a metric reads: the lists of the V users that have a relevant item. Cut-offs beyond the lists are fine.

    Attributes:
        ranked: [V, K] int64, best first; -1 where nothing is left to rank.
        hits: [V, K] float64, 1 where that place holds a relevant item, else 0.
        n_relevant: [V] float64, number of relevant items, at least 1.
        n_items: items that could be ranked.
    """

    def __init__(self, ranked: Tensor, hits: Tensor, n_relevant: Tensor, n_items: int) -> None:
        self.ranked, self.hits, self.n_relevant, self.n_items = ranked, hits, n_relevant, n_items

    @cached_property
    def ranks(self) -> Tensor:
        """[K] float64: 1, 2, 3, ..."""
        return torch.arange(1, self.hits.shape[1] + 1, dtype=torch.float64, device=self.hits.device)

    @cached_property
    def n_hits(self) -> Tensor:
        """[V, K] float64, hits up to and with each rank."""
        return self.hits.cumsum(1)

    @cached_property
    def gain(self) -> Tensor:
        """[V, K] float64, hits up to and with each rank, discounted by 1 / log2(rank + 1)."""
        return (self.hits * (1.0 / torch.log2(self.ranks + 1.0))).cumsum(1)

    @cached_property
    def precision_sum(self) -> Tensor:
        """[V, K] float64, sum of the precision at each hit up to and with each rank."""
        return (self.hits * self.n_hits / self.ranks).cumsum(1)

    def at(self, values: Tensor, k: int) -> Tensor:
        """[V] column of cumulated `values` [V, K] at cut-off k."""
        return values[:, min(k, values.shape[1]) - 1]


Metric: TypeAlias = Callable[[RankedLists, int], Tensor]


def recall(lists: RankedLists, k: int) -> Tensor:
    """Hits over relevant items."""
    return lists.at(lists.n_hits, k) / lists.n_relevant


def precision(lists: RankedLists, k: int) -> Tensor:
    """Hits over k."""
    return lists.at(lists.n_hits, k) / k


def ndcg(lists: RankedLists, k: int) -> Tensor:
    """Gain 1 a hit, discount 1 / log2(rank + 1), over that of the ideal list of min(relevant, k) hits."""
    # the ideal needs all ranks up to k that relevant items can fill, also beyond those that are ranked
    all_ranks = torch.arange(1, min(k, lists.n_items) + 1, dtype=torch.float64, device=lists.hits.device)
    ideal = (1.0 / torch.log2(all_ranks + 1.0)).cumsum(0)
    return lists.at(lists.gain, k) / ideal[lists.n_relevant.clamp(max=k).long() - 1]


def average_precision(lists: RankedLists, k: int) -> Tensor:
    """Sum of the precision at each hit, over min(relevant, k)."""
    return lists.at(lists.precision_sum, k) / lists.n_relevant.clamp(max=k)


def hit_rate(lists: RankedLists, k: int) -> Tensor:
    """1 with a hit, else 0."""
    return (lists.at(lists.n_hits, k) > 0).double()


def reciprocal_rank(lists: RankedLists, k: int) -> Tensor:
    """1 over the rank of the first hit; 0 without one."""
    return (lists.hits[:, :k] / lists.ranks[:k]).amax(1)


def coverage(lists: RankedLists, k: int) -> Tensor:
    """Share of all items that occur in some list; one value."""
    shown = torch.zeros(lists.n_items + 1, dtype=torch.bool, device=lists.ranked.device)
    shown[lists.ranked[:, :k].flatten()] = True  # an empty place, -1, is the last
    return shown[:-1].double().mean()


def _wrong(loaded: Any) -> str | None:
    return None if callable(loaded) else f"must be a function of RankedLists and k, got {loaded!r}"


METRICS: Registry[Metric] = Registry(
    "metric",
    "smore_ext.metrics",
    {
        "recall": recall,
        "precision": precision,
        "ndcg": ndcg,
        "map": average_precision,
        "hit_rate": hit_rate,
        "mrr": reciprocal_rank,
        "coverage": coverage,
    },
    _wrong,
)
DEFAULT_METRICS = ("recall", "precision", "ndcg", "map")


def parse_metric(text: str) -> tuple[str, int]:
    """("recall", 20) of "recall@20". Raises `ValueError` for another form or an unknown metric."""
    name, _, k = text.rpartition("@")
    if not name or not k.isdecimal() or len(k) > 18 or int(k) < 1:  # 64 bits
        raise ValueError(f"expected a metric at a rank such as recall@20, got {text[:80]!r}")
    METRICS[name]  # raises for an unknown one
    return name, int(k)


def ranking_metrics(
    ranked: Tensor,
    relevant: Graph,
    ks: Sequence[int] = (5, 10, 20, 50),
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, float]:
    """Means over the users that have at least one relevant item; the others are left out.

    Arguments and errors are those of `user_metrics`.

    Returns:
        `{"recall@5": ..., "precision@5": ..., "ndcg@5": ..., "map@5": ..., "recall@10": ...}`.
    """
    return {name: values.mean().item() for name, values in user_metrics(ranked, relevant, ks, metrics).items()}


def user_metrics(
    ranked: Tensor,
    relevant: Graph,
    ks: Sequence[int] = (5, 10, 20, 50),
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> dict[str, Tensor]:
    """Metrics of each of the V users that have at least one relevant item, in their order.

    Everything accumulates in float64.

    Args:
        ranked: `[U, K_max]` int64, best first, no item twice in a row; -1 where nothing is left to rank
            (such places are misses and come last). At least `min(max(ks), I)` columns.
        relevant: `[U, I]`, row `u` lists the relevant items of the user in row `u` of `ranked`; weights are
            ignored.
        ks: cut-offs, each at least 1.
        metrics: names in `METRICS`.

    Returns:
        `{"recall@5": [V] float64, ...}`; of a metric that has one value for all lists, a scalar.

    Raises:
        TypeError, ValueError: wrong dtype, shape, item id, cut-off or metric; or no user has a relevant item.
    """
    _check(ranked, relevant, ks)
    n_users, n_items = relevant.shape
    n_relevant = relevant.rowptr.to(ranked.device, torch.int64).diff()  # [U]
    evaluated = n_relevant > 0
    if not bool(evaluated.any()):
        raise ValueError(f"ranking_metrics: expected a user with a relevant item, got none among {n_users} users")
    ranked = ranked[:, : max(ks)]
    hits = _hits(ranked, relevant, n_relevant)[evaluated]  # [V, K] float64, V users evaluated
    lists = RankedLists(ranked[evaluated], hits, n_relevant[evaluated].double(), n_items)
    functions = {name: METRICS[name] for name in metrics}
    return {f"{name}@{k}": function(lists, k) for k in ks for name, function in functions.items()}


def _hits(ranked: Tensor, relevant: Graph, n_relevant: Tensor) -> Tensor:
    """1.0 where the item at that place is relevant to the row's user, `[U, K]` float64.

    A graph's columns ascend within a row, so `row * I + column` ascends over all edges: one binary search a
    place.
    """
    n_users, n_items = relevant.shape
    rows = torch.arange(n_users, device=ranked.device)
    known = torch.repeat_interleave(rows, n_relevant) * n_items + relevant.col.to(ranked.device, torch.int64)
    wanted = rows.unsqueeze(1) * n_items + ranked  # [U, K]
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    # an empty place, -1, would alias the last item of the row before
    return ((known[place] == wanted) & (ranked >= 0)).double()


def _check(ranked: Tensor, relevant: Graph, ks: Sequence[int]) -> None:
    if not ks or min(ks) < 1:
        raise ValueError(f"ranking_metrics: expected cut-offs ks of at least 1, got {tuple(ks)}")
    for name, value, kind in (("ranked", ranked, Tensor), ("relevant", relevant, Graph)):
        if not isinstance(value, kind):
            raise TypeError(f"ranking_metrics: expected {name} to be a {kind.__name__}, got {type(value).__name__}")
    if ranked.dtype != torch.int64:
        raise TypeError(f"ranking_metrics: expected ranked to be int64, got {ranked.dtype}")
    n_users, n_items = relevant.shape
    if ranked.dim() != 2 or ranked.shape[0] != n_users:
        raise ValueError(
            f"ranking_metrics: expected ranked of shape [{n_users}, K], one row a row of relevant, "
            f"got {tuple(ranked.shape)}"
        )
    if ranked.shape[1] < min(max(ks), n_items):
        raise ValueError(
            f"ranking_metrics: expected lists of at least {min(max(ks), n_items)} places for cut-off "
            f"{max(ks)}, got {ranked.shape[1]}"
        )
    if ranked.numel() and (int(ranked.min()) < -1 or int(ranked.max()) >= n_items):
        raise ValueError(
            f"ranking_metrics: expected item ids from 0 to {n_items - 1} or -1, "
            f"got {int(ranked.min())} to {int(ranked.max())}"
        )
