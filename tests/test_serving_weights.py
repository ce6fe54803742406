"""Models of weights between items, served: lists are those of the run, votes add up, files and the server agree."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import safe_open
from torch import Tensor

import smore_ext
from smore_ext import Dataset, Graph, Recommender, explain, export, recommend, runs, serve, serving, similar
from smore_ext.data import DatasetError, builtin_dataset
from smore_ext.evaluation.ranking import scores_of
from smore_ext.models import MODELS
from smore_ext.models.ease import EASE, EASEConfig
from smore_ext.runs import LoadedRun
from smore_ext.serving import Factors, ItemWeights, QuestionError
from smore_ext.serving.forms import write_form
from smore_ext.settings.config import without_places
from smore_ext.training.checkpoint import CheckpointError

DATA = builtin_dataset(n_users=60, n_items=50, n_interactions=500)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "EASE": ("EASE", {"reg_weight": 5.0}),
    "L3AE": ("L3AE", {"reg_weight": 5.0, "feature_weight": 3.0}),
    "ItemKNN": ("ItemKNN", {}),
    "ItemKNN-sparse": ("ItemKNN", {"n_neighbours": 3}),
    "TurboCF": ("TurboCF", {}),
    "TurboCF-second": ("TurboCF", {"polynomial": (0.0, 2.0, -1.0)}),
}


def trained(model: str, place: Path, data: Dataset = DATA, **settings: Any) -> LoadedRun:
    runs.train(without_places(runs.resolve({"model": model, **settings})), data, place)
    return runs.load_run(place, dataset=data)


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    model, settings = CASES[request.param]
    return trained(model, tmp_path_factory.mktemp("weights") / request.param, **settings)


@pytest.fixture(scope="module")
def served(run: LoadedRun) -> ItemWeights:
    found = smore_ext.load(run)
    assert isinstance(found, ItemWeights)
    return found


def close(lists: dict[Any, list[Any]]) -> dict[Any, list[Any]]:
    """To be compared with other lists: the same items, and scores to rounding."""
    return {
        user: [(near[0], pytest.approx(near[1], rel=1e-5, abs=1e-6)) for near in items] for user, items in lists.items()
    }


def test_lists_are_those_of_the_run(run: LoadedRun, served: ItemWeights) -> None:
    users = served.trained.nonzero()[:, 0].tolist()
    ours = served.recommend(users, 12)
    assert ours == close(run.recommend(users, 12))
    assert dict(served.all_lists(12)) == ours
    assert served.recommend([], 3) == {}


def test_scores_are_the_models(run: LoadedRun, served: ItemWeights) -> None:
    users = torch.tensor([3, 0, 41])
    torch.testing.assert_close(served.scores(served.voters.rows(users)), scores_of(run.model, users, DATA.n_items))


def test_weights_stay_sparse_where_they_are(request: pytest.FixtureRequest, served: ItemWeights) -> None:
    assert isinstance(served.weights, Graph) == ("sparse" in request.node.callspec.id)


def test_blocks_of_users_change_nothing(served: ItemWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    users = served.trained.nonzero()[:, 0].tolist()
    whole = served.recommend(users, 9)
    monkeypatch.setattr("smore_ext.serving.item_weights.SCORES", 120)
    assert served.recommend(users, 9) == whole


def test_what_may_be_recommended(run: LoadedRun, served: ItemWeights) -> None:
    scores = scores_of(run.model, torch.arange(DATA.n_users), DATA.n_items)
    some = [3, 9, 12, 20, 31]
    for user in (0, 5):
        seen = set(served.history(user))
        assert seen == {
            int(i) for split in (DATA.train, DATA.valid, DATA.test) for i in split.items[split.users == user]
        }
        assert {near.item for near in served.recommend([user], 50, allow=some)[user]} == set(some) - seen
        assert not {near.item for near in served.recommend([user], 50, deny=some)[user]} & (set(some) | seen)
        kept = served.recommend([user], 5, filter_seen=False)[user]
        assert [near.value for near in kept] == pytest.approx(scores[user].topk(5).values.tolist(), rel=1e-5)


def test_somebody_new_is_scored_as_a_user_with_these_items(run: LoadedRun, served: ItemWeights) -> None:
    for user in (0, 7, 33):
        theirs = DATA.train.items[DATA.train.users == user].tolist()
        ours = served.recommend_for(theirs, 50, filter_seen=False)
        assert ours == served.recommend([user], 50, filter_seen=False)[user]
        assert not {near.item for near in served.recommend_for(theirs, 50)} & set(theirs)
    assert served.recommend_for([3, 5, 3], 4) == served.recommend_for([3, 5], 4)
    assert {near.item for near in served.recommend_for([1], 5, allow=[1, 4, 9], deny=[9])} == {4}
    with pytest.raises(QuestionError, match="expected at least one that somebody has had, got none"):
        served.recommend_for([])


def test_votes_add_up(run: LoadedRun, served: ItemWeights) -> None:
    scores = scores_of(run.model, torch.arange(DATA.n_users), DATA.n_items)
    for user, item in ((0, 5), (7, 30), (3, served.history(3)[0])):
        found = served.explain(user, item, k=1000)
        assert found.score == pytest.approx(float(scores[user, int(item)]), rel=1e-5, abs=1e-6)
        assert found.contributions == {"history": found.score} and found.nearest.keys() == {"history"}
        votes = found.nearest["history"]
        assert sum(vote.value for vote in votes) == pytest.approx(found.score, rel=1e-5, abs=1e-6)
        assert {vote.item for vote in votes} <= set(DATA.train.items[DATA.train.users == user].tolist())
        assert [vote.value for vote in votes] == sorted((vote.value for vote in votes), reverse=True)
        assert found.seen == (item in served.history(user))
        assert served.explain(user, item, k=2).nearest["history"] == votes[:2]


def test_similar_items_are_those_that_one_votes_for(served: ItemWeights) -> None:
    weights = served.weights if isinstance(served.weights, Tensor) else served.weights.to_dense()
    row = weights[4].clone()
    row[4] = -torch.inf
    wanted = [(n, v) for v, n in zip(*(t.tolist() for t in row.sort(descending=True, stable=True)), strict=True)]
    found = served.similar([4, 4], 1000)[4]
    assert found == [(n, v) for n, v in wanted if v not in (0, -torch.inf)]
    assert served.similar([4], 2)[4] == found[:2]
    with pytest.raises(QuestionError, match=r"by: expected none, as .* has weights between items, got 'text'"):
        served.similar([4], by="text")
    for ask in (served.similar, served.recommend_for):
        with pytest.raises(QuestionError, match="k must be at least 1, got 0"):
            ask([1], k=0)
    with pytest.raises(DatasetError, match="item: expected an id from 0 to 49"):
        served.similar([50])


def test_new_items_and_forms_of_embeddings_are_refused(served: ItemWeights, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="with_items: expected a model of embeddings, got "):
        served.with_items({"text": torch.ones(1, 3)})
    for name in ("x.faiss", "x.pt2"):
        with pytest.raises(QuestionError, match="expected a model of embeddings, .*--served .*--lists"):
            write_form(served, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_is_enough(served: ItemWeights, tmp_path: Path) -> None:
    ids = {"user_ids": tuple(f"u{n}" for n in range(60)), "item_ids": tuple(f"b{n}" for n in range(50))}
    for model, user, item in ((served, 3, 7), (dataclasses.replace(served, **ids), "u3", "b7")):
        serving.write(model, tmp_path / "x.safetensors")
        back = smore_ext.load(tmp_path / "x.safetensors")
        assert isinstance(back, ItemWeights) and back.about == model.about
        with safe_open(tmp_path / "x.safetensors", "pt") as file:
            assert file.metadata()["format"] == "smore_ext served weights 1"  # which earlier versions refuse
        assert dict(back.all_lists(6)) == dict(model.all_lists(6))
        assert back.explain(user, item) == model.explain(user, item) and back.similar([item]) == model.similar([item])
        assert back.recommend_for([item]) == model.recommend_for([item]) and back.history(user) == model.history(user)


def test_damaged_files_are_told(served: ItemWeights, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    serving.write(dataclasses.replace(served, trained=served.trained[:3]), path)
    with pytest.raises(CheckpointError, match="is damaged: "):
        smore_ext.load(path)
    serving.write(served, path)
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its tensors do not match their digest"):
        smore_ext.load(path)


def test_the_server_answers(served: ItemWeights) -> None:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from smore_ext.serving.catalogue import Catalogue
    from smore_ext.serving.web import Live, create_app

    with TestClient(create_app(Live(lambda: (served, Catalogue())))) as client:
        got = client.get("/recommend", params={"user": 3, "k": 5}).json()["items"]
        assert [(int(e["item"]), pytest.approx(e["value"])) for e in got] == served.recommend([3], 5)[3]
        got = client.post("/recommend/users", json={"users": ["3", "5"], "k": 4, "deny": ["1"]}).json()["lists"]
        assert [int(e["item"]) for e in got[1]["items"]] == [n.item for n in served.recommend([5], 4, deny=[1])[5]]
        got = client.post("/recommend/new-user", json={"items": ["1", "2"], "k": 4}).json()["items"]
        assert [int(e["item"]) for e in got] == [near.item for near in served.recommend_for([1, 2], 4)]
        got = client.get("/similar", params={"item": 4, "k": 3}).json()["items"]
        assert [int(e["item"]) for e in got] == [near.item for near in served.similar([4], 3)[4]]
        why, found = client.get("/explain", params={"user": 3, "item": 4}).json(), served.explain(3, 4)
        assert why["contributions"] == pytest.approx(found.contributions)
        assert [int(e["item"]) for e in why["nearest"]["history"]] == [n.item for n in found.nearest["history"]]
        assert client.get("/health").json()["parts"] == []
        assert client.get("/similar", params={"item": 4, "by": "text"}).status_code == 409


# Commands


def test_commands_of_a_run_and_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_dataset(tmp_path / "data", features=True)
    config = runs.resolve({"model": "EASE", "dataset": "tiny", "data_path": data})
    runs.train(config, runs.open_dataset(config), tmp_path / "run")
    run, file = str(tmp_path / "run"), str(tmp_path / "x.safetensors")
    assert export.main([run, "-o", file, "--served"]) == 0
    model = smore_ext.load(run)
    answers = []
    for place in (run, file):
        where = [place, "--json", str(tmp_path / "a.json")]

        def answer() -> Any:
            return json.loads((tmp_path / "a.json").read_text())

        assert recommend.main([*where, "--user", "3", "--k", "4", "--deny", str(written(tmp_path, "deny", "5"))]) == 0
        answers.append([answer()])
        assert similar.main([*where, "--item", "7", "--k", "3"]) == 0
        answers[-1].append(answer())
        assert explain.main([*where, "--user", "3", "--item", "7"]) == 0
        answers[-1].append(answer())
        assert recommend.main([place, "--all", str(tmp_path / "all.jsonl"), "--k", "2"]) == 0
        answers[-1].append((tmp_path / "all.jsonl").read_text())
        out = capsys.readouterr().out
        assert "like item 7, by weights between items" in out and "vote" in out and "lists of 30 users" in out
    assert answers[0] == answers[1]
    assert [e["item"] for e in answers[0][0]["3"]] == [near.item for near in model.recommend([3], 4, deny=[5])[3]]
    assert serve.load(Path(run), None, "cpu", None, None)[0].recommend([3], 4) == model.recommend([3], 4)
    for name in ("x.faiss", "x.pt2"):
        assert export.main([run, "-o", str(tmp_path / name)]) == 2
        assert "expected a model of embeddings, got EASE" in capsys.readouterr().err
    assert similar.main([file, "--item", "7", "--by", "text"]) == 2
    assert "by: expected none, as EASE has weights between items" in capsys.readouterr().err


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text + "\n")
    return path


class Halved(Recommender):
    """Scores that are neither dot products nor those of histories: a user's own half of the items."""

    config_class = tiny.TinyConfig

    def __init__(self, dataset: Dataset, config: Any) -> None:
        super().__init__()
        self.config = config

    def scores(self, users: Tensor) -> Tensor:
        items = torch.arange(self.n_items)
        return -(items + users[:, None]).remainder(self.n_items).float()


