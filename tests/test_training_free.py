"""EASE, L3AE, ItemKNN and Turbo-CF: closed forms in numpy, and what the commands do with models that have no epochs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_checks as checks
import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from smore_ext import Dataset, Graph, evaluate, export, load_dataset, recommend, train
from smore_ext.models import MODELS
from smore_ext.models.ease import EASE, EASEConfig
from smore_ext.models.itemknn import ItemKNN, ItemKNNConfig, largest_of_rows
from smore_ext.models.l3ae import L3AE, L3AEConfig
from smore_ext.models.turbo_cf import TurboCF, TurboCFConfig
from smore_ext.training import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


def interactions(dataset: Dataset) -> NDArray:
    """X [U, I]."""
    x = np.zeros((dataset.n_users, dataset.n_items))
    x[dataset.train.users.numpy(), dataset.train.items.numpy()] = 1
    return x


def constrained(gram: NDArray, reg_weight: float) -> NDArray:
    """EASE's weights of a Gram matrix, by the formulas of the paper (section 3.1)."""
    p = np.linalg.inv(gram + reg_weight * np.eye(len(gram)))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    return b


def unit(features: torch.Tensor) -> NDArray:
    rows = features.double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Closed forms: the scores of all users.


def ease(dataset: Dataset, config: Any) -> NDArray:
    x = interactions(dataset)
    return x @ constrained(x.T @ x, config.reg_weight)


def l3ae(dataset: Dataset, config: Any) -> NDArray:
    """Column by column: item j is predicted from the others alone, by the normal equations of that least squares."""
    x, modalities = interactions(dataset), config.modalities or ("text",)
    rows = [unit(dataset.features[m]) for m in modalities]
    s = sum(constrained(f @ f.T, config.feature_reg) for f in rows) / len(rows)
    b = np.zeros_like(s)
    for j in range(dataset.n_items):
        others = np.arange(dataset.n_items) != j
        a = x[:, others].T @ x[:, others] + (config.reg_weight + config.feature_weight) * np.eye(others.sum())
        b[others, j] = np.linalg.solve(a, x[:, others].T @ x[:, j] + config.feature_weight * s[others, j])
    return x @ b


def itemknn(dataset: Dataset, config: Any) -> NDArray:
    x = interactions(dataset)
    counts = x.sum(0)
    votes = np.zeros((dataset.n_items, dataset.n_items))
    for i in range(dataset.n_items):
        together = x.T @ x[:, i]
        similar = together / (np.sqrt(np.maximum(counts * counts[i], 1)) + config.shrinkage)
        similar[i] = 0
        best = np.argsort(-similar, kind="stable")[: config.n_neighbours]
        votes[best, i] = similar[best]
    return x @ votes


def turbo_cf(dataset: Dataset, config: Any) -> NDArray:
    r, a = interactions(dataset), config.user_exponent
    of_users, of_items = np.maximum(r.sum(1, keepdims=True), 1), np.maximum(r.sum(0), 1)
    x = of_users**-a * r * of_items ** (a - 1)
    p = (x.T @ x) ** config.similarity_exponent
    return r @ sum(c * np.linalg.matrix_power(p, n) for n, c in enumerate(config.polynomial))


CASES: dict[str, tuple[Any, Any]] = {
    "EASE": (EASEConfig(5.0), ease),
    "EASE-least": (EASEConfig(1e-3), ease),
    "EASE-much": (EASEConfig(100.0), ease),
    "L3AE": (L3AEConfig(2.0, feature_weight=3.0, feature_reg=0.5), l3ae),
    "L3AE-two": (L3AEConfig(2.0, feature_weight=3.0, feature_reg=0.5, modalities=("image", "text")), l3ae),
    "ItemKNN": (ItemKNNConfig(4, 1.5), itemknn),
    "ItemKNN-cosine": (ItemKNNConfig(1000, 0.0), itemknn),
    "TurboCF": (TurboCFConfig(), turbo_cf),
    "TurboCF-second": (TurboCFConfig(0.3, 0.7, (0.0, 2.0, -1.0)), turbo_cf),
    "TurboCF-third": (TurboCFConfig(0.5, 1.2, (0.1, 0.71, 0.1, -0.01)), turbo_cf),
}


