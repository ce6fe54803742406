"""Ids that the data does not use are neither recommended nor served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from smore_ext import evaluate, recommend, runs, train
from smore_ext.data import Dataset

pytestmark = pytest.mark.usefixtures("command_surroundings")
N_ITEMS, N_USERS = 60, 40  # the largest ids are far from the others
GAPS = set(range(40, 59))


def rows() -> Iterator[tuple[int, int, int]]:
    for label, pairs in enumerate(tiny.interactions().values()):
        yield from ((user, item, label) for user, item in pairs)
    yield from ((39, 59, 0), (39, 3, 0), (39, 4, 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "gaps").mkdir()
    lines = ["userID\titemID\tx_label", *("\t".join(map(str, row)) for row in rows())]
    (folder / "gaps" / "gaps.inter").write_text("\n".join(lines) + "\n")
    return folder


def trained(data: Path, path: Path, model: str) -> Path:
    flags = ["-m", model, "-d", "gaps", "--data-path", str(data), "-o", str(path), "--epochs", "1", "-q"]
    assert train.main(flags) == 0
    return path


@pytest.mark.parametrize("model", ["LightGCN", "Popularity", "EASE"])
def test_gaps_between_ids_are_not_recommended(
    data: Path, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(data, tmp_path / "run", model)
    for mask in ("all", "train"):
        call = [str(run), "--user", "3", "--user", "39", "--k", "1000", "--mask", mask]
        assert recommend.main([*call, "--json", str(tmp_path / "top.json")]) == 0
        seen = {user: {i for u, i, label in rows() if u == user and (mask == "all" or not label)} for user in (3, 39)}
        for user, entries in json.loads((tmp_path / "top.json").read_text()).items():
            found = [entry["item"] for entry in entries]
            assert set(found) == set(range(N_ITEMS)) - GAPS - seen[int(user)] and len(found) == len(set(found))
            scores = [entry["score"] for entry in entries]
            assert scores == sorted(scores, reverse=True)
    capsys.readouterr()
    for user, message in {
        "35": "user: expected one with train interactions, got 35, who has none",
        "40": "user: expected an id from 0 to 39, got 40",
        "-1": "user: expected an id from 0 to 39, got -1",
    }.items():
        assert recommend.main([str(run), "--user", user]) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


def test_exported_lists_leave_them_out(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", "LightGCN")
    lists = runs.export(run, tmp_path / "lists", lists=True, k=50)
    assert lists["ranked"].shape == (N_USERS, N_ITEMS - len(GAPS))
    assert not set(lists["ranked"].flatten().tolist()) & GAPS
    unused = torch.ones(N_USERS, dtype=torch.bool)
    unused[[user for user, _, label in rows() if label == 0]] = False
    assert bool((lists["ranked"][unused] == -1).all()) and bool((lists["scores"][unused] == -torch.inf).all())
    assert bool((lists["ranked"][~unused][:, 0] >= 0).all())


def test_evaluation_keeps_to_the_published_protocol(data: Path, tmp_path: Path) -> None:
    """There all ids up to the largest are ranked."""
    run = trained(data, tmp_path / "run", "LightGCN")
    assert evaluate.main([str(run), "--json", str(tmp_path / "e.json")]) == 0
    stored = json.loads((run / "result.json").read_text())
    assert json.loads((tmp_path / "e.json").read_text())["test"] == stored["test"]


def test_an_item_with_features_is_known() -> None:
    features = np.zeros((2000, 3), dtype=np.float32)
    features[[5, 1500]] = 1
    data = Dataset.from_pairs("x", 2, 2000, ([0, 1], [0, 7]), ([0], [9]), ([1], [1999]), {"image": features})
    assert data.known_items.tolist() == [0, 5, 7, 9, 1500, 1999]


def test_an_item_with_a_raw_id_is_known() -> None:
    data = Dataset.from_pairs("x", 2, 3, ([0, 1], [0, 0]), ([0], [1]), ([], []), item_ids=("a", "b", "c"))
    assert data.known_items.tolist() == [0, 1, 2]
