"""Training steps as the trainer runs them, and as others would: shared by benchmarks and profiles."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from benchmarks import floors
from benchmarks.device import CPU
from benchmarks.inputs import Size
from benchmarks.peers import csr_product, csr_product_with_transpose, sparse_backend
from smore_ext import SMORE, Batch, Dataset, Recommender
from smore_ext.models.contract import BACKENDS
from smore_ext.training import step
from smore_ext.training.device import deterministic, reuse_memory
from smore_ext.training.optimizers import adam

BATCH_SIZE = 2048  # of all published settings
BATCHES = 8  # different batches, taken in turn: which nodes a step touches matters to us

# The reference backend with other sparse products: what a good user would write without this package.
OWN_BACKENDS = {"csr": csr_product, "csr-transpose": csr_product_with_transpose}
for _name, _product in OWN_BACKENDS.items():
    BACKENDS[_name] = sparse_backend(_product)


@contextmanager
def as_trained() -> Iterator[None]:
    """What the trainer sets for the process while it runs."""
    with deterministic(), reuse_memory():
        yield


def random_batches(data: Dataset, batch_size: int, device: torch.device) -> list[Batch]:
    g = torch.Generator().manual_seed(3)
    batches = []
    for _ in range(BATCHES):
        at = torch.randint(len(data.train.users), (batch_size,), generator=g)
        negatives = torch.randint(data.n_items, (batch_size,), generator=g)
        batches.append(Batch(data.train.users[at].to(device), data.train.items[at].to(device), negatives.to(device)))
    return batches


def make_step(
    data: Dataset,
    config: Any,
    backend: str,
    fused: bool,
    device: torch.device = CPU,
    model_class: type[Recommender] = SMORE,
    amp: bool = False,
) -> tuple[Recommender, torch.optim.Adam, Callable[[], None]]:
    """A model on that backend, its optimizer (the trainer's choice), and one training step on the next batch.

    On a GPU ours is captured, as the trainer captures it.
    """
    torch.manual_seed(0)
    model = model_class(data, replace(config, backend=backend)).to(device)
    model.begin_epoch(0, torch.Generator().manual_seed(0))
    captured = device.type == "cuda" and model.capturable
    optimizer = adam(model, 1e-3, fused, captured)
    take = step.make_step(model, optimizer, amp, captured)
    batches = itertools.cycle(random_batches(data, BATCH_SIZE, device))
    return model, optimizer, lambda: take(next(batches))


def step_floor(model: SMORE, size: Size) -> floors.Floor:
    config = model.config
    widths = [model.features[m].shape[1] for m in model.modalities]
    graphs = [*model.item_graphs.values(), model.fusion_graph]
    sizes = (size.users + size.items, size.items, widths)
    return floors.training_step(
        *sizes, model.bipartite, graphs, config.n_ui_layers, config.batch_size, config.embedding_dim
    )
