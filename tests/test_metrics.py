"""Metrics against numbers worked out by hand, and against a slow implementation that loops over users."""

from __future__ import annotations

import math

import pytest
import torch

from smore_ext.evaluation.metrics import (
    DEFAULT_METRICS,
    METRICS,
    RankedLists,
    parse_metric,
    ranking_metrics,
    user_metrics,
)
from smore_ext.graph import Graph


def relevance(sets: list[set[int]], n_items: int) -> Graph:
    rows = [row for row, items in enumerate(sets) for _ in items]
    columns = [item for items in sets for item in sorted(items, reverse=True)]
    return Graph.from_edges(
        torch.tensor(rows, dtype=torch.int64),
        torch.tensor(columns, dtype=torch.int64),
        None,
        (len(sets), n_items),
    )


def by_hand(ranked: list[list[int]], sets: list[set[int]], k: int) -> dict[str, float]:
    """The definitions, one user and one rank at a time."""
    sums = dict.fromkeys(DEFAULT_METRICS, 0.0)
    users = 0
    for row, relevant in zip(ranked, sets, strict=True):
        if not relevant:
            continue
        users += 1
        hits, gain, precisions = 0, 0.0, 0.0
        for rank, item in enumerate(row[:k], start=1):
            if item in relevant:
                hits += 1
                gain += 1 / math.log2(rank + 1)
                precisions += hits / rank
        possible = min(len(relevant), k)
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, possible + 1))
        sums["recall"] += hits / len(relevant)
        sums["precision"] += hits / k
        sums["ndcg"] += gain / ideal
        sums["map"] += precisions / possible
    return {f"{name}@{k}": value / users for name, value in sums.items()}


def test_known_values() -> None:
    # hits at ranks 1 and 3, three relevant items, one of them not ranked
    values = ranking_metrics(torch.tensor([[4, 0, 2, 1]]), relevance([{4, 2, 5}], 6), ks=(1, 2, 4))
    ideal_2, ideal_3 = 1 + 1 / math.log2(3), 1 + 1 / math.log2(3) + 1 / 2
    expected = {
        "recall@1": 1 / 3,
        "precision@1": 1.0,
        "ndcg@1": 1.0,
        "map@1": 1.0,
        "recall@2": 1 / 3,
        "precision@2": 1 / 2,
        "ndcg@2": 1 / ideal_2,
        "map@2": 1 / 2,
        "recall@4": 2 / 3,
        "precision@4": 2 / 4,
        "ndcg@4": (1 + 1 / 2) / ideal_3,
        "map@4": (1 + 2 / 3) / 3,
    }
    assert values == pytest.approx(expected, abs=1e-15)
    assert list(values) == list(expected)
    assert all(type(value) is float for value in values.values())


def test_perfect_and_hopeless_rankings() -> None:
    relevant = relevance([{0, 1}, {2}], 4)
    perfect = ranking_metrics(torch.tensor([[1, 0, 3, 2], [2, 0, 1, 3]]), relevant, ks=(2,))
    assert perfect == pytest.approx({"recall@2": 1, "precision@2": 0.75, "ndcg@2": 1, "map@2": 1})
    hopeless = ranking_metrics(torch.tensor([[3, 2], [0, 1]]), relevant, ks=(2,))
    assert set(hopeless.values()) == {0.0}


def test_users_without_relevant_items_are_left_out() -> None:
    ranked = torch.tensor([[0, 1], [0, 1], [1, 0]])
    with_idle = ranking_metrics(ranked, relevance([{0}, set(), {0}], 3), ks=(1, 2))
    without = ranking_metrics(ranked[[0, 2]], relevance([{0}, {0}], 3), ks=(1, 2))
    assert with_idle == without
    assert with_idle["recall@1"] == 0.5