def test_other_scores_have_lists_and_one_clear_error_for_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "Halved", Halved)
    data = tiny.write_dataset(tmp_path / "data")
    config = runs.resolve({"model": "Halved", "dataset": "tiny", "data_path": data})
    runs.train(config, runs.open_dataset(config), tmp_path / "run")
    run = str(tmp_path / "run")
    assert recommend.main([run, "--all", str(tmp_path / "all.jsonl"), "--k", "3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    lists = runs.load_run(tmp_path / "run").recommend([row["user"] for row in rows], 3)
    assert {row["user"]: row["items"] for row in rows} == {u: [e.item for e in found] for u, found in lists.items()}
    assert recommend.main([run, "--user", "3"]) == 0
    ids = str(written(tmp_path, "ids", "3"))
    for main, arguments in (
        (recommend.main, ["--all", str(tmp_path / "other.jsonl"), "--allow", ids]),
        (recommend.main, ["--user", "3", "--keep-seen"]),
        (similar.main, ["--item", "3"]),
        (explain.main, ["--user", "3", "--item", "3"]),
        (export.main, ["-o", str(tmp_path / "x.safetensors"), "--served"]),
        (serve.main, ["--port", "0"]),
    ):
        assert main([run, *arguments]) == 2
        assert "Halved: expected a model of embeddings, or of history_scores" in capsys.readouterr().err
    assert not (tmp_path / "other.jsonl").exists() and not (tmp_path / "x.safetensors").exists()


class Scored(EASE):
    """Scores of its own: what histories say is not all."""

    def scores(self, users: Tensor) -> Tensor:
        return super().scores(users) + 1


class Anew(EASE):
    def history_scores(self, had: Graph) -> Tensor:
        return 2 * super().history_scores(had)


def test_a_class_with_scores_of_its_own_is_not_taken_for_its_base() -> None:
    data = tiny.tiny_dataset()
    assert EASE(data, EASEConfig()).scores_histories and Anew(data, EASEConfig()).scores_histories
    assert not Scored(data, EASEConfig()).scores_histories and not Halved(data, tiny.TinyConfig()).scores_histories
    assert not tiny.Tiny(data, tiny.TinyConfig()).scores_histories


def test_a_model_without_histories_says_so() -> None:
    data = tiny.tiny_dataset()
    with pytest.raises(NotImplementedError, match="Tiny has no history_scores"):
        tiny.Tiny(data, tiny.TinyConfig()).history_scores(data.seen)


class Wrong(EASE):
    def history_scores(self, had: Graph) -> Tensor:
        return super().history_scores(had)[:, :-1]


class NotFinite(EASE):
    def history_scores(self, had: Graph) -> Tensor:
        return super().history_scores(had) * torch.nan


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Wrong, ValueError, r"Wrong.history_scores: expected float32 or float64 scores of shape \(40, 40\), got "),
        (NotFinite, FloatingPointError, "weights between items hold NaN or infinity"),
    ],
)
def test_wrong_weights_are_told(model: type[EASE], error: type[Exception], message: str) -> None:
    data = tiny.tiny_dataset()
    made = model(data, EASEConfig())
    EASE.fit(made, data)
    with pytest.raises(error, match=message):
        serving.item_weights.weights_of(made, 40, torch.device("cpu"))


def test_gaps_between_ids_are_not_recommended(tmp_path: Path) -> None:
    some = tiny.tiny_dataset()
    data = Dataset.from_pairs("gaps", 31, 45, some.train, some.valid, some.test, {}, {})
    run = trained("ItemKNN", tmp_path / "run", data, n_neighbours=3)
    model = smore_ext.load(run)
    assert not isinstance(model, Factors)
    found = model.recommend([3], 50)[3]
    assert len(found) == 40 - len(model.history(3)) and max(int(near.item) for near in found) < 40
    assert {3: found} == close(run.recommend([3], 50))
    with pytest.raises(DatasetError, match="user: expected one with train interactions, got '?30"):
        model.recommend([30])
