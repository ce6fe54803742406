"""From dumps to folders: every source's form, rules against plain Python, splits that leak nothing, features."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dumps import (
    ITEMS,
    ROWS,
    SOURCES,
    TITLES,
    amazon_2023_csv,
    core,
    model_folder,
    raw_pairs,
    read,
    recbole,
    separated,
    vectors,
)

from smore_ext.data import DatasetError
from smore_ext.data.files import MANIFEST, TEXTS
from smore_ext.data.missing import fill
from smore_ext.prepare import Rules, encoders, prepare


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_becomes_the_same_folder(name: str, tmp_path: Path) -> None:
    source, items = SOURCES[name](tmp_path)
    prepared = prepare(source, tmp_path / "data" / "x", items=items)
    data = read(prepared.folder)
    assert raw_pairs(data, "train", "valid", "test") == core(ROWS, 5)
    assert data.user_ids == tuple(sorted({u for u, _ in core(ROWS, 5)}))
    texts = [json.loads(line) for line in (prepared.folder / TEXTS).read_text().splitlines()]
    assert [t["item"] for t in texts] == list(data.item_ids or ()) and all(
        TITLES[t["item"]] in t["text"] for t in texts
    )
    assert not any(mark in t["text"] for t in texts for mark in '[]"')
    manifest = json.loads((prepared.folder / MANIFEST).read_text())
    assert manifest["counts"]["read"] == len(ROWS) and manifest["counts"]["users"] == data.n_users
    assert manifest["sources"]["interactions"]["name"] == source.name
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["x"]


def test_flags_name_columns(tmp_path: Path) -> None:
    source = separated(tmp_path / "odd.tsv", ["who", "what", "when"], [[r.user, r.item, r.time] for r in ROWS], "\t")
    with pytest.raises(DatasetError, match=r"expected a column of users .*--user-column names.*got who, what, when"):
        prepare(source, tmp_path / "x")
    data = read(prepare(source, tmp_path / "x", Rules(user="who", item="what", time="when", split="user_time")).folder)
    assert raw_pairs(data, "train", "valid", "test") == core(ROWS, 5)
    with pytest.raises(DatasetError, match="expected a column 'wo' of users; did you mean 'who'"):
        prepare(source, tmp_path / "y", Rules(user="wo", item="what"))


@pytest.mark.parametrize(("k", "least"), [(1, None), (3, None), (8, None), (2, 4.0)])
def test_rules_are_those_of_plain_python(k: int, least: float | None, tmp_path: Path) -> None:
    source, _ = amazon_2023_csv(tmp_path)
    data = read(prepare(source, tmp_path / "x", Rules(k_core=k, min_rating=least, split="time")).folder)
    kept = [r for r in ROWS if least is None or r.rating >= least]
    table = (tmp_path / "x" / "x.inter").read_text().splitlines()[1:]
    assert len(table) == len(core(kept, k))
    first = {}
    for r in sorted(kept, key=lambda r: r.time):
        first.setdefault((r.user, r.item), r)
    for line in table:
        user, item, rating, when, _ = line.split("\t")
        r = first[data.user_ids[int(user)], data.item_ids[int(item)]]  # type: ignore[index]
        assert (float(rating), int(when)) == (r.rating, r.time)


def test_a_long_chain_is_peeled_to_its_end(tmp_path: Path) -> None:
    """Each round takes one pair from either end: a bound on rounds would leave some."""
    chain = [[f"u{n // 2:05}", f"i{(n + 1) // 2:05}"] for n in range(2400)]
    source = separated(tmp_path / "x.csv", ["user_id", "item_id"], [*chain, *([u, i] for u in "ab" for i in "cd")])
    data = read(prepare(source, tmp_path / "x", Rules(k_core=2)).folder)
    assert data.user_ids == ("a", "b") and data.item_ids == ("c", "d")


def labels(folder: Path) -> np.ndarray:
    """user, item, time, label of each interaction."""
    table = np.loadtxt(folder / "x.inter", delimiter="\t", skiprows=1)
    return table[:, [0, 1, 3, 4]].astype(np.int64)


@pytest.mark.parametrize("split", ["random", "leave_one_out", "user_time", "time", "item_cold"])
def test_splits_leak_nothing(split: str, tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    rules = Rules(split=split, seed=3)  # type: ignore[arg-type]
    table = labels(prepare(source, tmp_path / "x", rules).folder)
    user, item, when, label = table.T
    assert set(label) == {0, 1, 2} and len({(u, i) for u, i in table[:, :2]}) == len(table)
    if split == "time":  # nobody trains on what comes after what is tested
        assert when[label == 0].max() <= when[label == 1].min() and when[label == 1].max() <= when[label == 2].min()
    if split in ("user_time", "leave_one_out"):
        for u in set(user):
            own = user == u
            parts = [when[own & (label == part)] for part in range(3)]
            assert all(a.max() <= b.min() for a, b in zip(parts, parts[1:], strict=False) if len(a) and len(b))
            if split == "leave_one_out":
                assert len(parts[1]) == len(parts[2]) == 1
    if split == "item_cold":
        places = [set(item[label == part]) for part in range(3)]
        assert not places[0] & places[1] and not places[0] & places[2] and not places[1] & places[2]
        assert 0.03 < np.mean(label == 2) < 0.15
    if split == "random":
        share = [np.mean(label == part) for part in range(3)]
        assert share == pytest.approx([0.8, 0.1, 0.1], abs=0.04)
    again = labels(prepare(source, tmp_path / "x", rules, overwrite=True).folder)
    np.testing.assert_array_equal(table, again)
    if split in ("random", "item_cold"):
        other = labels(prepare(source, tmp_path / "x", Rules(split=split, seed=4), overwrite=True).folder)  # type: ignore[arg-type]
        assert not np.array_equal(table, other)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    head = ["user_id", "item_id", "rating", "timestamp"]
    folders = []
    for name, table in (("a", ROWS), ("b", ROWS[::-1])):
        source = separated(tmp_path / f"{name}.csv", head, [[r.user, r.item, r.rating, r.time] for r in table])
        folders.append(prepare(source, tmp_path / name / "x").folder)
    one, other = ((folder / "x.inter").read_bytes() for folder in folders)
    assert one == other


# Features


@pytest.mark.parametrize("form", ["npy", "folder", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("how", ["mean", "neighbours"])
def test_vectors_are_put_in_the_items_order_and_gaps_are_filled(form: str, how: str, tmp_path: Path) -> None:
    have = ITEMS[::-1][:30] + ["nobody"]
    path = vectors(tmp_path, form, have)
    source, _ = recbole(tmp_path)
    prepared = prepare(source, tmp_path / "x", vectors={"image": path}, filled=how)  # type: ignore[arg-type]
    data = read(prepared.folder)
    expected = dict(zip(have, np.random.default_rng(1).normal(size=(len(have), 6)).astype(np.float32), strict=True))
    lost = [i for i in data.item_ids or () if i not in expected]
    rows_ = data.features["image"].numpy()
    for number, raw in enumerate(data.item_ids or ()):
        if raw in expected:
            np.testing.assert_allclose(rows_[number], expected[raw], rtol=1e-6)
        else:
            assert rows_[number].any()
    assert lost and (prepared.folder / "image_missing.txt").read_text().splitlines() == lost
    assert prepared.manifest["features"]["image"] == {"shape": [data.n_items, 6], "missing": len(lost), "filled": how}


def test_neighbours_fill_by_users() -> None:
    """Item 3 has the users of item 0, so it gets its features; item 4 nobody's, so it gets the mean."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 3.0], [9.0, 9.0], [9.0, 9.0]])
    missing = torch.tensor([False, False, False, True, True])
    users, items = torch.tensor([0, 1, 0, 1, 2, 3]), torch.tensor([0, 0, 3, 3, 1, 2])
    out = fill(features, missing, users, items, 5, "neighbours")
    assert torch.equal(out[:3], features[:3])
    torch.testing.assert_close(out[3], features[0])
    torch.testing.assert_close(out[4], features[:3].mean(0))
    torch.testing.assert_close(fill(features, missing, users, items, 5, "mean")[3], features[:3].mean(0))
    with pytest.raises(DatasetError, match="expected one of mean, neighbours, got 'zero'"):
        fill(features, missing, users, items, 5, "zero")  # type: ignore[arg-type]


