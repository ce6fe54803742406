"""prepare and check on bad and unusual input, and as commands: one clear error, nothing left, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dumps import (
    ITEMS,
    ROWS,
    amazon_2018,
    packed,
    read,
    recbole,
    separated,
    table_of,
    vectors,
)

from smore_ext import check, train
from smore_ext.data import Dataset, DatasetError
from smore_ext.data.files import TEXTS
from smore_ext.prepare import Rules, check_folder, prepare
from smore_ext.prepare.__main__ import main

# Bad input: one clear error, nothing left.


def truncated(place: Path) -> Path:
    source, _ = amazon_2018(place)
    source.write_bytes(source.read_bytes()[:-2000])
    return source


def broken_json(place: Path) -> Path:
    path = place / "x.jsonl"
    path.write_text('{"user_id": "a", "item_id": "b"}\n{"user_id": "a", \n')
    return path


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
        table_of("user_id,item_id,timestamp", "a,b,May 2014"),
        r"expected a number of seconds .*, or a date such as 2014-05-13 17:03:47, as time .* got 'May 2014' in 1 rows",
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


def test_ids_of_a_table_are_texts(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(
        "user_id,item_id\n" + "".join(f"{u},{i}\n" for u in ("a", 7, "007") for i in (1, "x", "01"))
    )
    data = read(prepare(tmp_path / "x.csv", tmp_path / "x", Rules(k_core=1)).folder)
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
    folder = tmp_path / "each"
    folder.mkdir()
    fails("expected files <item>.npy of some of the .* items, got none of theirs", vectors={"a": folder})
    np.save(folder / f"{ITEMS[0]}.npy", np.ones((2, 3)))
    fails(r"expected one vector of numbers, got float64 of shape \(2, 3\)", vectors={"a": folder})
    np.save(folder / f"{ITEMS[0]}.npy", np.ones((1, 3)))
    np.save(folder / f"{ITEMS[1]}.npy", np.ones(4))
    fails(f"expected 3 numbers as in {ITEMS[0]}.npy, got 4", vectors={"a": folder})
    (folder / f"{ITEMS[1]}.npy").write_bytes(b"x")
    fails(f"{ITEMS[1]}.npy: cannot be read", vectors={"a": folder})


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
        (["--text-columns", "title"], "--text-columns: expected --items FILE"),
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
