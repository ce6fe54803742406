"""LATTICE: its equations written densely, gradients through the edges' weights, and graphs relearned each epoch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from smore_ext import Batch, Dataset, Graph, runs
from smore_ext.evaluation.ranking import embeddings
from smore_ext.models import MODELS
from smore_ext.models.lattice import LATTICE, LATTICEConfig
from smore_ext.settings.config import RunConfig
from smore_ext.training import checkpoint

N_USERS, N_ITEMS = 30, 40


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(2)
    features = {m: torch.randn(N_ITEMS, width, generator=generator) for m, width in (("image", 9), ("text", 5))}
    some = tiny.tiny_dataset()
    return Dataset.from_pairs("tiny", N_USERS, N_ITEMS, some.train, some.valid, some.test, features, {})


def config(**changes: object) -> LATTICEConfig:
    return LATTICEConfig(
        **{
            "embedding_dim": 8,
            "feature_dim": 6,
            "knn_k": 5,
            "n_mm_layers": 2,
            "initial_weight": 0.4,
            "reg_weight": 0.01,
            "batch_size": 32,
            **changes,
        }
    )


def made(dataset: Dataset, **changes: object) -> LATTICE:
    torch.manual_seed(1)
    model = LATTICE(dataset, config(**changes))
    with torch.no_grad():
        model.modality_weight.copy_(torch.tensor([0.3, -0.5]))
        model.begin_epoch(0, torch.Generator())
    return model


def batch(device: torch.device | None = None) -> Batch:
    generator = torch.Generator().manual_seed(5)
    ids = (torch.randint(n, (32,), generator=generator) for n in (N_USERS, N_ITEMS, N_ITEMS))
    return Batch(*(part.to(device) for part in ids))


def neighbours_graph(features: Tensor, index: Tensor | None, k: int) -> Tensor:
    """D^-1/2 S D^-1/2 of the cosine similarities S at `index`, else at the k largest, negative ones as 0: [I, I]."""
    unit = features / features.norm(dim=1, keepdim=True)
    similarity = unit @ unit.T
    index = similarity.topk(k).indices if index is None else index
    kept = torch.zeros_like(similarity).scatter(1, index, 1.0) * similarity.clamp(min=0)
    scale = kept.sum(1).rsqrt()
    return scale[:, None] * kept * scale


def dense(model: LATTICE, dataset: Dataset, weights: dict[str, Tensor], find: bool) -> tuple[Tensor, Tensor]:
    """Final embeddings by the paper's equations, in the dtype of `weights`; `find`: neighbours of these weights."""
    settings, k = model.config, model.config.knn_k
    alpha = weights["modality_weight"].exp() / weights["modality_weight"].exp().sum()
    a = torch.zeros(N_ITEMS, N_ITEMS, dtype=torch.float64)
    for n, (m, features) in enumerate(dataset.features.items()):
        features = features.double()
        projected = features @ weights[f"projection.{m}.weight"].T + weights[f"projection.{m}.bias"]
        learned = neighbours_graph(projected, None if find else model.neighbours[n], k)
        initial = neighbours_graph(features, None, k)
        a = a + alpha[n] * (settings.initial_weight * initial + (1 - settings.initial_weight) * learned)
    smooth = weights["item_embedding.weight"]
    for _ in range(settings.n_mm_layers):
        smooth = a @ smooth
    r = torch.zeros(N_USERS, N_ITEMS, dtype=torch.float64)
    r[dataset.train.users, dataset.train.items] = 1
    r = r / (r.sum(1, keepdim=True) * r.sum(0)).sqrt()
    layers = [(weights["user_embedding.weight"], weights["item_embedding.weight"])]
    for _ in range(settings.n_ui_layers):
        layers.append((r @ layers[-1][1], r.T @ layers[-1][0]))
    users, items = (torch.stack(side).mean(0) for side in zip(*layers, strict=True))
    return users, items + smooth / smooth.norm(dim=1, keepdim=True)


def dense_loss(rows: tuple[Tensor, Tensor], settings: LATTICEConfig) -> Tensor:
    users, positives, negatives = batch().triples()
    u, p, n = rows[0][users], rows[1][positives], rows[1][negatives]
    bpr = -((u * (p - n)).sum(1)).sigmoid().log().mean()
    return bpr + settings.reg_weight * (u.square() + p.square() + n.square()).sum() / 2 / settings.batch_size