def fitted(name: str, dataset: Dataset, config: Any, device: torch.device | str = "cpu") -> Any:
    model = MODELS[name.partition("-")[0]](dataset, config).to(device)
    with torch.no_grad():
        model.fit(dataset)
    return model


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return checks.dataset_with_features()


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_closed_form(dataset: Dataset, device: torch.device, backend: str, name: str) -> None:
    config, closed_form = CASES[name]
    config = type(config)(**{**vars(config), "backend": backend})
    model = fitted(name, dataset, config, device)
    assert model.weight.device.type == device.type and model.weight.dtype == torch.float32
    users = torch.tensor([7, 0, 29], device=device)
    scores = model.scores(users).cpu().numpy()
    np.testing.assert_allclose(scores, closed_form(dataset, config)[[7, 0, 29]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "config"), [("EASE", EASEConfig(2.0)), ("L3AE", L3AEConfig(2.0, feature_weight=3.0))])
def test_weights_are_the_least_squares_answer(dataset: Dataset, name: str, config: Any) -> None:
    """The loss that B minimises among matrices of zero diagonal: no small step makes it less."""
    model = fitted(name, dataset, config)
    assert bool((model.weight.diagonal() == 0).all())
    x, b = torch.from_numpy(interactions(dataset)), model.weight.double().requires_grad_()
    loss = (x - x @ b).square().sum() + 2.0 * b.square().sum()
    if name == "L3AE":
        loss = loss + 3.0 * (b - model.semantic(dataset)).square().sum()
    gradient = torch.autograd.grad(loss, b)[0].fill_diagonal_(0)
    assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["EASE", "ItemKNN", "TurboCF"])
def test_items_nobody_has_are_scored_zero(name: str) -> None:
    some = tiny.tiny_dataset()
    more = Dataset.from_pairs("one more of each", 31, 41, some.train, some.valid, some.test, {}, {})
    model = fitted(name, more, MODELS[name].config_class())
    scores = model.scores(torch.arange(31))
    assert bool((scores[:, 40] == 0).all()) and bool((scores[30] == 0).all())
    assert bool(torch.isfinite(scores).all())


# L3AE


def test_without_weight_of_features_l3ae_is_ease(dataset: Dataset) -> None:
    plain = fitted("EASE", dataset, EASEConfig(3.0))
    model = fitted("L3AE", dataset, L3AEConfig(3.0, feature_weight=0.0))
    torch.testing.assert_close(model.weight, plain.weight)


def test_l3ae_takes_an_item_graph_that_the_data_set_brings(dataset: Dataset) -> None:
    edges = torch.tensor([[0, 0, 0, 1], [0, 1, 2, 2]])
    ready = Graph.from_edges(edges[0], edges[1], torch.tensor([9.0, 3.0, 1.0, 5.0]), (40, 40))
    s = fitted("L3AE", checks.dataset_with_features({"text": ready}), L3AEConfig()).semantic(
        checks.dataset_with_features({"text": ready})
    )
    assert s[1, 0] == 0.75 and s[2, 0] == 0.25 and s[2, 1] == 1 and s.sum() == 2  # its neighbours predict an item


def test_l3ae_reads_text_or_else_all(dataset: Dataset) -> None:
    assert L3AE(dataset).modalities == ["text"]
    assert L3AE(dataset, L3AEConfig(modalities=("image",))).modalities == ["image"]
    only = Dataset.from_pairs("tiny", 30, 40, *_splits(dataset), {"image": dataset.features["image"]}, {})
    assert L3AE(only).modalities == ["image"]
    with pytest.raises(ValueError, match="L3AE needs features of sound; dataset 'tiny' has image, text"):
        L3AE(dataset, L3AEConfig(modalities=("sound",)))


def _splits(dataset: Dataset) -> tuple[Any, Any, Any]:
    return dataset.train, dataset.valid, dataset.test


