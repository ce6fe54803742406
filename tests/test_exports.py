"""What `export` writes for other programs: its forms, raw ids beside them, of a run and of a served file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from pyarrow import parquet
from safetensors.torch import load_file

import smore_ext
from smore_ext import export, recommend, runs, train

USERS, ITEMS = 30, 40


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with raw ids, runs of LightGCN and EASE on it, and a served file of each."""
    place = tmp_path_factory.mktemp("exports")
    data = tiny.write_dataset(place / "data", features=True)
    for kind, letter, count in (("u", "u", USERS), ("i", "b", ITEMS)):
        lines = ["raw\tnumber", *(f"{letter}{n}\t{n}" for n in range(count))]
        (data / "tiny" / f"{kind}_id_mapping.csv").write_text("\n".join(lines) + "\n")
    flags = ["-d", "tiny", "--data-path", str(data), "--ids", "mapped", "-q"]
    for model, more in (("LightGCN", ["--epochs", "1", "--embedding-dim", "8"]), ("EASE", [])):
        assert train.main(["-m", model, *flags, *more, "-o", str(place / model)]) == 0
        assert export.main([str(place / model), "-o", str(place / f"{model}.safetensors"), "--served"]) == 0
    return place


@pytest.fixture(params=["run", "file"])
def source(request: pytest.FixtureRequest, shop: Path) -> str:
    return str(shop / "LightGCN") if request.param == "run" else str(shop / "LightGCN.safetensors")


@pytest.fixture(params=["run", "file"])
def of_weights(request: pytest.FixtureRequest, shop: Path) -> str:
    return str(shop / "EASE") if request.param == "run" else str(shop / "EASE.safetensors")


IDS = {"users": [f"u{n}" for n in range(USERS)], "items": [f"b{n}" for n in range(ITEMS)]}


@pytest.mark.parametrize("name", ["x.faiss", "x.pt2", "x.safetensors", "folder"])
def test_raw_ids_are_beside_every_form(source: str, name: str, tmp_path: Path) -> None:
    if name == "x.faiss":
        pytest.importorskip("faiss")
    assert export.main([source, "-o", str(tmp_path / name)]) == 0
    beside = tmp_path / ("folder/ids.json" if name == "folder" else "x.ids.json")
    assert json.loads(beside.read_text()) == IDS


