"""For tests of models: a tiny data set with features, dense float64 transcriptions of what papers share, runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

from smore_ext import Batch, Dataset, Graph, Recommender, runs
from smore_ext.settings.config import RunConfig, TrainConfig
from smore_ext.training import checkpoint

N_USERS, N_ITEMS, N_BATCH = 30, 40, 32
Rows = tuple[Tensor, Tensor]


def dataset_with_features(graphs: dict[str, Graph] | None = None, **more: int) -> Dataset:
    """`tiny_dataset` with random features of images and texts, and of `more` modalities of these widths."""
    generator = torch.Generator().manual_seed(2)
    widths = {"image": 9, "text": 5, **more}
    features = {m: torch.randn(N_ITEMS, width, generator=generator) for m, width in widths.items()}
    some = tiny.tiny_dataset()
    return Dataset.from_pairs("tiny", N_USERS, N_ITEMS, some.train, some.valid, some.test, features, graphs or {})


def batch(device: torch.device | None = None) -> Batch:
    generator = torch.Generator().manual_seed(5)
    ids = (torch.randint(n, (N_BATCH,), generator=generator) for n in (N_USERS, N_ITEMS, N_ITEMS))
    return Batch(*(part.to(device) for part in ids))


def exact_weights(model: Recommender) -> dict[str, Tensor]:
    return {name: p.detach().cpu().double().requires_grad_() for name, p in model.named_parameters()}


def assert_close(ours: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(ours.detach().cpu().double(), exact.detach(), rtol=1e-5, atol=1e-6)


def check_equations(model: Recommender, weights: dict[str, Tensor], rows: Rows, loss: Tensor) -> None:
    """Embeddings, loss and every gradient of a model against what a transcription made of `exact_weights`."""
    device = next(model.parameters()).device
    for ours, exact in zip(model.embeddings(), rows, strict=True):
        assert_close(ours, exact)
    own = model.loss(batch(device))
    assert_close(own, loss)
    own.backward()
    loss.backward()
    for name, parameter in model.named_parameters():
        exact = weights[name].grad
        ours = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        exact = torch.zeros_like(weights[name]) if exact is None else exact
        torch.testing.assert_close(ours.cpu().double(), exact, rtol=1e-4, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


# What the papers share, densely, in the dtype of the arguments.


def interactions(users: Tensor, items: Tensor) -> Tensor:
    """D_U^-1/2 R D_I^-1/2 [U, I] of the pairs; 0 where a degree is."""
    r = torch.zeros(N_USERS, N_ITEMS, dtype=torch.float64)
    r[users, items] = 1
    return r / (r.sum(1, keepdim=True) * r.sum(0)).sqrt().clamp(min=1e-12)


def mean_of_layers(r: Tensor, weights: dict[str, Tensor], n_layers: int) -> Rows:
    """LightGCN of the two id tables."""
    layers = [(weights["user_embedding.weight"], weights["item_embedding.weight"])]
    for _ in range(n_layers):
        layers.append((r @ layers[-1][1], r.T @ layers[-1][0]))
    users, items = (torch.stack(side).mean(0) for side in zip(*layers, strict=True))
    return users, items


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def nearest(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities [I, I], and 1 at the k largest of each row, else 0."""
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    similarity = unit @ unit.T
    return similarity, torch.zeros_like(similarity).scatter(1, similarity.topk(k).indices, 1.0)


def by_row_sums(a: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 with the row sums D."""
    scale = a.sum(1).rsqrt()
    return scale[:, None] * a * scale


def bpr(users: Tensor, items: Tensor) -> Tensor:
    u, p, n = batch().triples()
    return -((users[u] * (items[p] - items[n])).sum(1)).sigmoid().log().mean()


def l2(*rows: Tensor) -> Tensor:
    """Halved squares of what the batch reads, over the batch size that configurations here have."""
    return sum(r.square().sum() for r in rows) / 2 / N_BATCH


# Runs


def run(name: str, config: Any, dataset: Dataset, folder: Path, epochs: int, resume: bool = False) -> dict[str, Any]:
    train = TrainConfig(model=name, dataset="tiny", epochs=epochs, batch_size=16, lr=0.05, seed=1)
    return runs.train(RunConfig(train, config), dataset, folder, resume=resume)


def stored(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder / "best.safetensors")[0]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"]["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def check_resumes(name: str, config: Any, dataset: Dataset, folder: Path, buffers: Sequence[str] = ()) -> dict:
    """A run of five epochs, and one stopped after two that goes on: the same bits. Returns the result of the first."""
    whole = run(name, config, dataset, folder / "whole", 5)
    run(name, config, dataset, folder / "parts", 2)
    parts = run(name, config, dataset, folder / "parts", 5, resume=True)
    assert whole["warnings"] == parts["warnings"] == []  # ranked as with the stored weights
    assert (whole["validation"], whole["test"]) == (parts["validation"], parts["test"])
    weights = [stored(folder / part) for part in ("whole", "parts")]
    assert weights[0].keys() == weights[1].keys() and set(buffers) <= set(weights[0])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert losses(folder / "whole") == losses(folder / "parts") and len(losses(folder / "whole")) == 5
    loaded = runs.load_run(folder / "whole", dataset=dataset)
    assert loaded.evaluate("mmrec")["test"] == whole["test"]
    assert len(loaded.recommend([3], 5)[3]) == 5
    exported = runs.export(loaded, folder / "out.safetensors")
    assert exported["users"].shape[0] == N_USERS and exported["items"].shape[0] == N_ITEMS
    return whole
