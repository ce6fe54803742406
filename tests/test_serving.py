"""A trained model asked: lists, similar items and explanations, with and without its data, against plain Python."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import smore_ext
from benchmarks import fold_in
from smore_ext import explain, export, recommend, runs, serving, similar, train
from smore_ext.data import DatasetError, builtin_dataset
from smore_ext.evaluation.ranking import embeddings, evaluating
from smore_ext.models import MODELS, LightGCN
from smore_ext.runs import LoadedRun
from smore_ext.serving import Factors, QuestionError
from smore_ext.serving.forms import write_form
from smore_ext.serving.lists import write_lists
from smore_ext.settings.config import RunConfig, without_places
from smore_ext.training.checkpoint import CheckpointError

DATA = builtin_dataset(n_users=30, n_items=40, n_interactions=300)


def config_of(model: str, **settings: Any) -> RunConfig:
    return without_places(runs.resolve({"model": model, "epochs": 2, **settings}))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    place = tmp_path_factory.mktemp("served") / "run"
    runs.train(config_of("SMORE", embedding_dim=8, knn_k=3), DATA, place)
    return runs.load_run(place, dataset=DATA)


@pytest.fixture(scope="module")
def served(run: LoadedRun) -> Factors:
    return smore_ext.load(run)


def had(run: LoadedRun, user: int) -> set[int]:
    data = run.dataset
    return {int(i) for split in (data.train, data.valid, data.test) for i in split.items[split.users == user]}


def test_lists_are_those_of_the_run(run: LoadedRun, served: Factors) -> None:
    users = served.trained.nonzero()[:, 0].tolist()
    theirs = run.recommend(users, 7)
    ours = served.recommend(users, 7)
    assert {u: [(e.item, e.score) for e in items] for u, items in theirs.items()} == ours
    assert dict(served.all_lists(7)) == ours


def test_what_may_be_recommended(run: LoadedRun, served: Factors) -> None:
    users, items = embeddings(run.model)
    scores = users @ items.T
    some = [3, 9, 12, 20, 31]
    for user in (0, 5):
        seen = had(run, user)
        allowed = [near.item for near in served.recommend([user], 50, allow=some)[user]]
        assert set(allowed) == set(some) - seen
        denied = [near.item for near in served.recommend([user], 50, deny=some)[user]]
        assert not set(denied) & (set(some) | seen) and len(denied) == run.dataset.n_items - len(set(some) | seen)
        everything = served.recommend([user], 5, filter_seen=False)[user]
        assert [near.item for near in everything] == scores[user].sort(descending=True, stable=True).indices[
            :5
        ].tolist()
        both = served.recommend([user], 50, allow=some, deny=some[:2])[user]
        assert {near.item for near in both} == set(some[2:]) - seen


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"users": [99]}, DatasetError, "user: expected an id from 0 to 29, got '?99"),
        ({"users": ["x"]}, DatasetError, "user: expected an id from 0 to 29, got x"),
        ({"users": [-1]}, DatasetError, "user: expected an id from 0 to 29"),
        ({"users": [0], "allow": [40]}, DatasetError, "item: expected an id from 0 to 39, got '?40"),
        ({"users": [0], "allow": []}, ValueError, "expected to leave an item to recommend, got none"),
        ({"users": [0], "k": 0}, ValueError, "k must be at least 1, got 0"),
    ],
)
def test_bad_questions(served: Factors, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        served.recommend(**arguments)


PARTS = {
    "SMORE": ["behaviour", *DATA.features, "fusion"],
    "MGCN": ["behaviour", "side"],
    "FREEDOM": ["behaviour", "content"],
    "LATTICE": ["behaviour", "content"],
    "VBPR": ["behaviour", *DATA.features],
}


def test_parts_are_what_items_are_the_sum_of() -> None:
    data = DATA
    for name, cls in MODELS.loadable().items():
        torch.manual_seed(0)
        model = cls(data, config_of(name, **{"knn_k": 3} if hasattr(cls.config_class(), "knn_k") else {}).model)
        if not model.factored or model.closed_form:
            continue
        with evaluating(model):
            parts = model.item_parts()
            torch.testing.assert_close(sum(parts.values()), model.embeddings()[1], msg=name)
            assert all(bool(part.any()) for part in parts.values()), name
        assert list(parts) == PARTS.get(name, ["embedding"]), name


class Doubled(LightGCN):
    def embeddings(self) -> tuple[Tensor, Tensor]:
        users, items = super().embeddings()
        return users, 2 * items

    def item_parts(self) -> dict[str, Tensor]:
        return {"half": self.embeddings()[1] / 2}


def test_parts_that_are_not_all_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "Doubled", Doubled)
    runs.train(config_of("Doubled", embedding_dim=4), DATA, tmp_path / "run")
    with pytest.raises(ValueError, match="Doubled.item_parts: expected parts whose sum is the items' embeddings"):
        smore_ext.load(runs.load_run(tmp_path / "run", dataset=DATA))


def test_explanations_add_up_and_name_the_nearest(run: LoadedRun, served: Factors) -> None:
    users, items = embeddings(run.model)
    for user, item in ((0, 5), (7, 30), (3, next(iter(had(run, 3))))):
        found = served.explain(user, item, k=2)
        assert found.score == pytest.approx(float(users[user].double() @ items[item].double()))
        assert sum(found.contributions.values()) == pytest.approx(found.score, abs=1e-6)
        assert found.seen == (item in had(run, user)) and found.nearest.keys() == served.parts.keys()
        for name, near in found.nearest.items():
            others = sorted(had(run, user) - {item})
            table = served.parts[name].double()
            cosine = F.cosine_similarity(table[others], table[item][None], dim=1)
            best = cosine.sort(descending=True, stable=True)
            assert [n.item for n in near] == [others[i] for i in best.indices[:2]]
            assert [n.value for n in near] == pytest.approx(best.values[:2].tolist())


def test_similar_items_by_part(served: Factors) -> None:
    for by in (None, *served.parts):
        table = F.normalize((served.items if by is None else served.parts[by]).double(), dim=1)
        near = served.similar([4], 5, by)[4]
        cosine = table @ table[4]
        cosine[4] = -2
        assert [n.item for n in near] == cosine.sort(descending=True, stable=True).indices[:5].tolist()
        assert near[0].value == pytest.approx(float(cosine.max()))
    assert len(served.similar([4], 500)[4]) == len(served.known) - 1
    with pytest.raises(
        ValueError, match="by: expected one of behaviour, image, text, fusion, got 'txt'.*did you mean 'text'"
    ):
        served.similar([4], by="txt")


def test_lists_are_the_same_on_the_device_under_test(served: Factors, device: torch.device) -> None:
    there = served.to(device)

    def items(lists: Any) -> Any:
        return {of: [near.item for near in found] for of, found in lists}

    assert items(there.all_lists(10)) == items(served.all_lists(10))
    some = served.recommend([0, 3, 5], 7, False, allow=list(range(0, 40, 2)), deny=[4])
    assert items(there.recommend([0, 3, 5], 7, False, allow=list(range(0, 40, 2)), deny=[4]).items()) == items(
        some.items()
    )
    for by in (None, "text"):
        assert items(there.similar([1, 9], by=by).items()) == items(served.similar([1, 9], by=by).items())
    new, theirs = (model.recommend_for([2, 11, 30], 8) for model in (there, served))
    assert [near.item for near in new] == [near.item for near in theirs]
    why, other = (model.explain(3, 12) for model in (there, served))
    assert why.contributions == pytest.approx(other.contributions, abs=1e-5)
    assert items(why.nearest.items()) == items(other.nearest.items())


def test_nothing_is_denied_and_nothing_nearest_is_an_error(served: Factors) -> None:
    assert served.recommend([3], 4, allow=None, deny=None) == served.recommend([3], 4)
    assert [near.item for near in served.recommend([3], 4, allow=[5], deny=None)[3]] == [5][
        : 5 not in served.history(3)
    ]
    for k in (0, -1):
        with pytest.raises(QuestionError, match="k must be at least 1"):
            served.explain(3, 12, k)


def test_new_items_may_come_as_arrays(served: Factors) -> None:
    rows = {name: table[:2].numpy() for name, table in DATA.features.items()}
    tensors = {name: table[:2] for name, table in DATA.features.items()}
    assert torch.equal(served.with_items(rows).items, served.with_items(tensors).items)


def test_a_file_is_enough(run: LoadedRun, served: Factors, tmp_path: Path) -> None:
    serving.write(served, tmp_path / "x.safetensors")
    back = smore_ext.load(tmp_path / "x.safetensors")
    users = served.trained.nonzero()[:, 0].tolist()
    assert back.recommend(users, 6) == served.recommend(users, 6)
    assert back.explain(2, 9) == served.explain(2, 9) and back.similar([1], by="fusion") == served.similar(
        [1], by="fusion"
    )
    assert back.about["model"] == run.config.train.model
    with pytest.raises(ValueError, match=r"expected a file that ends with .safetensors"):
        serving.write(served, tmp_path / "x.bin")


def test_an_index_gives_the_same_lists(served: Factors, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    write_form(served, tmp_path / "x.faiss")
    index = faiss.read_index(str(tmp_path / "x.faiss"))
    for user in served.trained.nonzero()[:, 0].tolist():
        had = served.history(user)
        left = faiss.SearchParameters(sel=faiss.IDSelectorNot(faiss.IDSelectorBatch(had)))
        score, item = index.search(served.users[user : user + 1].numpy(), 9, params=left)
        ours = served.recommend([user], 9)[user]
        assert item[0].tolist() == [near.item for near in ours]
        # Of products of about .03 each, so a sum near 0 is known to their rounding.
        assert score[0].tolist() == pytest.approx([near.value for near in ours], rel=1e-5, abs=1e-7)


def test_a_program_gives_the_same_scores(served: Factors, tmp_path: Path) -> None:
    write_form(served, tmp_path / "x.pt2")
    program = torch.export.load(tmp_path / "x.pt2").module()
    for users in (torch.tensor([3]), torch.tensor([5, 0, 7])):
        torch.testing.assert_close(program(users), served.users[users] @ served.items.T)


def test_a_part_that_is_all_is_written_too(tmp_path: Path) -> None:
    model = planted()
    assert model.parts["embedding"] is model.items
    serving.write(model, tmp_path / "x.safetensors")
    assert smore_ext.load(tmp_path / "x.safetensors").explain(2, 9) == model.explain(2, 9)


def test_what_is_served_outlives_its_file(served: Factors, tmp_path: Path) -> None:
    """Tensors that are mapped would change with a file that is written over."""
    path = tmp_path / "x.safetensors"
    serving.write(served, path)
    model = smore_ext.load(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert model.recommend([0], 9) == served.recommend([0], 9)


def test_a_flipped_bit_is_noticed(served: Factors, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    serving.write(served, path)
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="x.safetensors is damaged: its tensors do not match their digest"):
        smore_ext.load(path)


def test_damaged_and_other_files(run: LoadedRun, served: Factors, tmp_path: Path) -> None:
    good = tmp_path / "x.safetensors"
    serving.write(served, good)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut.safetensors cannot be read"):
        smore_ext.load(tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match="expected what smore export --served writes"):
        smore_ext.load(run.run_dir / "best.safetensors")
    with pytest.raises(FileNotFoundError):
        smore_ext.load(tmp_path / "no.safetensors")
    serving.write(dataclasses.replace(served, trained=served.trained[:3]), good)
    with pytest.raises(CheckpointError, match="is damaged: 3 marks for 30 users"):
        smore_ext.load(good)


def test_lists_in_files(served: Factors, tmp_path: Path) -> None:
    count = write_lists(served.all_lists(4), tmp_path / "l.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert len(rows) == count == int(served.trained.sum())
    expected = served.recommend([rows[3]["user"]], 4)[rows[3]["user"]]
    assert rows[3]["items"] == [near.item for near in expected]
    assert rows[3]["scores"] == pytest.approx([near.value for near in expected])
    with pytest.raises(ValueError, match="ends with one of .jsonl, .parquet"):
        write_lists(served.all_lists(4), tmp_path / "l.csv")

    def breaks() -> Any:
        yield 0, served.recommend([0], 2)[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_lists(breaks(), tmp_path / "half.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.jsonl"]


def test_lists_in_parquet(served: Factors, tmp_path: Path) -> None:
    write_lists(served.all_lists(4), tmp_path / "l.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "l.parquet").to_pylist()
    lists = dict(served.all_lists(4))
    assert len(table) == len(lists)
    for row in table:
        assert row["items"] == [str(near.item) for near in lists[int(row["user"])]]


# Commands, by raw ids


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on data with raw ids, and its file; the data is gone."""
    place = tmp_path_factory.mktemp("shop")
    data = place / "data" / "shop"
    data.mkdir(parents=True)
    splits = (DATA.train, DATA.valid, DATA.test)
    rows = [f"{u}\t{i}\t{n}" for n, pairs in enumerate(splits) for u, i in zip(*map(Tensor.tolist, pairs), strict=True)]
    (data / "shop.inter").write_text("\n".join(["userID\titemID\tx_label", *rows]) + "\n")
    for kind, letter, count in (("u", "u", 30), ("i", "b", 40)):
        lines = ["raw\tnumber", *(f"{letter}{n}\t{n}" for n in range(count))]
        (data / f"{kind}_id_mapping.csv").write_text("\n".join(lines) + "\n")
    for m, table in DATA.features.items():
        np.save(data / f"{m}_feat.npy", table.numpy())
    arguments = ["-d", "shop", "--data-path", str(data.parent), "--ids", "mapped", "--epochs", "1", "--knn-k", "3"]
    assert train.main([*arguments, "--embedding-dim", "8", "-o", str(place / "run")]) == 0
    assert export.main([str(place / "run"), "-o", str(place / "shop.safetensors"), "--served"]) == 0
    data.rename(place / "gone")
    return place / "run", place / "shop.safetensors"


