"""Ranking metrics: per-user means of one ranked list, vectorised. Knows no model and no data set.

Definitions are the field's common ones (docs/spec.md, section 3), so that numbers compare with published ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smore_ext.graph import Graph

METRICS = ("recall", "precision", "ndcg", "map")


def ranking_metrics(ranked: Tensor, relevant: Graph, ks: Sequence[int] = (5, 10, 20, 50)) -> dict[str, float]:
    """Means over the users that have at least one relevant item; the others are left out.

    For a user with relevant items `R`, and hits counted in the first `K` places:
    Recall `hits / |R|`; Precision `hits / K`; NDCG with gain 1 a hit, discount `1 / log2(rank + 1)`, and
    the ideal list of `min(|R|, K)` hits; MAP `sum of precision at each hit / min(|R|, K)`. Everything
    accumulates in float64.

    Args:
        ranked: `[U, K_max]` int64, best first, no item twice in a row; -1 where nothing is left to rank
            (such places are misses and come last). At least `min(max(ks), I)` columns.
        relevant: `[U, I]`, row `u` lists the relevant items of the user in row `u` of `ranked`; weights are
            ignored.
        ks: cut-offs, each at least 1.

    Returns:
        `{"recall@5": ..., "precision@5": ..., "ndcg@5": ..., "map@5": ..., "recall@10": ...}`.

    Raises:
        TypeError, ValueError: wrong dtype, shape, item id or cut-off; or no user has a relevant item.
    """
    _check(ranked, relevant, ks)
    n_users, n_items = relevant.shape
    device = ranked.device
    rowptr = relevant.rowptr.to(device, torch.int64)
    n_relevant = rowptr.diff()  # [U]
    evaluated = n_relevant > 0
    if not bool(evaluated.any()):
        raise ValueError(f"ranking_metrics: expected a user with a relevant item, got none among {n_users} users")

    depth = min(max(ks), ranked.shape[1])
    hits = _hits(ranked[:, :depth], relevant, n_relevant)[evaluated]  # [V, depth] float64, V users evaluated
    n_relevant = n_relevant[evaluated].double()  # [V]
    ranks = torch.arange(1, depth + 1, dtype=torch.float64, device=device)
    discount = 1.0 / torch.log2(ranks + 1.0)
    n_hits = hits.cumsum(1)
    gain = (hits * discount).cumsum(1)
    precision_sum = (hits * n_hits / ranks).cumsum(1)
    # the ideal needs all ranks up to max(ks), also where the catalogue ends earlier
    all_ranks = torch.arange(1, max(ks) + 1, dtype=torch.float64, device=device)
    ideal = (1.0 / torch.log2(all_ranks + 1.0)).cumsum(0)

    values: dict[str, float] = {}
    for k in ks:
        last = min(k, depth) - 1
        best = n_relevant.clamp(max=k)  # [V] most hits that are possible
        values[f"recall@{k}"] = (n_hits[:, last] / n_relevant).mean().item()
        values[f"precision@{k}"] = (n_hits[:, last] / k).mean().item()
        values[f"ndcg@{k}"] = (gain[:, last] / ideal[best.long() - 1]).mean().item()
        values[f"map@{k}"] = (precision_sum[:, last] / best).mean().item()
    return values


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
