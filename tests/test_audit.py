"""The audit finds what is planted in a run, and stays silent where nothing is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch
from torch import Tensor, nn

from smore_ext import audit as command
from smore_ext import runs, train
from smore_ext.data import Dataset
from smore_ext.data.graph_cache import item_knn_graph
from smore_ext.experiments.audit import Audit, audit, findings, overlap
from smore_ext.experiments.knockout import changed
from smore_ext.models import MODELS, Recommender
from smore_ext.runs.load import LoadedRun
from smore_ext.settings.config import RunConfig, TrainConfig

USERS, ITEMS, KINDS, K = 60, 50, 5, 8


@dataclass
class PlantedConfig:
    content: float = 1.0
    gate: float = 0.0
    moved: float = 0.0
    constant: bool = False


class Planted(Recommender):
    """A user is the mean of the content of what she had; with `content` 0, rows that no content is in."""

    config_class: ClassVar[type] = PlantedConfig

    def __init__(self, dataset: Dataset, config: PlantedConfig | None = None) -> None:
        super().__init__()
        self.config = config or PlantedConfig()
        self.seen = dataset.seen
        generator = torch.Generator().manual_seed(1)
        table = dataset.features["image"]
        noise = self.config.moved * torch.randn(table.shape, generator=generator)
        self.features = nn.ParameterDict({"image": nn.Parameter(table + noise)})
        self.rows = nn.Parameter(torch.randn(table.shape, generator=generator))
        self.gate = nn.Sequential(nn.Linear(table.shape[1], table.shape[1]), nn.Sigmoid())
        nn.init.zeros_(self.gate[0].weight)
        nn.init.constant_(self.gate[0].bias, self.config.gate)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        c = self.config.content
        items = c * self.features["image"] + (1 - c) * self.rows + 0 * self.gate(self.rows)
        if self.config.constant:
            return torch.ones(self.n_users, 1), torch.ones(self.n_items, 1)
        return self.seen.to_sparse() @ items, items

    def statistics(self) -> dict[str, float]:
        return {"attention_entropy_image": 0.5, "norm": 1.0}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Planted", Planted)
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)
    with tiny.one_thread():
        yield


def dataset(**changes: Any) -> Dataset:
    """Each user likes items of one kind, and features say the kind."""
    generator = torch.Generator().manual_seed(0)
    splits: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in range(USERS):
        liked = torch.randperm(ITEMS // KINDS, generator=generator)[:7] * KINDS + user % KINDS
        for place, item in enumerate(liked.tolist()):
            splits["train" if place < 4 else "valid" if place == 4 else "test"].append((user, item))
    kind = nn.functional.one_hot(torch.arange(ITEMS) % KINDS).float()
    features = torch.cat([kind, 0.1 * torch.rand(ITEMS, 4, generator=generator)], dim=1)
    parts = {name: tiny.pairs(*pairs) for name, pairs in splits.items()}
    return Dataset.from_pairs("planted", USERS, ITEMS, **parts, features=changes.get("features", {"image": features}))


def planted(data: Dataset | None = None, model: str = "Planted", **settings: Any) -> LoadedRun:
    data = data or dataset()
    config = RunConfig(TrainConfig(model=model, dataset="planted"), MODELS[model].config_class(**settings))
    return LoadedRun(Path("run"), config, data, MODELS[model](data, config.model).eval(), {})


def found(run: LoadedRun, **options: Any) -> Audit:
    out = audit(run, K, resamples=500, **options)
    json.dumps(asdict(out), allow_nan=False)
    return out


def says(a: Audit, words: str) -> bool:
    return any(words in line for line in a.findings)


def test_content_that_matters() -> None:
    a = found(planted())
    assert a.quality[f"recall@{K}"] > 0.9
    assert [(row["change"], row["of"]) for row in a.content] == [
        ("removed", ["image"]),
        ("exchanged", ["image"]),
    ]
    for row in a.content:
        assert row["difference"] < -0.3 and row["high"] < 0 and row["p"] < 0.05 and row["overlap"] < 0.6
    assert says(a, "content matters: with image removed") and says(a, "content matters: with image exchanged")


def test_content_that_is_not_read() -> None:
    a = found(planted(content=0.0))
    for row in a.content:
        assert row["difference"] == 0 and row["overlap"] == 1.0
    assert says(a, "content hardly matters: with image removed, lists stay 100.0% the same")
    assert not says(a, "content matters") and not says(a, "content harms")


def test_weights_and_data_of_the_run_stay() -> None:
    run = planted()
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    features = run.dataset.features["image"].clone()
    assert found(run) == found(run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    assert torch.equal(run.dataset.features["image"], features)


@pytest.mark.parametrize(
    "bias,words", [(9.0, "gate gate passes all: 100.0%"), (-9.0, "gate gate passes nothing"), (0.5, None)]
)
def test_gates(bias: float, words: str | None) -> None:
    a = found(planted(gate=bias))
    assert [row["gate"] for row in a.gates] == ["gate"]
    assert a.gates[0]["mean"] == pytest.approx(torch.tensor(bias).sigmoid().item(), abs=1e-6)
    assert says(a, words) if words else not says(a, "gate")


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_feature_tables(moved: float) -> None:
    a = found(planted(moved=moved))
    assert says(a, "the feature table of image has hardly moved") == (moved == 0.0)
    assert (a.tables[0]["cosine"] > 0.99999) == (moved == 0.0)


def test_ties() -> None:
    assert found(planted(constant=True)).data["users_with_ties_at_the_cut"] == 1.0
    assert says(found(planted(constant=True)), "equal scores at rank 8")
    assert not says(found(planted()), "equal scores")


def test_popular_lists() -> None:
    a = found(planted(model="Popularity"))
    assert a.popularity["overlap_with_popular"] == 1.0 and says(a, "popular with everyone")
    assert not a.content and not a.gates and not a.tables
    assert not says(found(planted()), "popular with everyone")


def test_groups_of_items() -> None:
    data = dataset()
    a = found(planted(data))
    assert sum(row["number"] for row in a.items) == ITEMS
    assert sum(row["relevant"] for row in a.items) == len(data.test.users)
    assert sum(row["places"] for row in a.items) == pytest.approx(1.0)
    hits = sum(row["recall"] * row["relevant"] for row in a.items if row["relevant"])
    assert hits / len(data.test.users) == pytest.approx(a.quality[f"recall@{K}"])  # two relevant items a user


def test_repeated_features() -> None:
    features = dataset().features["image"].clone()
    features[3] = features[10]
    a = found(planted(dataset(features={"image": features})))
    assert a.data["image_items_with_features_of_another"] == 1
    assert says(a, "image items with features of another: 1")


def test_attention_is_judged_by_its_entropy() -> None:
    a = found(planted())
    assert a.attention == {"attention_entropy_image": 0.5} and not says(a, "attention")
    for value, words in ((0.999, "uniform"), (0.01, "collapsed")):
        a.attention = {"attention_entropy_image": value}
        assert any(words in line for line in findings(a))


@pytest.mark.parametrize("options", [{"k": 0}, {"k": ITEMS + 1}])
def test_k_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"k must be in 1..{ITEMS}"):
        audit(planted(), **options)


def test_a_split_without_users() -> None:
    data = dataset()
    empty = Dataset.from_pairs(
        "planted", USERS, ITEMS, data.train, data.valid, tiny.pairs(), features={"image": data.features["image"]}
    )
    with pytest.raises(ValueError, match="the test split of 'planted' is empty"):
        audit(planted(empty), K)
    assert audit(planted(empty), K, "valid", resamples=100).split == "valid"


def test_exchanged_content_is_that_of_other_items() -> None:
    rows = torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(4))
    data = dataset(features={"image": rows})
    order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(5))
    with_graph = Dataset.from_pairs(
        "planted", USERS, ITEMS, data.train, data.valid, data.test, features={"image": rows},
        graphs={"image": item_knn_graph(rows, 3, None)},
    )  # fmt: skip
    other = changed(with_graph, ("image",), "exchanged", order)
    assert torch.equal(other.features["image"], rows[order])
    again = item_knn_graph(other.features["image"], 3, None)
    torch.testing.assert_close(other.graphs["image"].to_scipy().toarray(), again.to_scipy().toarray())
    removed = changed(with_graph, ("image",), "removed", order)
    assert removed.graphs["image"].n_edges == 0 and removed.features["image"].std(dim=0).max() < 1e-6


def test_overlap() -> None:
    a = torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert overlap(a, a) == 1.0 and overlap(a, a.flip(1)) == 1.0
    assert overlap(a, torch.tensor([[0, 9, 8], [6, 7, 8]])) == pytest.approx(1 / 6)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], command_surroundings: None) -> None:
    data = tiny.write_dataset(tmp_path / "data", features=True)
    small = ["--epochs", "3", "--embedding-dim", "8", "--batch-size", "32", "--knn-k", "3", "-q"]
    run = tmp_path / "run"
    assert train.main(["-m", "SMORE", "-d", "tiny", "--data-path", str(data), "-o", str(run), *small]) == 0
    before = {path: path.read_bytes() for path in run.iterdir()}
    capsys.readouterr()
    assert command.main([str(run), "--k", "5", "--json", str(tmp_path / "audit.json")]) == 0
    out = capsys.readouterr().out
    assert "content at inference" in out and "feature_gate" in out and "\n- " in out
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["model"] == "SMORE" and written["k"] == 5 and len(written["content"]) >= 2
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    loaded = runs.load_run(run)
    result = json.loads((run / "result.json").read_text())
    assert written["quality"]["recall@5"] == pytest.approx(result["test"]["recall@5"], abs=1e-12)
    assert asdict(audit(loaded, 5))["quality"] == written["quality"]


def test_the_command_on_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path)]) == 2
    assert "it holds no run" in capsys.readouterr().err