def test_commands_by_raw_ids_without_the_data(
    shop: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(shop[1])
    assert recommend.main([file, "--user", "u3", "--k", "4", "--json", str(tmp_path / "r.json")]) == 0
    (user, items), *_ = json.loads((tmp_path / "r.json").read_text()).items()
    assert user == "u3" and len(items) == 4 and items[0]["item"].startswith("b")
    (tmp_path / "users.txt").write_text("u5\nu3\n")
    for kind in ("jsonl", "parquet"):
        out = tmp_path / f"some.{kind}"
        assert recommend.main([file, "--users", str(tmp_path / "users.txt"), "--k", "4", "-o", str(out)]) == 0
        assert f"lists of 2 users in {out}" in " ".join(capsys.readouterr().out.split())
    some = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert [row["user"] for row in some] == ["u5", "u3"] and some[1]["items"] == [item["item"] for item in items]
    assert pyarrow.parquet.read_table(tmp_path / "some.parquet").to_pylist()[0]["items"] == some[0]["items"]
    assert recommend.main([file, "--history", "b3", "-o", str(tmp_path / "no.jsonl")]) == 2
    assert "--output: expected it with --user or --users" in capsys.readouterr().err
    (tmp_path / "deny.txt").write_text(items[0]["item"] + "\n\n")
    denied = ["--deny", str(tmp_path / "deny.txt"), "--json", str(tmp_path / "d.json")]
    assert recommend.main([file, "--user", "u3", "--k", "3", *denied]) == 0
    left = json.loads((tmp_path / "d.json").read_text())["u3"]
    assert [entry["item"] for entry in left] == [entry["item"] for entry in items[1:]]
    assert recommend.main([file, "--all", str(tmp_path / "all.jsonl"), "--k", "2"]) == 0
    assert "lists of" in capsys.readouterr().out and (tmp_path / "all.jsonl").is_file()
    assert similar.main([file, "--item", "b1", "--by", "text", "--json", str(tmp_path / "s.json")]) == 0
    assert len(json.loads((tmp_path / "s.json").read_text())["b1"]) == 10
    assert explain.main([file, "--user", "u3", "--item", "b1", "--json", str(tmp_path / "e.json")]) == 0
    found = json.loads((tmp_path / "e.json").read_text())
    assert sum(found["contributions"].values()) == pytest.approx(found["score"], abs=1e-6)
    out = capsys.readouterr().out
    assert "like item b1, by text" in out and "the user's items nearest to it by fusion" in out


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (recommend, [], "expected --user ID, --users FILE, --history ID for somebody new, or --all FILE"),
        (
            recommend,
            ["--user", "u1", "--all", "x.jsonl"],
            "expected --user ID, --users FILE, --history ID for somebody new, or --all FILE",
        ),
        (recommend, ["--user", "nobody"], "user: expected one of the 30 raw ids of the data, got 'nobody'"),
        (recommend, ["--user", "u1", "--mask", "train"], "--mask train: expected a run and single users"),
        (similar, ["--item", "b1", "--by", "smell"], "by: expected one of behaviour, image, text, fusion, got 'smell'"),
        (explain, ["--user", "u1", "--item", "b99"], "item: expected one of the 40 raw ids of the data, got 'b99'"),
    ],
)
def test_wrong_arguments(
    command: Any, arguments: list[str], message: str, shop: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(shop[1]), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_export_of_a_served_file_needs_its_ending(shop: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(shop[0]), "-o", "x", "--served"]) == 2
    assert "--served: expected -o FILE.safetensors" in capsys.readouterr().err


