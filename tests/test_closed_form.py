"""Models that are fitted in closed form, and models whose scores are no dot product: through every command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from torch import Tensor

from smore_ext import Dataset, Graph, Recommender, ops, runs
from smore_ext.evaluation.ranking import embeddings, topk_of_scores
from smore_ext.models import MODELS
from smore_ext.models.contract import setting
from smore_ext.runs import resolve
from smore_ext.settings.config import RunConfig, changed_settings
from smore_ext.settings.fields import ConfigError
from smore_ext.training import checkpoint
from smore_ext.training.loop import TrainingDiverged


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)  # also puts back what `tiny.trainer` registers
    with tiny.one_thread():
        yield


@dataclass
class CountsConfig:
    """Settings.

    power: exponent of the counts.
    place: where something is kept.
    """

    power: float = 1.0
    place: str | None = setting(None, changeable=True, run_default=lambda: "here", aliases=("spot",))


class Counts(Recommender):
    """Item-item counts of shared users, as a sparse matrix in three buffers; scores are sums over a user's items."""

    config_class = CountsConfig

    def __init__(self, dataset: Dataset, config: CountsConfig | None = None) -> None:
        super().__init__()
        self.config = config or CountsConfig()
        self.seen = dataset.seen
        self.register_buffer("rowptr", torch.empty(0, dtype=torch.int32))
        self.register_buffer("col", torch.empty(0, dtype=torch.int32))
        self.register_buffer("weight", torch.empty(0))
        self.asked: list[int] = []

    def fit(self, dataset: Dataset) -> None:
        assert not torch.is_grad_enabled()
        shared = Graph.from_scipy(dataset.seen.to_scipy().T @ dataset.seen.to_scipy())
        self.rowptr, self.col, self.weight = shared.rowptr, shared.col, shared.weight**self.config.power

    def scores(self, users: Tensor) -> Tensor:
        self.asked.append(len(users))
        n = self.seen.n_cols
        shared = Graph(self.rowptr, self.col, self.weight, (n, n))
        return ops.spmm(shared, self.seen.rows(users).to_sparse().to_dense().T.contiguous()).T


