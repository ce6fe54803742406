"""Items that a model has not seen, placed by features: a planted map is found, noise is told, bad input refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import smore_ext
from benchmarks import place_items
from smore_ext import serving
from smore_ext.data import Dataset, Pairs, builtin_dataset
from smore_ext.graph import Graph
from smore_ext.prepare.rules import Rules, labelled
from smore_ext.serving import QuestionError, Served

OLD, NEW, USERS = 400, 30, 60


def planted(noise: float = 0.01, ids: bool = True) -> tuple[Served, dict[str, torch.Tensor], torch.Tensor]:
    """A model whose items are a linear map of their features' directions; features and embeddings of new ones."""
    generator = torch.Generator().manual_seed(0)
    features = {
        "image": torch.randn(OLD + NEW, 24, generator=generator),
        "text": torch.randn(OLD + NEW, 16, generator=generator),
    }
    parts = {}
    for name, table in features.items():
        part = F.normalize(table, dim=1) @ torch.randn(table.shape[1], 8, generator=generator) + 0.3
        parts[name] = part + noise * torch.randn(part.shape, generator=generator)
    pairs = (torch.rand(USERS, OLD, generator=generator) < 0.05).nonzero().T
    model = Served(
        torch.randn(USERS, 8, generator=generator),
        (parts["image"] + parts["text"])[:OLD],
        {name: part[:OLD] for name, part in parts.items()},
        Graph.from_edges(pairs[0], pairs[1], None, (USERS, OLD)),
        torch.arange(OLD),
        torch.ones(USERS, dtype=torch.bool),
        tuple(f"u{n}" for n in range(USERS)) if ids else None,
        tuple(f"b{n}" for n in range(OLD)) if ids else None,
        {"model": "Planted", "dataset": "planted", "fingerprint": ""},
        {name: table[:OLD] for name, table in features.items()},
    )
    return model, {name: table[OLD:] for name, table in features.items()}, (parts["image"] + parts["text"])[OLD:]


NAMES = [f"new{n}" for n in range(NEW)]


def test_a_planted_map_is_found() -> None:
    model, features, truth = planted()
    assert model.placing.error < 0.01
    grown = model.with_items(features, NAMES)
    torch.testing.assert_close(grown.items[OLD:], truth, rtol=0, atol=0.15)
    torch.testing.assert_close(sum(grown.parts.values()), grown.items)
    best = (grown.users[3] @ grown.items.T).sort(descending=True, stable=True).indices[:40].tolist()
    had = set(model.history("u3"))
    expected = [name for name in ([*(model.item_ids or ()), *NAMES][n] for n in best) if name not in had]
    assert [near.item for near in grown.recommend(["u3"], 25)["u3"]] == expected[:25]
    assert grown.interactions_of("new0") == 0 and grown.explain("u3", "new1").contributions.keys() == {"image", "text"}
    cosine = F.normalize(grown.items.double(), dim=1) @ F.normalize(grown.items[OLD + 5].double(), dim=0)
    cosine[OLD + 5] = -2
    (near,) = grown.similar(["new5"], 1)["new5"]
    assert near.item == (grown.item_ids or ())[int(cosine.argmax())]


def test_features_that_say_nothing_are_told() -> None:
    model, _, _ = planted()
    generator = torch.Generator().manual_seed(1)
    noise = {name: torch.randn(table.shape, generator=generator) for name, table in model.features.items()}
    assert dataclasses.replace(model, features=noise).placing.error > 0.9


def test_a_modality_that_is_missing_adds_nothing() -> None:
    model, features, truth = planted()
    some = model.with_items({"text": features["text"]}, NAMES)
    torch.testing.assert_close(
        some.parts["text"][OLD:], model.with_items(features, NAMES).parts["text"][OLD:], atol=0.2, rtol=0
    )
    torch.testing.assert_close(
        some.parts["image"][OLD:], model.parts["image"].mean(0).expand(NEW, -1), atol=0.2, rtol=0
    )
    zero = model.with_items({name: torch.zeros_like(table) for name, table in features.items()}, NAMES)
    assert bool(torch.isfinite(zero.items).all())


