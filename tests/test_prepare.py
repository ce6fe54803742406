"""From dumps to folders: every source's form, rules against plain Python, splits that leak nothing, and bad input."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from smore_ext import check, train
from smore_ext.data import Dataset, DatasetError, ReadOptions, load_dataset
from smore_ext.data.missing import filled
from smore_ext.prepare import Rules, check_folder, encoders, prepare
from smore_ext.prepare.__main__ import main
from smore_ext.prepare.folder import MANIFEST, TEXTS

duckdb = pytest.importorskip("duckdb")


class Row(NamedTuple):
    user: str
    item: str
    rating: float
    time: int


def rows(seed: int = 0, count: int = 1500) -> list[Row]:
    """Some users and items of few interactions, and repeated pairs."""
    rng = np.random.default_rng(seed)
    users = np.floor(60 * rng.random(count) ** 1.7).astype(int)
    items = np.floor(50 * rng.random(count) ** 1.7).astype(int)
    times = rng.permutation(count) + 1_400_000_000
    ratings = rng.integers(1, 6, count)
    return [
        Row(f"U{u:03}", f"B{i:03}", float(r), int(t)) for u, i, r, t in zip(users, items, ratings, times, strict=True)
    ]


ROWS = rows()
ITEMS = sorted({row.item for row in ROWS})
TITLES = {item: f"Title of {item}" for item in ITEMS}


def packed(path: Path, table: list[dict[str, Any]], spelled: Callable[[Any], str] = json.dumps) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(spelled(row) + "\n" for row in table)
    return path


def separated(path: Path, head: list[str], table: list[list[Any]], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(table)
    return path


def amazon_2014(place: Path) -> tuple[Path, Path]:
    """Reviews are JSON; metadata are Python literals."""
    reviews = [
        {
            "reviewerID": r.user,
            "asin": r.item,
            "reviewText": "it's\u2028",
            "overall": r.rating,
            "unixReviewTime": r.time,
        }
        for r in ROWS
    ]
    items = [{"asin": i, "title": TITLES[i], "categories": [["A", "B's"]], "price": 1.0} for i in ITEMS]
    return packed(place / "reviews.json.gz", reviews), packed(place / "meta.json.gz", items, spelled=repr)


def amazon_2018(place: Path) -> tuple[Path, Path]:
    reviews = [
        {"overall": r.rating, "verified": True, "reviewerID": r.user, "asin": r.item, "unixReviewTime": r.time}
        for r in ROWS
    ]
    items = [{"category": ["A"], "description": ["d"], "title": TITLES[i], "brand": "x", "asin": i} for i in ITEMS]
    return packed(place / "All.json.gz", reviews), packed(place / "meta_All.json.gz", items)


def amazon_2023(place: Path) -> tuple[Path, Path]:
    reviews = [
        {"rating": r.rating, "asin": "variant", "parent_asin": r.item, "user_id": r.user, "timestamp": r.time}
        for r in ROWS
    ]
    items = [{"title": TITLES[i], "features": ["f"], "store": None, "parent_asin": i} for i in ITEMS]
    return packed(place / "All.jsonl.gz", reviews), packed(place / "meta.jsonl.gz", items)


def amazon_2023_csv(place: Path) -> tuple[Path, Path]:
    table = [[r.user, r.item, r.rating, r.time] for r in ROWS]
    reviews = separated(place / "All.csv", ["user_id", "parent_asin", "rating", "timestamp"], table)
    return reviews, separated(place / "meta.csv", ["parent_asin", "title"], [[i, TITLES[i]] for i in ITEMS])


def recbole(place: Path) -> tuple[Path, Path]:
    head = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    reviews = separated(place / "x.inter", head, [[r.user, r.item, r.rating, float(r.time)] for r in ROWS], "\t")
    items = separated(
        place / "x.item", ["item_id:token", "movie_title:token_seq"], [[i, TITLES[i]] for i in ITEMS], "\t"
    )
    return reviews, items


def microlens(place: Path) -> tuple[Path, Path]:
    reviews = separated(place / "pairs.csv", ["user", "item", "timestamp"], [[r.user, r.item, r.time] for r in ROWS])
    return reviews, separated(place / "titles.csv", ["item", "title"], [[i, TITLES[i]] for i in ITEMS])


def parquet(place: Path) -> tuple[Path, Path]:
    reviews, items = amazon_2023_csv(place)
    for path in (reviews, items):
        duckdb.sql(f"COPY (SELECT * FROM read_csv('{path}', all_varchar=true)) TO '{path.with_suffix('.parquet')}'")
    return reviews.with_suffix(".parquet"), items.with_suffix(".parquet")


SOURCES: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    f.__name__: f for f in (amazon_2014, amazon_2018, amazon_2023, amazon_2023_csv, recbole, microlens, parquet)
}


def core(table: list[Row], k: int) -> set[tuple[str, str]]:
    """The k-core by its definition."""
    pairs = {(r.user, r.item) for r in table}
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        kept = {(u, i) for u, i in pairs if users[u] >= k and items[i] >= k}
        if kept == pairs:
            return pairs
        pairs = kept


def raw_pairs(data: Dataset, *splits: str) -> set[tuple[str, str]]:
    assert data.user_ids is not None and data.item_ids is not None
    return {
        (data.user_ids[u], data.item_ids[i])
        for split in splits
        for u, i in zip(*(column.tolist() for column in getattr(data, split)), strict=True)
    }


def read(folder: Path) -> Dataset:
    return load_dataset(folder, options=ReadOptions(ids="mapped"))


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


def vectors(place: Path, form: str, items: list[str]) -> Path:
    table = np.random.default_rng(1).normal(size=(len(items), 6)).astype(np.float32)
    if form == "npy":
        np.save(place / "image.npy", table)
        (place / "image.txt").write_text("\n".join(items) + "\n")
        return place / "image.npy"
    wide = [f"f{n}" for n in range(6)]
    if form == "jsonl":
        path = place / "image.jsonl"
        path.write_text(
            "".join(json.dumps({"id": i, "vector": row.tolist()}) + "\n" for i, row in zip(items, table, strict=True))
        )
        return path
    source = separated(
        place / "image.csv", ["item_id", *wide], [[i, *row] for i, row in zip(items, table, strict=True)]
    )
    if form == "csv":
        return source
    columns = ", ".join(f"CAST({name} AS FLOAT) AS {name}" for name in wide)
    duckdb.sql(
        f"COPY (SELECT item_id, {columns} FROM read_csv('{source}', all_varchar=true)) TO '{place / 'image.parquet'}'"
    )
    return place / "image.parquet"


@pytest.mark.parametrize("form", ["npy", "jsonl", "csv", "parquet"])
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
    out = filled(features, missing, users, items, 5, "neighbours")
    assert torch.equal(out[:3], features[:3])
    torch.testing.assert_close(out[3], features[0])
    torch.testing.assert_close(out[4], features[:3].mean(0))
    torch.testing.assert_close(filled(features, missing, users, items, 5, "mean")[3], features[:3].mean(0))
    with pytest.raises(DatasetError, match="expected one of mean, neighbours, got 'zero'"):
        filled(features, missing, users, items, 5, "zero")  # type: ignore[arg-type]


class Encoder:
    """Stands in for a sentence encoder: the length of a text, and of its words."""

    calls = 0

    def __init__(self, name: str, local_files_only: bool) -> None:
        assert local_files_only
        if name == "absent":
            raise OSError("no such\nmodel")

    def encode(self, texts: list[str], **_: Any) -> np.ndarray:
        Encoder.calls += 1
        return np.array([[len(text), len(text.split())] for text in texts], dtype=np.float64)


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> type[Encoder]:
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Encoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(encoders, "CHUNK", 16)
    Encoder.calls = 0
    return Encoder


def test_texts_are_encoded_and_a_stopped_run_goes_on(
    encoder: type[Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, items = recbole(tmp_path)
    whole = encoder.encode

    def dies(self: Encoder, texts: list[str], **kw: Any) -> np.ndarray:
        if encoder.calls == 2:
            raise KeyboardInterrupt
        return whole(self, texts, **kw)

    monkeypatch.setattr(encoder, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "x", items=items, text_encoder="m")
    assert not (tmp_path / "x").exists()
    monkeypatch.setattr(encoder, "encode", whole)
    prepared = prepare(source, tmp_path / "x", items=items, text_encoder="m")
    data = read(prepared.folder)
    assert encoder.calls == -(-data.n_items // 16)  # none twice
    assert data.features["text"][0].tolist() == [len("Title of B000"), 3]
    assert prepared.manifest["features"]["text"]["encoder"] == "m"
    assert not list(tmp_path.glob(".x*"))


def test_an_encoder_that_is_not_there(encoder: type[Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, items = recbole(tmp_path)
    with pytest.raises(
        DatasetError, match="absent: expected a sentence-transformers model on this machine, got: no such model"
    ):
        prepare(source, tmp_path / "x", items=items, text_encoder="absent")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install 'smore-ext\\[text\\]'"):
        prepare(source, tmp_path / "x", items=items, text_encoder="m")
    assert not (tmp_path / "x").exists()


# Bad input: one clear error, nothing left.


def truncated(place: Path) -> Path:
    source, _ = amazon_2018(place)
    source.write_bytes(source.read_bytes()[:-2000])
    return source


def broken_json(place: Path) -> Path:
    path = place / "x.jsonl"
    path.write_text('{"user_id": "a", "item_id": "b"}\n{"user_id": "a", \n')
    return path


def table_of(*lines: str) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / "x.csv").write_text("\n".join(lines) + "\n")
        return place / "x.csv"

    return make


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (truncated, r"All.json.gz: cannot be read"),
    "broken_json": (broken_json, r"x.jsonl:2: expected a JSON object a line, got '\{\"user_id\": \"a\",'"),
    "no_item": (table_of("user_id,rating", "a,1"), r"expected a column of items \(parent_asin, .* got user_id, rating"),
    "no_id": (
        table_of("user_id,item_id", "a,b", ",b"),
        r"expected an id as user in column user_id, got nothing in 1 rows",
    ),
    "text_rating": (
        table_of("user_id,item_id,rating", "a,b,good"),
        r"expected a number as rating in column rating, got 'good'",
    ),
    "text_time": (
        table_of("user_id,item_id,timestamp", "a,b,2014-01-01"),
        r"expected a number of seconds .* got '2014-01-01'",
    ),
    "ragged": (table_of("user_id,item_id,rating", "a,b,1", "a,c"), r"x.csv: cannot be read"),
    "empty": (table_of(""), r"expected a header line"),
    "no_rows": (table_of("user_id,item_id"), r"expected interactions, got a table without rows"),
    "small": (table_of("user_id,item_id", "a,b"), r"the 5-core is empty"),
    "absent": (lambda place: place / "no.csv", r"no.csv: expected a file of interactions or items, got nothing there"),
    "folder": (lambda place: place, r"expected a file of interactions or items, got a folder"),
    "ending": (lambda place: Path(__file__), r"expected a file that ends with one of .json, .*, got .py"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_sources(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    make, message = BAD[name]
    source = make(tmp_path / "in")
    with pytest.raises(DatasetError, match=message):
        prepare(source, tmp_path / "out" / "x")
    assert list((tmp_path / "out").iterdir()) == []


def test_mixed_ids_are_texts(tmp_path: Path) -> None:
    lines = [json.dumps({"user_id": u, "item_id": i}) for u in ("a", 7, "007") for i in (1, "x", "01")]
    (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    data = read(prepare(tmp_path / "x.jsonl", tmp_path / "x", Rules(k_core=1)).folder)
    assert data.user_ids == ("007", "7", "a") and data.item_ids == ("01", "1", "x")


def test_bad_items_and_vectors(tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    item = ITEMS[0]

    def fails(message: str, **arguments: Any) -> None:
        with pytest.raises(DatasetError, match=message):
            prepare(source, tmp_path / "x", **arguments)
        assert not (tmp_path / "x").exists()

    twice = separated(tmp_path / "twice.csv", ["item_id", "title"], [[item, "a"], [item, "b"]])
    fails(f"expected each item once, got '{item}' with other texts", items=twice)
    bare = separated(tmp_path / "bare.csv", ["item_id", "price"], [[item, 1]])
    fails(r"expected a column of texts \(title, .* got item_id, price", items=bare)
    table = [[item, 1.0, float("nan")]]
    fails("expected finite numbers", vectors={"a": separated(tmp_path / "v.csv", ["item_id", "x", "y"], table)})
    other = separated(tmp_path / "o.csv", ["item_id", "x", "y"], [["nobody", 1, 2]])
    fails("got vectors of|expected vectors of one width|got none of theirs", vectors={"a": other})
    np.save(tmp_path / "w.npy", np.ones((3, 2)))
    fails("one id a line, in .*w.txt, got nothing there", vectors={"a": tmp_path / "w.npy"})
    (tmp_path / "w.txt").write_text("a\nb\n")
    fails(r"expected numbers of shape \(2, width\)", vectors={"a": tmp_path / "w.npy"})
    (tmp_path / "w.txt").write_text(f"{item}\n{item}\nb\n")
    fails(f"expected each item once, got '{item}' twice", vectors={"a": tmp_path / "w.npy"})


def test_a_folder_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = recbole(tmp_path)
    prepare(source, tmp_path / "x")
    before = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    with pytest.raises(FileExistsError, match="--overwrite"):
        prepare(source, tmp_path / "x", Rules(k_core=2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("smore_ext.prepare.folder.write_texts", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(source, tmp_path / "x", Rules(k_core=2), items=tmp_path / "x.item", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()} == before
    assert not list(tmp_path.glob(".x*"))


@pytest.mark.parametrize("rules", [{"k_core": 0}, {"split": "half"}, {"ratios": (0.5, 0.5, 0.5)}])
def test_bad_rules(rules: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="expected"):
        Rules(**rules)


# Commands


def test_a_dump_is_prepared_checked_and_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, items = amazon_2018(tmp_path)
    image = vectors(tmp_path, "npy", ITEMS)
    folder = tmp_path / "data" / "shop"
    flags = ["--items", str(items), "--vectors", f"image={image}", "--min-rating", "2"]
    assert main([str(source), "-o", str(folder), *flags]) == 0
    assert "smore train -d shop" in capsys.readouterr().out
    assert check.main([str(folder), "--ids", "mapped", "--json", str(tmp_path / "r.json")]) in (0, 1)
    out = capsys.readouterr().out
    assert "features image: 6 wide" in out and json.loads((tmp_path / "r.json").read_text())
    arguments = ["-m", "SMORE", "-d", "shop", "--data-path", str(folder.parent), "--ids", "mapped", "--epochs", "1"]
    assert train.main([*arguments, "--knn-k", "3", "-o", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "ids.json").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split-ratios", "1"], "--split-ratios: expected three numbers"),
        (["--vectors", "image"], "--vectors: expected NAME=FILE, got image"),
        (["--text-encoder", "m"], "--text-encoder: expected --items FILE"),
        (["--split", "half"], "half"),
        (["--k-cor", "3"], "did you mean --k-core"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = recbole(tmp_path)
    assert main([str(source), "-o", str(tmp_path / "x"), *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_check_says_what_is_odd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(40), 5), rng.integers(0, 30, 200)
    place = np.unique(users * 30 + items)
    features = torch.randn(30, 8)
    features[3], features[4], features[:, 2] = 0, features[5], 1.0
    features[3] = 0
    features[7] *= 1e4
    place = rng.permutation(place)
    parts = [(part // 30, part % 30) for part in (place[:-30], place[:0], place[-30:-15], place[-15:])]
    data = Dataset.from_pairs("x", 40, 30, parts[0], parts[1], parts[2], features={"image": features})
    texts = tmp_path / "t.jsonl"
    texts.write_text("".join(json.dumps({"item": str(i), "text": "same" if i % 2 else ""}) + "\n" for i in range(30)))
    told = [remark.text for remark in check_folder(data, texts) if remark.odd]
    for part in (
        "there is no validation interaction",
        "features image: 1 items (3.3%) have rows of zeros",
        "have those of another",
        "the longest row is",
        "texts: 15 of 30 items have none",
        "texts: 14 items have the text of another",
    ):
        assert any(part in line for line in told), (part, told)
    calm = check_folder(Dataset.from_pairs("x", 40, 30, parts[0], parts[2], parts[3]))
    assert not [remark.text for remark in calm if remark.odd]
    assert check.main([str(tmp_path / "nowhere")]) == 2
    assert "expected a folder of data, got nothing there" in capsys.readouterr().err


# What a review found.


def test_names_with_brackets_are_names(tmp_path: Path) -> None:
    """DuckDB takes a path for a pattern: another file would be read."""
    (tmp_path / "x1.csv").write_text("user_id,item_id\nother,other\n")
    source = separated(tmp_path / "x[1].csv", ["user_id", "item_id"], [["a", "b"]])
    data = read(prepare(source, tmp_path / "out [1]" / "d", Rules(k_core=1)).folder)
    assert data.user_ids == ("a",)
    place = tmp_path / "model=clip"
    place.mkdir()
    path = separated(place / "v.csv", ["item_id", "x"], [["b", "[1.0, 2.0]"]], "\t")
    assert read(prepare(source, tmp_path / "e", Rules(k_core=1), vectors={"image": path}).folder).features[
        "image"
    ].shape == (1, 2)


def test_a_source_within_the_folder_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    source, _ = recbole(tmp_path / "x")
    with pytest.raises(DatasetError, match="expected to lie outside"):
        prepare(source, tmp_path / "x", overwrite=True)
    assert source.is_file()


def test_quotes_in_titles_between_tabs_are_text(tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    items = tmp_path / "t.item"
    items.write_text("item_id:token\tmovie_title:token_seq\n" + "".join(f'{i}\t"Great" {i}\n' for i in ITEMS))
    prepare(source, tmp_path / "x", items=items)
    first = json.loads((tmp_path / "x" / TEXTS).read_text().splitlines()[0])
    assert first["text"] == f'"Great" {first["item"]}'


def test_lists_in_json_are_spelled_as_their_texts(tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    text = {
        "title": 'Café "big" \n new',
        "categories": [["A, B", "C"], []],
        "description": ["[not a list", None, " d "],
    }
    packed(tmp_path / "m.json.gz", [{"asin": i, **text} for i in ITEMS])
    prepare(source, tmp_path / "x", items=tmp_path / "m.json.gz")
    first = json.loads((tmp_path / "x" / TEXTS).read_text().splitlines()[0])
    assert first["text"] == 'Café "big" new. A, B, C. [not a list, d'


def test_fractions_of_times_stay(tmp_path: Path) -> None:
    table = [[r.user, r.item, r.time / 1e10] for r in ROWS]
    source = separated(tmp_path / "x.csv", ["user_id", "item_id", "timestamp"], table)
    prepare(source, tmp_path / "x", Rules(split="time"))
    table_ = np.loadtxt(tmp_path / "x" / "x.inter", delimiter="\t", skiprows=1)
    when, label = table_[:, 2], table_[:, 3]
    assert len(np.unique(when)) > 500 and when[label == 0].max() <= when[label == 2].min()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["user_id,item_id,rating", "a,b,nan"], "expected a number as rating in column rating, got 'nan'"),
        (["user_id,item_id", "  ,b"], "expected an id as user in column user_id, got nothing"),
        (["user_id,item_id", 'a,"b\tc"'], r"expected an id as item in column item_id, got 'b\\tc'"),
        (["user_id,item_id,item_id", "a,b,c"], "expected different names of columns"),
    ],
)
def test_values_that_the_reader_would_refuse(lines: list[str], message: str, tmp_path: Path) -> None:
    source = table_of(*lines)(tmp_path)
    with pytest.raises(DatasetError, match=message):
        prepare(source, tmp_path / "x", Rules(k_core=1))


@pytest.mark.parametrize("name", ["", "user", "a b", "../x", "text"])
def test_names_of_features_are_those_that_are_read(name: str, tmp_path: Path) -> None:
    source, items = recbole(tmp_path)
    with pytest.raises(DatasetError, match="vectors: expected a name of letters"):
        prepare(source, tmp_path / "x", items=items, text_encoder="m", vectors={name: source})


def test_memory_is_a_size(tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    with pytest.raises(DatasetError, match="memory: expected a size such as 1GB, got 'lots'"):
        prepare(source, tmp_path / "x", memory="lots")


def test_an_empty_vector_is_none_and_the_item_column_is_everyones(tmp_path: Path) -> None:
    source = separated(tmp_path / "s.csv", ["user_id", "sku"], [["u", "a"], ["u", "b"]])
    path = tmp_path / "v.jsonl"
    path.write_text('{"sku": "a", "v": [1.0, 2.0]}\n{"sku": "b", "v": null}\n')
    items = separated(tmp_path / "i.csv", ["sku", "title"], [["a", "A"], ["b", "B"]])
    prepared = prepare(source, tmp_path / "x", Rules(k_core=1, item="sku"), items=items, vectors={"image": path})
    assert prepared.manifest["features"]["image"]["missing"] == 1
    assert (tmp_path / "x" / "image_missing.txt").read_text() == "b\n"


def test_check_reads_a_table_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d").mkdir()
    rows_ = "".join(f"{u}\t{i}\n" for u in range(6) for i in range(u, u + 5))
    (tmp_path / "d" / "d.inter").write_text("userID\titemID\n" + rows_)
    assert check.main([str(tmp_path / "d"), "--split", "random"]) in (0, 1)
    assert "6 users" in capsys.readouterr().out
