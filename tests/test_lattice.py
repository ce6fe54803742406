"""LATTICE: its equations written densely, gradients through the edges' weights, and graphs relearned each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import model_checks as checks
import pytest
import tiny
import torch
from model_checks import N_ITEMS, batch
from torch import Tensor

from smore_ext import Dataset, Graph
from smore_ext.models import MODELS
from smore_ext.models.lattice import LATTICE, LATTICEConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return checks.dataset_with_features()


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
        projected = checks.linear(features, weights, f"projection.{m}")
        learned = neighbours_graph(projected, None if find else model.neighbours[n], k)
        initial = neighbours_graph(features, None, k)
        a = a + alpha[n] * (settings.initial_weight * initial + (1 - settings.initial_weight) * learned)
    smooth = weights["item_embedding.weight"]
    for _ in range(settings.n_mm_layers):
        smooth = a @ smooth
    users, items = checks.mean_of_layers(checks.interactions(*dataset.train), weights, settings.n_ui_layers)
    return users, items + smooth / smooth.norm(dim=1, keepdim=True)


def dense_loss(rows: checks.Rows, settings: LATTICEConfig) -> Tensor:
    users, positives, negatives = batch().triples()
    u, p, n = rows[0][users], rows[1][positives], rows[1][negatives]
    return checks.bpr(*rows) + settings.reg_weight * checks.l2(u, p, n)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("changes", [{}, {"n_mm_layers": 1}, {"initial_weight": 0.0}, {"n_ui_layers": 0, "knn_k": 1}])
def test_it_is_the_dense_equations(dataset: Dataset, device: torch.device, backend: str, changes: dict) -> None:
    model = made(dataset, backend=backend, **changes)
    weights = checks.exact_weights(model)
    expected = dense(model, dataset, weights, find=True)
    checks.check_equations(model.to(device), weights, expected, dense_loss(expected, model.config))


def test_a_graph_that_the_data_set_brings_is_the_initial_one(dataset: Dataset) -> None:
    ready = {"text": Graph.knn(dataset.features["text"], 2)}
    model = LATTICE(checks.dataset_with_features(ready), config())
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
    checks.assert_close(after, dense(model, dataset, checks.exact_weights(model), find=False)[1])
    assert model.begin_epoch(1, torch.Generator()) is True
    assert not torch.equal(model.neighbours, stored)
    relearned = model.embeddings()[1].detach()
    checks.assert_close(relearned, dense(model, dataset, checks.exact_weights(model), find=True)[1])


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
    checks.check_resumes("LATTICE", config(batch_size=16), dataset, tmp_path, buffers=["neighbours"])


def test_it_is_found_by_name_and_says_what_it_needs() -> None:
    assert MODELS["LATTICE"] is LATTICE
    with pytest.raises(ValueError, match=r"LATTICE needs features of at least one modality; dataset 'tiny' has none"):
        LATTICE(tiny.tiny_dataset())
    for wrong in ({"initial_weight": 1.1}, {"knn_k": 0}, {"feature_dim": 0}, {"n_mm_layers": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            LATTICEConfig(**wrong)