@pytest.fixture
def counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run of `Counts`."""
    monkeypatch.setitem(MODELS, "Counts", Counts)
    config = RunConfig(tiny.tiny_config().train, CountsConfig()).replace(model="Counts")
    runs.train(config, tiny.tiny_dataset(), tmp_path / "run")
    return tmp_path / "run"


def expected_scores(power: float = 1.0) -> Tensor:
    r = tiny.tiny_dataset().seen.to_sparse().to_dense()
    return r @ (r.T @ r) ** power


def test_a_model_in_closed_form_is_fitted_once(counts: Path) -> None:
    result = json.loads((counts / "result.json").read_text())
    assert (result["epochs_run"], result["stopped"], result["backend"]) == (1, "closed form", None)
    assert result["test"]["recall@50"] == 1.0
    record = json.loads((counts / "metrics.jsonl").read_text())
    assert record["loss"] == {}
    weights = checkpoint.load(counts / "best.safetensors")[0]
    assert set(weights) == {"rowptr", "col", "weight"} and weights["weight"].numel() > 0
    config = RunConfig(tiny.tiny_config().train, CountsConfig()).replace(model="Counts")
    assert runs.train(config, tiny.tiny_dataset(), counts, resume=True) == result  # nothing is left to do
    (counts / "result.json").unlink()
    assert runs.train(config, tiny.tiny_dataset(), counts, resume=True)["test"] == result["test"]


def test_it_is_loaded_not_fitted_again(counts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counts, "fit", lambda *_: pytest.fail("fitted again"))
    data = tiny.tiny_dataset()
    run = runs.load_run(counts, dataset=data)
    stored = json.loads((counts / "result.json").read_text())
    again = run.evaluate("mmrec")
    assert (again["validation"], again["test"]) == (stored["validation"], stored["test"])
    lists = run.recommend([3, 0], 6)
    scores = expected_scores()
    for user, items in lists.items():
        left = [
            i for i in range(40) if i not in {item for u, item in sum(tiny.interactions().values(), []) if u == user}
        ]
        best = sorted(left, key=lambda item: (-scores[user, item].item(), item))[:6]
        assert [entry.item for entry in items] == best
        assert [entry.score for entry in items] == [scores[user, item].item() for item in best]


def test_scores_are_asked_for_in_blocks(counts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.load_run(counts, dataset=tiny.tiny_dataset())
    whole = run.evaluate("mmrec")["test"]
    assert set(run.model.asked) == {30}
    run.model.asked.clear()
    monkeypatch.setattr("smore_ext.evaluation.ranking.BLOCK_SCORES", 7 * 40 + 3)
    assert run.evaluate("mmrec")["test"] == whole
    assert run.model.asked == [7, 7, 7, 7, 2] * 2


class ByScores(tiny.Tiny):
    """The same model, asked for scores."""

    def scores(self, users: Tensor) -> Tensor:
        return self.user[users] @ self.item.T


def test_scores_rank_as_embeddings_do(tmp_path: Path) -> None:
    assert tiny.Tiny(tiny.tiny_dataset(), tiny.TinyConfig()).factored
    plain, scored = (tiny.trainer(model, tmp_path / model.__name__).run() for model in (tiny.Tiny, ByScores))
    assert (plain["validation"], plain["test"]) == (scored["validation"], scored["test"])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_must_be_finite(tmp_path: Path, value: float) -> None:
    class Bad(ByScores):
        def scores(self, users: Tensor) -> Tensor:
            return super().scores(users).index_fill(1, torch.tensor([3]), value)

    with pytest.raises(TrainingDiverged, match="scores hold NaN or infinity after epoch 0"):
        tiny.trainer(Bad, tmp_path).run()


def test_scores_must_cover_all_items(tmp_path: Path) -> None:
    class Short(ByScores):
        def scores(self, users: Tensor) -> Tensor:
            return super().scores(users)[:, 1:]

    with pytest.raises(ValueError, match=r"Short.scores: expected floating-point scores of shape \(30, 40\), got"):
        tiny.trainer(Short, tmp_path).run()


def test_a_buffer_that_is_not_empty_keeps_its_shape() -> None:
    model = Counts(tiny.tiny_dataset())
    model.weight = torch.ones(3)
    stored = {"rowptr": torch.ones(41, dtype=torch.int32), "col": torch.ones(5, dtype=torch.int32)}
    with pytest.raises(checkpoint.CheckpointError, match=r"weight is \(5,\), expected \(3,\)"):
        checkpoint.load_weights(model, stored | {"weight": torch.ones(5)})
    model.weight = torch.empty(0)
    checkpoint.load_weights(model, stored | {"weight": torch.ones(5)})
    assert model.weight.tolist() == [1.0] * 5 and model.rowptr.dtype == torch.int32


# Ranking


def test_scores_are_ranked_as_the_op_ranks_dot_products() -> None:
    generator = torch.Generator().manual_seed(0)
    users = torch.randint(-2, 3, (50, 3), generator=generator).float()  # many equal scores
    items = torch.randint(-2, 3, (33, 3), generator=generator).float()
    pairs = torch.randperm(50 * 33, generator=generator)[:700]
    everything = torch.arange(33)  # nothing is left for user 4
    row, col = torch.cat([pairs // 33, torch.full((33,), 4)]), torch.cat([pairs % 33, everything])
    seen = Graph.from_edges(row, col, None, (50, 33))
    for k in (1, 7, 33):
        scores, index = topk_of_scores(users @ items.T, k, seen)
        expected_score, expected_index = ops.masked_topk(users, items, k, seen)
        assert torch.equal(index, expected_index) and torch.equal(scores, expected_score)
    assert (topk_of_scores(users @ items.T, 5, seen)[1][4] == -1).all()


# Export


def files(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        return {file.stem: torch.from_numpy(np.load(file, allow_pickle=False)) for file in path.glob("*.npy")}
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "smore_ext export 1"
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("name", ["out.safetensors", "folder"])
def test_export_of_embeddings_and_lists(tmp_path: Path, name: str) -> None:
    config = tiny.tiny_config()
    runs.train(config, tiny.tiny_dataset(), tmp_path / "run")
    run = runs.load_run(tmp_path / "run", dataset=tiny.tiny_dataset())
    runs.export(run, tmp_path / name)
    exported = files(tmp_path / name)
    assert set(exported) == {"users", "items"}
    assert all(map(torch.equal, (exported["users"], exported["items"]), embeddings(run.model)))
    runs.export(run, tmp_path / "lists" / name, lists=True, k=35, mask="train")
    lists = files(tmp_path / "lists" / name)
    assert lists["ranked"].shape == lists["scores"].shape == (30, 35)
    wanted = run.recommend([8], 35, "train")[8]
    assert [(e.item, e.score) for e in wanted] == list(
        zip(lists["ranked"][8].tolist(), lists["scores"][8].tolist(), strict=True)
    )


def test_export_of_a_model_of_scores(counts: Path, tmp_path: Path) -> None:
    run = runs.load_run(counts, dataset=tiny.tiny_dataset())
    tensors = runs.export(run, tmp_path / "out.safetensors", k=40)
    stored = files(tmp_path / "out.safetensors")
    assert set(stored) == {"ranked", "scores"}
    assert all(torch.equal(stored[name], tensors[name]) for name in stored)
    assert (stored["ranked"][:, 33:] == -1).all() and (stored["ranked"][:, :33] >= 0).all()  # 7 of 40 are seen
    assert (stored["scores"][:, 33:] == -torch.inf).all()


# Settings of a model


def test_marks_of_a_models_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "Counts", Counts)
    config = resolve({"model": "Counts", "dataset": "x"})
    assert (config.model.place, CountsConfig().place) == ("here", None)
    assert resolve({"model": "Counts", "dataset": "x", "place": "none"}).model.place is None
    moved = resolve({"model": "Counts", "dataset": "x", "place": "there", "power": "2"})
    assert changed_settings(config, moved) == {"power": (1.0, 2.0)}
    with pytest.raises(ConfigError, match="--spot: unknown setting; did you mean 'place'"):
        resolve({"model": "Counts", "dataset": "x", "spot": "there"})
