"""VBPR, BM3, FREEDOM and MGCN: the papers' equations written densely; sampled edges, dropout; runs that resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import model_checks as checks
import pytest
import tiny
import torch
import torch.nn.functional as F
from model_checks import N_BATCH, N_ITEMS, N_USERS, batch, bpr, l2, linear
from torch import Tensor

from smore_ext import Batch, Dataset, Graph, Recommender
from smore_ext.models import MODELS
from smore_ext.models.freedom import FREEDOM, FREEDOMConfig, modality_shares
from smore_ext.models.mgcn import MGCN, MGCNConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "VBPR": {"embedding_dim": 8, "feature_dim": 6, "reg_weight": 0.01, "batch_size": N_BATCH},
    "BM3": {"embedding_dim": 8, "n_ui_layers": 2, "dropout": 0.0, "feature_weight": 0.7, "batch_size": N_BATCH},
    "FREEDOM": {"embedding_dim": 8, "knn_k": 5, "n_mm_layers": 2, "feature_weight": 0.3, "image_weight": 0.3},
    "MGCN": {"embedding_dim": 8, "knn_k": 5, "cl_weight": 0.2, "reg_weight": 0.01, "batch_size": N_BATCH},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return checks.dataset_with_features()


def config(name: str, **changes: Any) -> Any:
    return MODELS[name].config_class(**{**SETTINGS[name], **changes})


def made(name: str, dataset: Dataset, **changes: Any) -> Any:
    """The model, with every parameter away from 0: biases begin there."""
    torch.manual_seed(1)
    model = MODELS[name](dataset, config(name, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def features(weights: dict[str, Tensor], m: str) -> Tensor:
    """Projected raw features."""
    return linear(weights[f"features.{m}"], weights, f"projection.{m}")


# The transcriptions: final embeddings and loss, from float64 weights.


def vbpr(model: Any, data: Dataset, w: dict[str, Tensor]) -> tuple[checks.Rows, Tensor]:
    raw = torch.cat([data.features["image"], data.features["text"]], dim=1).double()
    scores = w["user_embedding.weight"] @ w["item_embedding.weight"].T
    scores = scores + w["user_preference.weight"] @ (raw @ w["projection.weight"].T).T
    scores = scores + w["item_bias.weight"].T + (raw @ w["feature_bias.weight"].T).T  # equation 4
    u, p, n = batch().triples()
    ranking = -(scores[u, p] - scores[u, n]).sigmoid().log().mean()
    rows = [w["user_embedding.weight"][u], w["user_preference.weight"][u]]
    rows += [w[name][i] for i in (p, n) for name in ("item_embedding.weight", "item_bias.weight")]
    users = torch.cat([w["user_embedding.weight"], w["user_preference.weight"], torch.ones(N_USERS, 1)], dim=1)
    bias = w["item_bias.weight"] + raw @ w["feature_bias.weight"].T
    items = torch.cat([w["item_embedding.weight"], raw @ w["projection.weight"].T, bias], dim=1)
    torch.testing.assert_close(users @ items.T, scores)
    return (users, items), ranking + model.config.reg_weight * l2(*rows)


def bm3(model: Any, data: Dataset, w: dict[str, Tensor]) -> tuple[checks.Rows, Tensor]:
    users, items = checks.mean_of_layers(checks.interactions(*data.train), w, model.config.n_ui_layers)
    items = items + w["item_embedding.weight"]
    u, p, _ = batch()

    def c(view: Tensor, target: Tensor) -> Tensor:
        x, y = linear(view, w, "predictor"), target.detach()
        return -((x * y).sum(1) / x.norm(dim=1) / y.norm(dim=1)).mean()

    loss = c(users[u], items[p]) + c(items[p], users[u])
    for m in model.modalities:
        h = features(w, m)[p]
        loss = loss + model.config.feature_weight * (c(h, items[p]) + c(h, h))
    norms = users[u].square().sum().sqrt() + items[p].square().sum().sqrt()
    rows = linear(users, w, "predictor"), linear(items, w, "predictor")
    return rows, loss + model.config.reg_weight * norms / N_BATCH


def freedom(model: Any, data: Dataset, w: dict[str, Tensor]) -> tuple[checks.Rows, Tensor]:
    """With the interactions of the epoch where the model trains, with all where it ranks."""
    kept = data.train
    if model.training and model.sampled is not model.bipartite:
        edges = model.sampled.block(slice(N_USERS), slice(N_USERS, None))
        kept = edges.row.long(), edges.col.long()
    users, items = checks.mean_of_layers(checks.interactions(*kept), w, model.config.n_ui_layers)
    share = {"image": model.config.image_weight, "text": 1 - model.config.image_weight}
    s = sum(share[m] * checks.by_row_sums(checks.nearest(x, model.config.knn_k)[1]) for m, x in data.features.items())
    smooth = w["item_embedding.weight"]
    for _ in range(model.config.n_mm_layers):
        smooth = s @ smooth
    items = items + smooth
    of_features = sum(bpr(users, features(w, m)) for m in data.features)
    return (users, items), bpr(users, items) + model.config.feature_weight * of_features


def mgcn(model: Any, data: Dataset, w: dict[str, Tensor]) -> tuple[checks.Rows, Tensor]:
    r = checks.interactions(*data.train)
    behaviour = torch.cat(checks.mean_of_layers(r, w, model.config.n_ui_layers))
    views = []
    for m, raw in data.features.items():
        similarity, chosen = checks.nearest(raw, model.config.knn_k)
        gate = linear(features(w, m), w, f"feature_gate.{m}.0").sigmoid()
        view = checks.by_row_sums(similarity * chosen) @ (w["item_embedding.weight"] * gate)
        views.append(torch.cat([r @ view, view]))
    logits = [linear(v, w, "query.0").tanh() @ w["query.2.weight"].T for v in views]
    shares = [x.exp() / sum(y.exp() for y in logits) for x in logits]
    shared = sum(a * v for a, v in zip(shares, views, strict=True))
    own = [
        linear(behaviour, w, f"preference_gate.{m}.0").sigmoid() * (v - shared)
        for m, v in zip(data.features, views, strict=True)
    ]
    side = (shared + sum(own)) / 3
    users, items = (behaviour + side).split([N_USERS, N_ITEMS])
    u, p, n = batch().triples()
    loss = bpr(users, items) + model.config.reg_weight * l2(users[u], items[p], items[n])
    for nodes in (u, p + N_USERS):
        x, y = (t[nodes] / t[nodes].norm(dim=1, keepdim=True) for t in (side, behaviour))
        scores = (x @ y.T / model.config.temperature).exp()
        loss = loss - model.config.cl_weight * (scores.diagonal() / scores.sum(1)).log().mean()
    return (users, items), loss


PAPERS = {"VBPR": vbpr, "BM3": bm3, "FREEDOM": freedom, "MGCN": mgcn}


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("VBPR", {}),
        ("VBPR", {"reg_weight": 0.0, "feature_dim": 1}),
        ("BM3", {}),
        ("BM3", {"n_ui_layers": 0, "reg_weight": 3.0}),
        ("FREEDOM", {}),
        ("FREEDOM", {"n_ui_layers": 0, "n_mm_layers": 1, "image_weight": 1.0}),
        ("MGCN", {}),
        ("MGCN", {"n_ui_layers": 0, "cl_weight": 0.0}),
    ],
)
def test_it_is_the_papers_equations(
    dataset: Dataset, device: torch.device, backend: str, name: str, changes: dict[str, Any]
) -> None:
    model = made(name, dataset, backend=backend, **changes)
    weights = checks.exact_weights(model)
    rows, loss = PAPERS[name](model, dataset, weights)
    checks.check_equations(model.to(device), weights, rows, loss)
    assert model.loss_parts and all(not part.requires_grad for part in model.loss_parts.values())


@pytest.mark.parametrize("name", ["BM3", "FREEDOM", "MGCN"])
def test_frozen_features_get_no_gradient_and_a_factored_one_is_the_same(dataset: Dataset, name: str) -> None:
    frozen = made(name, dataset, freeze_features=True)
    frozen.loss(batch()).backward()
    assert frozen.feature_tables() == [] and all(p.grad is None for p in frozen.features.values())
    plain, factored = made(name, dataset), made(name, dataset)
    for _, layer in factored.feature_tables():
        layer.factored = True
    for model in (plain, factored):
        model.loss(batch()).backward()
    for m in plain.modalities:
        torch.testing.assert_close(factored.features[m].grad.dense(), plain.features[m].grad)


# FREEDOM's sample


def trained(dataset: Dataset, **changes: Any) -> FREEDOM:
    model = made("FREEDOM", dataset, **changes)
    with torch.no_grad():
        assert model.begin_epoch(0, torch.Generator().manual_seed(3)) is True
    return model


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_freedom_trains_on_a_sample_and_ranks_with_all_edges(dataset: Dataset, backend: str) -> None:
    model = trained(dataset, backend=backend)
    weights = checks.exact_weights(model)
    rows, loss = freedom(model, dataset, weights)
    checks.check_equations(model, weights, rows, loss)
    ranked = model.eval().embeddings()
    for ours, exact in zip(ranked, freedom(model, dataset, checks.exact_weights(model))[0], strict=True):
        checks.assert_close(ours, exact)
    assert not torch.allclose(ranked[0].double(), rows[0], atol=1e-3)


def test_freedom_samples_by_degree_without_replacement(dataset: Dataset) -> None:
    model = trained(dataset, edge_dropout=0.8)
    edges = model.sampled.block(slice(N_USERS), slice(N_USERS, None))
    assert edges.n_edges == 30  # of 150, each once
    full = dataset.seen.to_scipy().toarray()
    assert (full[edges.row, edges.col] == 1).all()
    again = trained(dataset, edge_dropout=0.8)
    assert torch.equal(model.sampled.col, again.sampled.col)
    counts = torch.zeros(150)
    generator = torch.Generator().manual_seed(4)
    key = dataset.train.users * N_ITEMS + dataset.train.items
    with torch.no_grad():
        for epoch in range(400):
            model.begin_epoch(epoch, generator)
            drawn = model.sampled.block(slice(N_USERS), slice(N_USERS, None))
            counts += torch.isin(key, drawn.row.long() * N_ITEMS + drawn.col.long())
    rare, common = model.chance.topk(40).indices, model.chance.topk(40, largest=False).indices
    assert counts.sum() == 400 * 30
    ratio = float(counts[rare].mean() / counts[common].mean())
    chances = float(model.chance[rare].mean() / model.chance[common].mean())
    assert 1.1 < ratio < 1.1 * chances  # without replacement it is a little less than the ratio of chances


def test_freedom_takes_the_neighbours_of_a_graph_that_the_data_set_brings(dataset: Dataset) -> None:
    ready = {m: Graph.knn(x, 5) for m, x in dataset.features.items()}
    model, built = made("FREEDOM", checks.dataset_with_features(ready), knn_k=2), made("FREEDOM", dataset)
    assert torch.equal(model.item_graph.col, built.item_graph.col)
    torch.testing.assert_close(model.item_graph.weight, built.item_graph.weight)


def test_shares_of_modalities() -> None:
    assert modality_shares(["image", "text"], 0.1) == [0.1, 0.9]
    assert modality_shares(["audio", "image", "text"], 0.2) == pytest.approx([0.4, 0.2, 0.4])
    assert modality_shares(["audio", "text"], 0.1) == [0.5, 0.5] and modality_shares(["image"], 0.1) == [1.0]


# BM3's targets


def test_bm3_drops_targets_alone_and_sends_them_no_gradient(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dropped = made("BM3", dataset, dropout=0.4), []

    def dropout(x: Tensor, p: float, training: bool) -> Tensor:
        dropped.append((x.requires_grad, p, training, x.shape))
        return x

    monkeypatch.setattr(F, "dropout", dropout)
    weights = checks.exact_weights(model)
    checks.check_equations(model, weights, *bm3(model, dataset, weights))
    assert dropped == [(False, 0.4, True, (N_BATCH, 8))] * 4  # users, items, features of two modalities
    assert model.sampler == "none"
    whole = model.loss(Batch(*batch()[:2], None))
    assert whole == model.loss(batch())


# MGCN


def test_mgcn_says_where_it_attends(dataset: Dataset) -> None:
    figures = made("MGCN", dataset).eval().statistics()
    assert set(figures) == {"attention_image", "attention_text", "preference_image", "preference_text"}
    assert figures["attention_image"] + figures["attention_text"] == pytest.approx(1)


def test_mgcn_takes_any_number_of_modalities() -> None:
    data = checks.dataset_with_features(audio=7)
    for modalities in (None, ("audio",)):
        model = MGCN(data, MGCNConfig(embedding_dim=8, knn_k=3, modalities=modalities))
        model.loss(batch()).backward()
        assert model.embeddings()[1].shape == (N_ITEMS, 8)
        assert model.attention(torch.randn(5, 8 * len(model.modalities))).shape == (5, len(model.modalities))


# All of them


@pytest.mark.parametrize("name", PAPERS)
def test_a_run_learns_and_resumed_has_the_same_bits(tmp_path: Path, dataset: Dataset, name: str) -> None:
    changes = {"dropout": 0.3} if name == "BM3" else {}
    settings = config(name, **changes) if name == "FREEDOM" else config(name, **{**changes, "batch_size": 16})
    checks.check_resumes(name, settings, dataset, tmp_path)
    losses = checks.losses(tmp_path / "whole")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", PAPERS)
def test_it_is_capturable_and_found_by_name(dataset: Dataset, name: str) -> None:
    """The loop checks that no tensor moves in a step unsaid; here, that what may be captured is what runs natively."""
    assert made(name, dataset).capturable and not made(name, dataset, backend="reference").capturable
    assert issubclass(MODELS[name], Recommender) and MODELS[name].__name__ == name
    with pytest.raises(ValueError, match=rf"{name} needs features of at least one modality; dataset 'tiny' has none"):
        MODELS[name](tiny.tiny_dataset())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("VBPR", {"feature_dim": 0}),
        ("VBPR", {"reg_weight": -1.0}),
        ("BM3", {"dropout": 1.0}),
        ("BM3", {"feature_weight": -1.0}),
        ("FREEDOM", {"edge_dropout": 1.0}),
        ("FREEDOM", {"image_weight": 1.5}),
        ("FREEDOM", {"knn_k": 0}),
        ("MGCN", {"temperature": 0.0}),
    ],
)
def test_settings_out_of_range_are_named(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        MODELS[name].config_class(**wrong)


def test_defaults_are_the_published_settings() -> None:
    assert FREEDOMConfig() == FREEDOMConfig(64, 2, 1, 10, 0.1, 0.8)