def assert_close(ours: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(ours.detach().cpu().double(), exact.detach(), rtol=1e-5, atol=1e-6)


def exact_weights(model: LATTICE) -> dict[str, Tensor]:
    return {name: p.detach().cpu().double().requires_grad_() for name, p in model.named_parameters()}


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("changes", [{}, {"n_mm_layers": 1}, {"initial_weight": 0.0}, {"n_ui_layers": 0, "knn_k": 1}])
def test_it_is_the_dense_equations(dataset: Dataset, device: torch.device, backend: str, changes: dict) -> None:
    model = made(dataset, backend=backend, **changes)
    weights = exact_weights(model)
    expected = dense(model, dataset, weights, find=True)
    model.to(device)
    for rows, exact in zip(model.embeddings(), expected, strict=True):
        assert_close(rows, exact)
    loss, exact_loss = model.loss(batch(device)), dense_loss(expected, model.config)
    assert_close(loss, exact_loss)
    loss.backward()
    exact_loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.cpu().double(), weights[name].grad, rtol=1e-4, atol=1e-7)


def test_a_graph_that_the_data_set_brings_is_the_initial_one(dataset: Dataset) -> None:
    ready = {"text": Graph.knn(dataset.features["text"], 2)}
    parts = (dataset.train, dataset.valid, dataset.test, dataset.features, ready)
    model = LATTICE(Dataset.from_pairs("tiny", N_USERS, N_ITEMS, *parts), config())
    assert model.initial[1] is ready["text"] and model.initial[0].n_edges > ready["text"].n_edges


def test_gradients_reach_the_projections_through_the_weights_of_edges(dataset: Dataset) -> None:
    model = made(dataset)
    model.loss(batch()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name
    only_initial = made(dataset, initial_weight=1.0)
    only_initial.loss(batch()).backward()
    assert not any(bool(p.grad.any()) for p in only_initial.projection.parameters())


def test_weights_of_edges_follow_the_projection_within_an_epoch_and_neighbours_do_not(dataset: Dataset) -> None:
    model = made(dataset)
    before, stored = model.embeddings()[1].detach(), model.neighbours.clone()
    with torch.no_grad():
        for parameter in model.projection.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    after = model.embeddings()[1].detach()
    assert torch.equal(model.neighbours, stored) and not torch.equal(after, before)
    assert_close(after, dense(model, dataset, exact_weights(model), find=False)[1])
    assert model.begin_epoch(1, torch.Generator()) is True
    assert not torch.equal(model.neighbours, stored)
    relearned = model.embeddings()[1].detach()
    assert_close(relearned, dense(model, dataset, exact_weights(model), find=True)[1])


def test_an_epoch_begins_as_a_function_of_the_weights(dataset: Dataset) -> None:
    """Whatever the neighbours were before, and the generator or the epoch."""
    one, other = made(dataset), made(dataset)
    with torch.no_grad():
        other.projection["image"].weight.normal_()
        other.begin_epoch(4, torch.Generator().manual_seed(9))
    assert not torch.equal(one.neighbours, other.neighbours)
    other.load_state_dict(one.state_dict())
    assert all(map(torch.equal, one.embeddings(), other.embeddings()))  # graphs are those of the loaded neighbours
    with torch.no_grad():
        other.begin_epoch(7, torch.Generator().manual_seed(8))
    assert torch.equal(one.neighbours, other.neighbours)


def test_a_run_resumed_has_the_same_bits(tmp_path: Path, dataset: Dataset) -> None:
    def run(name: str, epochs: int, resume: bool = False) -> dict:
        train = replace(tiny.tiny_config(epochs=epochs).train, model="LATTICE")
        return runs.train(RunConfig(train, config()), dataset, tmp_path / name, resume=resume)

    whole = run("whole", 5)
    run("parts", 2)
    parts = run("parts", 5, resume=True)
    assert whole["warnings"] == parts["warnings"] == []  # ranked as with the stored weights
    assert (whole["validation"], whole["test"]) == (parts["validation"], parts["test"])
    stored = [checkpoint.load(tmp_path / name / "best.safetensors")[0] for name in ("whole", "parts")]
    assert stored[0].keys() == stored[1].keys() and "neighbours" in stored[0]
    assert all(torch.equal(stored[0][name], stored[1][name]) for name in stored[0])
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 5
    loaded = runs.load_run(tmp_path / "whole", dataset=dataset)
    assert loaded.evaluate("mmrec")["test"] == whole["test"]
    assert embeddings(loaded.model)[0].shape == (N_USERS, 8)


def test_it_is_found_by_name_and_says_what_it_needs() -> None:
    assert MODELS["LATTICE"] is LATTICE
    with pytest.raises(ValueError, match=r"LATTICE needs features of at least one modality; dataset 'tiny' has none"):
        LATTICE(tiny.tiny_dataset())
    for wrong in ({"initial_weight": 1.1}, {"knn_k": 0}, {"feature_dim": 0}, {"n_mm_layers": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            LATTICEConfig(**wrong)