def test_numbers_are_ids_where_there_are_no_raw_ones(served: Factors) -> None:
    assert served.recommend(["3"], 4) == served.recommend([3], 4) == served.recommend([np.int64(3).item()], 4)


# Users whom the model does not know


def planted() -> Factors:
    """Users who are a linear map of the sum of their items over the root of the number."""
    from smore_ext.graph import Graph

    generator = torch.Generator().manual_seed(0)
    items = torch.randn(50, 6, generator=generator)
    dense = (torch.rand(300, 50, generator=generator) < 0.2).float()
    dense[:, 0] = 1
    sums = dense @ items / dense.sum(1, keepdim=True).sqrt()
    users = sums @ torch.randn(6, 6, generator=generator)
    user, item = dense.nonzero().T
    graph = Graph.from_edges(user, item, None, (300, 50))
    every = torch.ones(300, dtype=torch.bool)
    return Factors(graph, torch.arange(50), every, None, None, {}, users, items, {"embedding": items})


def test_somebody_new_is_placed_as_the_users_are() -> None:
    model = planted()
    for user in (0, 7, 200):
        had_ = model.seen.rows(torch.tensor([user])).col.tolist()
        torch.testing.assert_close(model.fold_in(had_), model.users[user].double(), rtol=0.02, atol=0.02)
        ours = [near.item for near in model.recommend_for(had_, 3)]
        assert ours == [near.item for near in model.recommend([user], 3)[user]]
    assert torch.equal(model.fold_in([3, 5, 3]), model.fold_in([3, 5]))


