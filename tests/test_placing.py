"""Items that a model has not seen, placed by features: a planted map is found, noise is told, bad input refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F

import smore_ext
from benchmarks import place_items
from smore_ext import export, runs, serving
from smore_ext.data import Dataset, DatasetError, Pairs, builtin_dataset
from smore_ext.graph import Graph
from smore_ext.prepare.rules import Rules, labelled
from smore_ext.serving import Factors, QuestionError

OLD, NEW, USERS = 400, 30, 60


def planted(noise: float = 0.01, ids: bool = True) -> tuple[Factors, dict[str, torch.Tensor], torch.Tensor]:
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
    model = Factors(
        Graph.from_edges(pairs[0], pairs[1], None, (USERS, OLD)),
        torch.arange(OLD),
        torch.ones(USERS, dtype=torch.bool),
        tuple(f"u{n}" for n in range(USERS)) if ids else None,
        tuple(f"b{n}" for n in range(OLD)) if ids else None,
        {"model": "Planted", "dataset": "planted", "fingerprint": ""},
        users=torch.randn(USERS, 8, generator=generator),
        items=(parts["image"] + parts["text"])[:OLD],
        parts={name: part[:OLD] for name, part in parts.items()},
        features={name: table[:OLD] for name, table in features.items()},
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
    with pytest.raises(QuestionError, match="expected a model whose data has features, got one that has none"):
        smore_ext.load(tmp_path / "z.safetensors").with_items(features, NAMES)


def test_the_command_adds_items_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, features, _ = planted()
    model_file, ids, grown_file = tmp_path / "x.safetensors", tmp_path / "ids.txt", tmp_path / "y.safetensors"
    serving.write(model, model_file)
    ids.write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    new = []
    for name, table in features.items():
        np.save(tmp_path / f"{name}.npy", table.numpy())
        new += ["--new", f"{name}={tmp_path / name}.npy"]
    np.save(tmp_path / "words.npy", np.array([["a"]] * NEW))
    np.save(tmp_path / "one.npy", np.array(1.0))
    add = [str(model_file), "-o", str(grown_file), "--served", *new]
    named = [*add[:4], "--new-ids", str(ids), "--new"]
    assert export.main([*add, "--new-ids", str(ids)]) == 0
    grown = smore_ext.load(grown_file)
    assert grown.recommend(["u1"], 30) == model.with_items(features, NAMES).recommend(["u1"], 30)
    capsys.readouterr()
    before = grown_file.read_bytes()
    for arguments, message in (
        (add, "ids: expected 30, as there are features, got none"),
        ([*add, "--new-ids", str(tmp_path / "none.txt")], "none.txt"),
        ([*add[:4], "--new-ids", str(ids)], "ids: expected 0, as there are features, got 30"),
        ([*named, "text"], "--new: expected MODALITY=FILE, each modality once, got 'text'"),
        ([*add, *new[:2]], "--new: expected MODALITY=FILE, each modality once, got 'image="),
        ([*named, f"smell={tmp_path}/text.npy"], "expected image, text, got 'smell'"),
        ([*named, f"text={tmp_path}/none.npy"], "none.npy"),
        ([*named, f"text={tmp_path}/words.npy"], "words.npy: expected numbers of shape"),
        ([*named, f"text={tmp_path}/one.npy"], "one.npy: expected numbers of shape"),
        ([str(model_file), "-o", str(tmp_path / "out"), *new], "--new, --new-ids: expected --served"),
    ):
        assert export.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert grown_file.read_bytes() == before and not (tmp_path / "out").exists()


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
        ({"text": torch.ones(NEW, 16, dtype=torch.complex64)}, NAMES, "features of text: expected real numbers, got "),
        ({"image": torch.tensor(1.0)}, [], r"of shape \(0, 24\), got shape \(\)"),
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


# Models that read no features, on data that has them


def folder_run(place: Path, model: str = "LightGCN", rows: int = 40) -> Path:
    """A run on a folder whose features the model does not read."""
    data = tiny.write_dataset(place / "data", features=True)
    random = np.random.default_rng(5)
    for modality, width in (("image", 7), ("text", 6)):
        table = random.standard_normal((rows, width), dtype=np.float32)
        np.save(data / "tiny" / f"{modality}_feat.npy", table)
    config = runs.resolve({"model": model, "dataset": "tiny", "data_path": data, "epochs": 1, "embedding_dim": 4})
    runs.train(config, runs.open_dataset(config), place / "run")
    return place / "run"


@pytest.mark.parametrize("rows", [40, 45])
def test_features_that_the_model_does_not_read_place_items(rows: int, tmp_path: Path) -> None:
    run, file = folder_run(tmp_path, rows=rows), tmp_path / "x.safetensors"
    model = smore_ext.load(run)
    assert isinstance(model, Factors) and not model.features  # nothing is read before it is asked for
    new = {"image": torch.randn(2, 7, generator=torch.Generator().manual_seed(0))}
    grown = model.with_items(new)
    assert grown.placing.weights.keys() == {"image", "text"} and len(grown.items) == 42
    assert export.main([str(run), "-o", str(file), "--served"]) == 0
    (tmp_path / "data").rename(tmp_path / "gone")
    assert smore_ext.load(file).with_items(new).recommend([3], 42) == grown.recommend([3], 42)


def test_other_or_broken_data_do_not_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = folder_run(tmp_path), tmp_path / "x.safetensors"
    model = smore_ext.load(run)
    features = tmp_path / "data" / "tiny" / "text_feat.npy"
    features.write_bytes(features.read_bytes()[:-9])
    assert model.recommend([3])  # they are not read
    with pytest.raises(DatasetError, match="text_feat.npy"):
        model.with_items({"image": torch.ones(1, 7)})
    assert export.main([str(run), "-o", str(file), "--served"]) == 2
    message = capsys.readouterr().err
    assert "text_feat.npy" in message and "--no-placing writes the file without" in message and not file.exists()
    assert export.main([str(run), "-o", str(file), "--served", "--no-placing"]) == 0
    features.unlink()
    table = tmp_path / "data" / "tiny" / "tiny.inter"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(QuestionError, match="expected the data that the run was trained on, got another"):
        model.with_items({"image": torch.ones(1, 7)})


def test_data_without_features_place_nothing(tmp_path: Path) -> None:
    run, file = folder_run(tmp_path), tmp_path / "x.safetensors"
    for path in (tmp_path / "data" / "tiny").glob("*.npy"):
        path.unlink()
    with pytest.raises(QuestionError, match="expected a model whose data has features, got one that has none"):
        smore_ext.load(run).with_items({"image": torch.ones(1, 7)})
    assert export.main([str(run), "-o", str(file), "--served"]) == 0