def test_there_is_no_file_of_ids_where_numbers_are_the_ids(tmp_path: Path) -> None:
    config = runs.resolve(
        {"model": "Popularity", "dataset": "tiny", "data_path": tiny.write_dataset(tmp_path / "data")}
    )
    runs.train(config, runs.open_dataset(config), tmp_path / "run")
    assert export.main([str(tmp_path / "run"), "-o", str(tmp_path / "out" / "x.pt2")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.pt2"]


def test_embeddings_are_those_of_the_run(source: str, shop: Path, tmp_path: Path) -> None:
    model = smore_ext.load(shop / "LightGCN")
    assert export.main([source, "-o", str(tmp_path / "x.safetensors")]) == 0
    assert export.main([source, "-o", str(tmp_path / "folder")]) == 0
    stored = load_file(tmp_path / "x.safetensors")
    for name, table in (("users", model.users), ("items", model.items)):
        assert torch.equal(stored[name], table)
        np.testing.assert_array_equal(np.load(tmp_path / "folder" / f"{name}.npy"), table.numpy())


def test_embeddings_in_parquet(source: str, shop: Path, tmp_path: Path) -> None:
    assert export.main([source, "-o", str(tmp_path / "out"), "--format", "parquet"]) == 0
    model = smore_ext.load(shop / "LightGCN")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["items.parquet", "users.parquet"]
    for name, table in (("users", model.users), ("items", model.items)):
        read = parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pydict()
        assert read["id"] == IDS[name]
        np.testing.assert_array_equal(np.array(read["embedding"], dtype=np.float32), table.numpy())


def test_lists_in_parquet_are_those_of_recommend(source: str, of_weights: str, tmp_path: Path) -> None:
    for place, more in ((source, ["--lists"]), (of_weights, [])):
        assert export.main([place, "-o", str(tmp_path / "x.parquet"), "--k", "4", *more]) == 0
        assert recommend.main([place, "--all", str(tmp_path / "y.parquet"), "--k", "4"]) == 0
        ours, theirs = (parquet.read_table(tmp_path / f"{name}.parquet").to_pydict() for name in "xy")
        assert ours == theirs and len(ours["user"]) == USERS and ours["items"][0][0].startswith("b")


def test_lists_of_a_file_are_those_of_its_run(shop: Path, tmp_path: Path) -> None:
    for model in ("LightGCN", "EASE"):
        for place in (model, f"{model}.safetensors"):
            assert export.main([str(shop / place), "-o", str(tmp_path / place), "--lists", "--k", "7"]) == 0
        of_file = load_file(tmp_path / f"{model}.safetensors")
        for name in ("ranked", "scores"):
            np.testing.assert_array_equal(np.load(tmp_path / model / f"{name}.npy"), of_file[name].numpy())


def test_a_file_may_be_written_again_without_what_places_new_items(shop: Path, tmp_path: Path) -> None:
    whole, bare = shop / "LightGCN.safetensors", tmp_path / "bare.safetensors"
    assert export.main([str(whole), "-o", str(bare), "--served", "--no-placing"]) == 0
    assert bare.stat().st_size < whole.stat().st_size
    assert smore_ext.load(bare).recommend(["u3"], 9) == smore_ext.load(whole).recommend(["u3"], 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-o", "x.csv"],
            "x.csv: expected a file that ends with one of .safetensors, .parquet, .faiss, .pt2, or a fold",
        ),
        (["-o", "x.npy"], "x.npy: expected a file that ends with one of "),
        (["-o", "x.parquet"], "x.parquet: expected --lists with it; of embeddings -o DIR --format parquet writes"),
        (["-o", "x.faiss", "--lists"], "--lists: expected a .safetensors or .parquet file, or a folder, got x.faiss"),
        (["-o", "x.safetensors", "--format", "parquet"], "--format parquet: expected a folder, and no --lists"),
        (["-o", "x", "--format", "parquet", "--lists"], "--format parquet: expected a folder, and no --lists"),
    ],
)
def test_places_and_forms_that_do_not_fit(
    source: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export.main([source, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_a_file_or_a_model_of_scores_cannot_give(
    shop: Path, of_weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = str(shop / "LightGCN.safetensors"), str(tmp_path / "out")
    assert export.main([file, "-o", folder, "--lists", "--mask", "train"]) == 2
    assert "--mask train: expected a run, got a file that --served wrote" in capsys.readouterr().err
    assert export.main([of_weights, "-o", folder, "--format", "parquet"]) == 2
    assert "expected embeddings for a folder of parquet, got lists: see -o FILE.parquet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_may_have_an_ending_of_digits_or_be_there(source: str, tmp_path: Path) -> None:
    (tmp_path / "x.old").mkdir()
    for name in ("v1.2", "x.old"):
        assert export.main([source, "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name / "users.npy").is_file()


# recommend: users of a file, and seen items kept


def lists_of(path: Path) -> dict[str, list[str]]:
    return {user: [entry["item"] for entry in items] for user, items in json.loads(path.read_text()).items()}


def test_users_of_a_file(source: str, of_weights: str, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("u3\n\nu5\n")
    answer = tmp_path / "a.json"
    for place in (source, of_weights):
        asked = [place, "--users", str(tmp_path / "users"), "--k", "4", "--json", str(answer)]
        assert recommend.main([*asked, "--user", "u7"]) == 0
        model = smore_ext.load(place)
        wanted = model.recommend(["u3", "u5", "u7"], 4)
        assert lists_of(answer) == {user: [near.item for near in items] for user, items in wanted.items()}
        assert recommend.main([*asked, "--keep-seen"]) == 0
        wanted = model.recommend(["u3", "u5"], 4, filter_seen=False)
        assert lists_of(answer) == {user: [near.item for near in items] for user, items in wanted.items()}


def test_lists_of_all_users_with_seen_items_kept(source: str, of_weights: str, tmp_path: Path) -> None:
    for place in (source, of_weights):
        assert recommend.main([place, "--all", str(tmp_path / "x.jsonl"), "--k", str(ITEMS), "--keep-seen"]) == 0
        rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
        assert len(rows) == USERS and all(len(row["items"]) == ITEMS for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "empty"], "empty: expected ids of users, one a line, got none"),
        (
            ["--users", "ids", "--all", "x.jsonl"],
            "expected --user ID, --users FILE, --history ID for somebody new, or --all FILE",
        ),
        (["--users", "ids", "--keep-seen", "--mask", "train"], "--mask train: expected a run and single users"),
        (["--users", "no"], "No such file"),
        (["--users", "strange"], "user: expected one of the 30 raw ids of the data, got 'nobody'"),
    ],
)
def test_users_that_are_none(
    source: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("empty", "\n"), ("ids", "u3\n"), ("strange", "u3\nnobody\n")):
        (tmp_path / name).write_text(text)
    assert recommend.main([source, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()


def test_train_items_alone_may_be_left_out_for_users_of_a_file(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text("u3\n")
    answer = tmp_path / "a.json"
    arguments: list[Any] = [shop / "LightGCN", "--users", tmp_path / "users", "--mask", "train", "--k", ITEMS]
    assert recommend.main([*map(str, arguments), "--json", str(answer)]) == 0
    assert len(lists_of(answer)["u3"]) == ITEMS - 5  # its train items