def test_what_somebody_new_may_get() -> None:
    model = planted()
    assert not {near.item for near in model.recommend_for([1, 2, 3], 50)} & {1, 2, 3}
    assert {near.item for near in model.recommend_for([1], 50, filter_seen=False)} == set(range(50))
    assert {near.item for near in model.recommend_for([1], 5, allow=[1, 4, 9], deny=[9])} == {4}
    with pytest.raises(ValueError, match="expected at least one that somebody has had, got none"):
        model.recommend_for([])
    with pytest.raises(DatasetError, match="item: expected an id from 0 to 49"):
        model.recommend_for([77])
    for ask in (model.recommend_for, model.similar):
        with pytest.raises(ValueError, match="k must be at least 1, got 0"):
            ask([1], k=0)


def test_held_out_users_are_served_better_than_by_popularity() -> None:
    """A tenth of the users are kept from training; most of their items say what the rest will be."""
    whole = builtin_dataset(n_users=400, n_items=150, n_interactions=6000)
    found = fold_in.measure(whole, "LightGCN", {"epochs": 25, "lr": 0.01, "batch_size": 512}, seed=1)
    assert found["fold-in"].mean() > 1.2 * found["popularity"].mean()
    assert found["fold-in"].mean() > 0.7 * found["retrained"].mean()