# ItemKNN


def test_largest_edges_of_rows_and_their_ties() -> None:
    row, col = torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([0, 1, 2, 3, 1, 2])
    graph = Graph.from_edges(row, col, torch.tensor([1.0, 2.0, 1.0, 1.0, 5.0, 7.0]), (3, 4))
    top = largest_of_rows(graph, 2)
    assert top.row.tolist() == [0, 0, 2, 2] and top.col.tolist() == [0, 1, 1, 2]  # of equals the lower columns
    assert largest_of_rows(graph, 1).weight.tolist() == [2.0, 7.0]
    assert largest_of_rows(graph, 9).n_edges == 6


# Settings and commands


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (EASEConfig, {"reg_weight": 0.0}),
        (EASEConfig, {"reg_weight": -1.0}),
        (EASEConfig, {"reg_weight": float("inf")}),
        (L3AEConfig, {"feature_reg": 0.0}),
        (L3AEConfig, {"feature_weight": -1.0}),
        (ItemKNNConfig, {"n_neighbours": 0}),
        (ItemKNNConfig, {"shrinkage": -1.0}),
        (TurboCFConfig, {"user_exponent": 1.5}),
        (TurboCFConfig, {"similarity_exponent": 0.0}),
        (TurboCFConfig, {"polynomial": (1.0,)}),
    ],
)
def test_settings_out_of_range_are_named(config: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must "):
        config(**wrong)


FLAGS = {
    "EASE": ["--reg-weight", "5"],
    "L3AE": ["--reg-weight", "2", "--feature-weight", "3", "--feature-reg", "0.5"],
    "ItemKNN": ["--n-neighbours", "4", "--shrinkage", "1.5"],
    "TurboCF": ["--user-exponent", "0.3", "--similarity-exponent", "0.7", "--polynomial", "0,2,-1"],
}
AS_FLAGS = {"EASE": "EASE", "L3AE": "L3AE", "ItemKNN": "ItemKNN", "TurboCF": "TurboCF-second"}


@pytest.mark.parametrize("name", FLAGS)
def test_it_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    data, run = tiny.write_dataset(tmp_path / "data", features=True), tmp_path / "run"
    flags = ["-d", "tiny", "--data-path", str(data), "-q", "-o", str(run)]
    assert train.main(["-m", name, *flags, *FLAGS[name], "--metrics", "recall"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert (result["stopped"], result["backend"], result["warnings"]) == ("closed form", "native", [])
    config, _ = CASES[AS_FLAGS[name]]
    dataset = load_dataset(data / "tiny")
    scores = fitted(name, dataset, config).scores(torch.arange(30)).numpy()  # those of the closed form, as tested
    unseen = np.where(interactions(dataset) > 0, -np.inf, scores)
    ranked = np.argsort(-unseen, axis=1, kind="stable")[:, :20]
    hits = [item in ranked[user] for user, item in zip(*(part.tolist() for part in dataset.test), strict=True)]
    assert result["test"]["recall@20"] == pytest.approx(np.mean(hits))  # one test item a user
    capsys.readouterr()
    assert evaluate.main([str(run), "--data-path", str(data)]) == 0
    assert f"{result['test']['recall@20']:.4f}" in capsys.readouterr().out
    assert recommend.main([str(run), "--user", "3", "--k", "5"]) == 0
    assert export.main([str(run), "-o", str(tmp_path / "lists"), "--k", "7"]) == 0
    assert np.load(tmp_path / "lists" / "ranked.npy").shape == (30, 7)
    stored = checkpoint.load(run / "best.safetensors")[0]
    again = MODELS[name](dataset, config)
    checkpoint.load_weights(again, stored)
    np.testing.assert_array_equal(again.scores(torch.arange(30)).numpy(), scores)


def test_closed_forms_are_found_by_name() -> None:
    assert [MODELS[name] for name in FLAGS] == [EASE, L3AE, ItemKNN, TurboCF]
    assert all(MODELS[name].closed_form for name in FLAGS)
