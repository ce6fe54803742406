"""Negative samplers: what they never draw, what decides the draw, and how often an item is drawn."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor

from smore_ext import Dataset, ops
from smore_ext.training import samplers
from smore_ext.training.samplers import POPULARITY_EXPONENT, SAMPLERS, make_sampler, stream_seed

CPU = torch.device("cpu")


def skewed() -> Dataset:
    """Item 0 has 60 users, item 1 has 20, items 2 to 9 some; item 10 never occurs in train."""
    users = torch.arange(60)
    table = [(user, 0) for user in range(60)] + [(user, 1) for user in range(20)]
    table += [(60 + user, 2 + user % 8) for user in range(40)]
    table += [(0, item) for item in range(2, 9)]  # user 0 has seen all that occurs but item 9
    return Dataset.from_pairs("skewed", 100, 11, tiny.pairs(*table), tiny.pairs((int(users[3]), 4)), tiny.pairs())


def drawn(name: str, data: Dataset, users: Tensor, epoch: int = 0, seed: int = 1, n: int = 1) -> Tensor:
    return make_sampler(name, data, CPU, seed, n)(users, epoch)


def test_uniform_is_the_op() -> None:
    data = tiny.tiny_dataset()
    users = data.train.users
    expected = ops.sample_negatives(users, data.seen, data.candidates, seed=1, offset=5)
    assert torch.equal(drawn("uniform", data, users, epoch=5), expected)


@pytest.mark.parametrize("name", ["uniform", "popularity"])
@pytest.mark.parametrize("n", [1, 4])
def test_never_a_train_item_and_only_items_of_train(name: str, n: int) -> None:
    data = skewed()
    users = torch.arange(100).repeat(20)
    items = drawn(name, data, users, n=n)
    assert items.shape == ((2000,) if n == 1 else (2000, 4)) and items.dtype == torch.int64
    seen = set(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    pairs = set(zip(users.repeat_interleave(n).tolist(), items.flatten().tolist(), strict=True))
    assert not pairs & seen
    assert set(items.flatten().tolist()) <= set(range(10))
    assert (items.view(2000, -1)[users == 0] == 9).all()


@pytest.mark.parametrize("name", ["uniform", "popularity"])
def test_seed_and_epoch_decide(name: str) -> None:
    data = skewed()
    users = torch.arange(30, 100).repeat(10)
    first = drawn(name, data, users, n=2)
    torch.rand(3)
    assert torch.equal(first, drawn(name, data, users, n=2))
    assert not torch.equal(first, drawn(name, data, users, epoch=1, n=2))
    assert not torch.equal(first, drawn(name, data, users, seed=2, n=2))
    assert not torch.equal(first[:, 0], first[:, 1])


def test_popularity_follows_the_counts() -> None:
    data = skewed()
    users = torch.full((40_000,), 99)  # has seen one of the small items
    counts = torch.bincount(data.train.items, minlength=11).double()
    counts[data.train.items[data.train.users == 99]] = 0
    expected = counts**POPULARITY_EXPONENT / (counts**POPULARITY_EXPONENT).sum()
    share = torch.bincount(drawn("popularity", data, users), minlength=11) / len(users)
    assert (share - expected).abs().max() < 0.01
    assert expected[0] > 2 * expected[1] > 0


def test_users_who_have_seen_nearly_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draw among the unseen items has the shares of the draws that are repeated."""
    data = skewed()
    users = torch.full((20_000,), 15)  # has seen the two most popular items
    repeated = torch.bincount(drawn("popularity", data, users), minlength=11) / len(users)
    monkeypatch.setattr(samplers, "ROUNDS", 0)
    monkeypatch.setattr(samplers, "BLOCK_WEIGHTS", 10 * 999)
    listed = torch.bincount(drawn("popularity", data, users), minlength=11) / len(users)
    assert (repeated - listed).abs().max() < 0.02
    assert repeated[:2].sum() == listed[:2].sum() == repeated[10] == listed[10] == 0


@pytest.mark.parametrize("name", ["uniform", "popularity"])
def test_a_user_who_has_seen_all_is_named(name: str) -> None:
    table = [(0, item) for item in range(5)] + [(1, 0)]
    data = Dataset.from_pairs("full", 2, 5, tiny.pairs(*table), tiny.pairs(), tiny.pairs())
    assert drawn(name, data, torch.tensor([1, 1])).tolist() != [0, 0]
    with pytest.raises(ValueError, match="user 0"):
        drawn(name, data, torch.tensor([1, 0]))


def test_none_draws_nothing() -> None:
    assert drawn("none", tiny.tiny_dataset(), torch.arange(3)) is None
    assert list(SAMPLERS)[:3] == ["uniform", "popularity", "none"]


def test_streams_of_an_epoch_differ() -> None:
    seeds = {stream_seed(seed, epoch, stream) for seed in range(3) for epoch in range(3) for stream in range(3)}
    assert len(seeds) == 27


def test_batches_of_an_epoch_get_its_draws() -> None:
    """Batch by batch with `first`: what the whole epoch draws at once, not the first batch again and again."""
    data = tiny.tiny_dataset()
    users = data.train.users
    whole = ops.sample_negatives(users, data.seen, data.candidates, seed=1, offset=5)
    starts = range(0, len(users), 7)
    batches = [
        ops.sample_negatives(users[at : at + 7], data.seen, data.candidates, seed=1, offset=5, first=at)
        for at in starts
    ]
    assert torch.equal(torch.cat(batches), whole)
    assert len(torch.unique(torch.stack([batch[:3] for batch in batches if len(batch) > 3]), dim=0)) > 1