def test_empty_places_are_misses() -> None:
    # -1 in row 1 must not be taken for the last item of row 0
    relevant = relevance([{3}, {0}], 4)
    values = ranking_metrics(torch.tensor([[-1, -1], [-1, -1]]), relevant, ks=(1, 2))
    assert set(values.values()) == {0.0}
    values = ranking_metrics(torch.tensor([[3, -1], [0, -1]]), relevant, ks=(2,))
    assert values == {"recall@2": 1.0, "precision@2": 0.5, "ndcg@2": 1.0, "map@2": 1.0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_users, n_items, depth", [(1, 60, 50), (40, 60, 55), (30, 1000, 50), (200, 70, 50)])
def test_against_the_slow_implementation(seed: int, n_users: int, n_items: int, depth: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ranked = torch.rand(n_users, n_items, generator=generator).argsort(1)[:, :depth].clone()
    for row in range(0, n_users, 3):  # some lists end early
        ranked[row, depth - row % 7 - 1 :] = -1
    sizes = torch.randint(0, min(n_items, 80), (n_users,), generator=generator).tolist()
    sizes[0] = max(sizes[0], 1)
    sets = [set(torch.randperm(n_items, generator=generator)[:size].tolist()) for size in sizes]
    ks = (1, 5, 10, 20, 50)
    values = ranking_metrics(ranked, relevance(sets, n_items), ks)
    expected: dict[str, float] = {}
    for k in ks:
        expected |= by_hand(ranked.tolist(), sets, k)
    assert values == pytest.approx(expected, abs=1e-13)
    assert list(values) == [f"{name}@{k}" for k in ks for name in DEFAULT_METRICS]


def test_order_of_cut_offs_and_weights_do_not_matter() -> None:
    ranked = torch.tensor([[4, 0, 2, 1], [0, 1, 2, 3]])
    relevant = relevance([{4, 2, 5}, {3}], 6)
    heavy = Graph.from_edges(
        torch.tensor([0, 0, 0, 1]), torch.tensor([2, 4, 5, 3]), torch.tensor([0.0, 2.0, -1.0, 9.0]), (2, 6)
    )
    assert ranking_metrics(ranked, relevant, ks=(4, 1)) == ranking_metrics(ranked, heavy, ks=[1, 4])


def test_catalogue_smaller_than_the_cut_off() -> None:
    sets = [{0, 1, 2}]
    values = ranking_metrics(torch.tensor([[2, 3, 0, 1]]), relevance(sets, 4), ks=(50,))
    assert values == pytest.approx(by_hand([[2, 3, 0, 1]], sets, 50))
    assert values["precision@50"] == 3 / 50
    far = ranking_metrics(torch.tensor([[2, 3, 0, 1]]), relevance(sets, 4), (10**15,), list(METRICS))  # nothing as long
    assert (far[f"ndcg@{10**15}"], far[f"map@{10**15}"]) == pytest.approx((values["ndcg@50"], values["map@50"]))


@pytest.mark.parametrize(
    "ranked, ks, error, message",
    [
        (
            torch.zeros(2, 3, dtype=torch.int32),
            (1,),
            TypeError,
            "expected ranked to be int64, got torch.int32",
        ),
        (torch.zeros(2, 3), (1,), TypeError, "expected ranked to be int64, got torch.float32"),
        (torch.zeros(3, 3, dtype=torch.int64), (1,), ValueError, r"of shape \[2, K\].*got \(3, 3\)"),
        (torch.zeros(2, dtype=torch.int64), (1,), ValueError, r"of shape \[2, K\].*got \(2,\)"),
        (torch.zeros(2, 3, dtype=torch.int64), (1, 4), ValueError, "at least 4 places for cut-off 4, got 3"),
        (torch.full((2, 3), 9), (1,), ValueError, "item ids from 0 to 8 or -1, got 9 to 9"),
        (torch.full((2, 3), -2), (1,), ValueError, "item ids from 0 to 8 or -1, got -2 to -2"),
        (torch.zeros(2, 3, dtype=torch.int64), (), ValueError, r"ks of at least 1, got \(\)"),
        (torch.zeros(2, 3, dtype=torch.int64), (0, 1), ValueError, r"ks of at least 1, got \(0, 1\)"),
    ],
)
def test_errors(ranked: torch.Tensor, ks: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ranking_metrics(ranked, relevance([{0}, {1}], 9), ks)


def test_nobody_to_evaluate() -> None:
    with pytest.raises(ValueError, match="expected a user with a relevant item, got none among 2 users"):
        ranking_metrics(torch.zeros(2, 3, dtype=torch.int64), relevance([set(), set()], 9), (1,))


def test_hit_rate_reciprocal_rank_and_coverage() -> None:
    # users 0 to 3: first hit at rank 2, none, rank 1, and nobody asks for user 3
    ranked = torch.tensor([[5, 4, 2], [0, 1, 2], [3, 5, -1], [1, 1, 1]])
    relevant = relevance([{4, 2}, {5}, {3}, set()], 8)
    values = ranking_metrics(ranked, relevant, ks=(1, 3), metrics=["hit_rate", "mrr", "coverage"])
    expected = {"hit_rate@1": 1 / 3, "mrr@1": 1 / 3, "coverage@1": 3 / 8}  # items 5, 0, 3
    expected |= {"hit_rate@3": 2 / 3, "mrr@3": (1 / 2 + 0 + 1) / 3, "coverage@3": 6 / 8}
    assert values == pytest.approx(expected, abs=1e-15)


def test_metrics_of_each_user() -> None:
    ranked = torch.tensor([[5, 4, 2], [0, 1, 2], [3, 5, -1], [1, 1, 1]])
    relevant = relevance([{4, 2}, {5}, {3}, set()], 8)
    values = user_metrics(ranked, relevant, ks=(2,), metrics=["recall", "coverage"])
    assert values["recall@2"].tolist() == [0.5, 0.0, 1.0] and values["coverage@2"].shape == ()  # of all lists
    means = ranking_metrics(ranked, relevant, ks=(2,), metrics=["recall", "coverage"])
    assert means == {name: value.mean().item() for name, value in values.items()}


def test_a_metric_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_hit(lists: RankedLists, k: int) -> torch.Tensor:
        assert lists.ranked.shape == lists.hits.shape and lists.n_items == 6
        return (lists.hits[:, :k] * lists.ranks[:k]).amax(1)

    monkeypatch.setitem(METRICS, "last_hit", last_hit)
    ranked = torch.tensor([[4, 0, 2, 1], [0, 1, 2, 3]])
    values = ranking_metrics(ranked, relevance([{4, 2, 5}, {1}], 6), ks=(2, 4), metrics=("last_hit", "recall"))
    assert values == pytest.approx({"last_hit@2": 1.5, "recall@2": 2 / 3, "last_hit@4": 2.5, "recall@4": 5 / 6})


def test_a_metric_at_a_rank() -> None:
    assert parse_metric("ndcg@10") == ("ndcg", 10)
    for text in ("ndcg", "@10", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@x", "ndcg@1" + "0" * 30):
        with pytest.raises(ValueError, match=f"such as recall@20, got '{text}'"):
            parse_metric(text)
    with pytest.raises(ValueError, match="unknown metric 'ndgc' .*did you mean 'ndcg'"):
        parse_metric("ndgc@10")