def test_a_file_places_too(tmp_path: Path) -> None:
    model, features, _ = planted()
    serving.write(model, tmp_path / "x.safetensors")
    back = smore_ext.load(tmp_path / "x.safetensors")
    grown = back.with_items(features, NAMES)
    assert grown.recommend(["u1"], 30) == model.with_items(features, NAMES).recommend(["u1"], 30)
    serving.write(grown, tmp_path / "y.safetensors")
    again = smore_ext.load(tmp_path / "y.safetensors")
    assert again.recommend(["u1"], 30) == grown.recommend(["u1"], 30)
    assert again.with_items({"text": features["text"][:1]}, ["newer"]).item_ids[-1] == "newer"  # type: ignore[index]
    serving.write(model, tmp_path / "z.safetensors", placing=False)
    with pytest.raises(
        QuestionError, match="expected a model whose data has features that it reads, got one that has none"
    ):
        smore_ext.load(tmp_path / "z.safetensors").with_items(features, NAMES)


def test_numbers_go_on_where_there_are_no_raw_ids() -> None:
    model, features, _ = planted(ids=False)
    grown = model.with_items(features)
    assert grown.similar([OLD + 2], 1)[OLD + 2] and len(grown.known) == OLD + NEW


@pytest.mark.parametrize(
    ("change", "ids", "message"),
    [
        ({}, [*NAMES[:-1], "b3"], "ids: expected new ones, each once, got 'b3'"),
        ({}, [*NAMES[:-1], NAMES[0]], "ids: expected new ones, each once, got 'new0'"),
        ({}, NAMES[:-1], "ids: expected 30, as there are features, got 29"),
        ({}, None, "ids: expected 30, as there are features, got none"),
        ({"smell": torch.ones(NEW, 3)}, NAMES, "features: expected image, text, got 'smell'"),
        (
            {"text": torch.ones(NEW, 15)},
            NAMES,
            r"features of text: expected finite numbers of shape \(30, 16\), got shape \(30, 15\)",
        ),
        ({"text": torch.full((NEW, 16), torch.nan)}, NAMES, "with NaN or infinity"),
        (
            {"text": torch.ones(NEW - 1, 16)},
            NAMES,
            r"expected finite numbers of shape \(30, 16\), got shape \(29, 16\)",
        ),
    ],
)
def test_bad_items(change: dict[str, torch.Tensor], ids: list[str] | None, message: str) -> None:
    model, features, _ = planted()
    with pytest.raises(QuestionError, match=message):
        model.with_items(features | change, ids)


def test_placed_items_are_found_better_than_by_content() -> None:
    data = builtin_dataset(n_users=400, n_items=300, n_interactions=9000)
    found = place_items.measure(data, "LightGCN", {"epochs": 25, "lr": 0.01, "batch_size": 512}, seed=1)["ways"]
    recall = {way: answer["recall"].mean() for way, answer in found.items()}
    assert recall["placed"] > recall["content"]
    assert recall["placed"] > 0.7 * recall["retrained"]


def test_items_that_are_cold_by_their_split() -> None:
    data = builtin_dataset(n_users=400, n_items=300, n_interactions=9000)
    splits = (data.train, data.valid, data.test)
    users, items = torch.cat([part.users for part in splits]), torch.cat([part.items for part in splits])
    label = labelled(users.numpy(), items.numpy(), None, Rules(split="item_cold", seed=1))
    parts = (Pairs(users[torch.from_numpy(label == n)], items[torch.from_numpy(label == n)]) for n in range(3))
    cold = Dataset.from_pairs("cold", data.n_users, data.n_items, *parts, features=data.features)
    assert place_items.is_cold(cold) and not place_items.is_cold(data)
    again, held, kept = place_items.held_out(cold, seed=1)
    assert not kept[torch.cat([cold.valid.items, cold.test.items])].any() and torch.equal(
        held, cold.test.items.unique()
    )
    assert len(again.train.users) + len(again.valid.users) < len(cold.train.users)
    assert kept[torch.cat([again.train.items, again.valid.items])].all()
    found = place_items.measure(cold, "LightGCN", {"epochs": 25, "lr": 0.01, "batch_size": 512}, seed=1)
    recall = {way: answer["recall"].mean() for way, answer in found["ways"].items()}
    assert set(recall) == {"placed", "in the graphs", "content", "chance"}
    assert recall["placed"] > recall["chance"] + 0.1
    shares = found["ways"]["chance"]["times in test"]
    assert shares.shape == (4,) and ((shares >= 0) & (shares <= 1)).all()