class Encoder:
    """Stands in for a sentence encoder: the length of a text, and of its words."""

    calls = 0

    def __init__(self, name: str, local_files_only: bool) -> None:
        assert local_files_only
        if "broken" in Path(name, "config.json").read_text():
            raise OSError("no such\nmodel")

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        Encoder.calls += 1
        return np.array([[len(text), len(text.split())] for text in texts], dtype=np.float64)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> type[Encoder]:
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Encoder  # type: ignore[attr-defined]
    module.__version__ = "6.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(encoders, "CHUNK", 16)
    Encoder.calls = 0
    return Encoder


def test_a_column_is_named_with_its_type_or_without(tmp_path: Path) -> None:
    source, items = recbole(tmp_path)
    for name in ("movie_title", "movie_title:token_seq"):
        prepared = prepare(source, tmp_path / "x", items=items, text_columns=(name,), overwrite=True)
        assert prepared.manifest["features"]["text"]["columns"] == ["movie_title:token_seq"]


def test_texts_are_encoded_and_a_stopped_run_goes_on(
    encoder: type[Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, items = recbole(tmp_path)
    model = model_folder(tmp_path)
    whole = encoder.encode

    def dies(self: Encoder, texts: list[str], **kw: Any) -> np.ndarray:
        if encoder.calls == 2:
            raise KeyboardInterrupt
        return whole(self, texts, **kw)

    monkeypatch.setattr(encoder, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "x", items=items, text_encoder=str(model))
    assert not (tmp_path / "x").exists()
    monkeypatch.setattr(encoder, "encode", whole)
    prepared = prepare(source, tmp_path / "x", items=items, text_encoder=str(model))
    data = read(prepared.folder)
    assert encoder.calls == -(-data.n_items // 16)  # none twice
    assert data.features["text"][0].tolist() == [len("Title of B000"), 3]
    assert prepared.manifest["features"]["text"]["encoder"] == str(model)
    assert not list(tmp_path.glob(".x*"))


def test_an_encoder_that_is_not_there(encoder: type[Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, items = recbole(tmp_path)
    model = model_folder(tmp_path)
    (model / "config.json").write_text("broken")
    with pytest.raises(DatasetError, match="m: expected a sentence-transformers model .*, got: no such model"):
        prepare(source, tmp_path / "x", items=items, text_encoder=str(model))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install 'smore-ext\\[text\\]'"):
        prepare(source, tmp_path / "x", items=items, text_encoder=str(model))
    assert not (tmp_path / "x").exists()
