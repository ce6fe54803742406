"""A training step of each model in the box but SMORE (`bench_training.py`), with its settings for Baby.

"plain" is the same model on the reference backend: COO products, eager losses, Adam's default loop; VBPR there projects
all items' features at each step. The once-an-epoch
work is apart: item graphs relearned by LATTICE ("relearn"), for which "plain" has the similarity matrix of all items.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import floors
from benchmarks.ceilings import Floor
from benchmarks.inputs import FEATURE_WIDTHS, dataset, size_of
from benchmarks.interleave import Case, Comparison, Contender, Setting
from benchmarks.training import BATCH_SIZE, as_trained, make_step
from smore_ext import Batch, Recommender, reference
from smore_ext.models import MODELS
from smore_ext.runs.config_files import preset_names, resolve

TRAINED = ("LightGCN", "VBPR", "BM3", "FREEDOM", "MGCN", "LATTICE")
DATA = "baby"
KNN_K = 10


def config_of(model: str) -> object:
    """Settings for Baby where there are published ones, else defaults; item graphs are not kept between runs."""
    preset = f"{model.lower()}-{DATA}"
    config = resolve(preset=preset).model if preset in preset_names() else MODELS[model].config_class()
    return replace(config, cache_dir=None) if "cache_dir" in {f.name for f in fields(config)} else config


class WholeVBPR(MODELS["VBPR"]):
    """VBPR as it is usually written: the features of all items are projected at each step."""

    def loss(self, batch: Batch) -> Tensor:
        triples = batch.triples()
        bpr, _ = reference.bpr_loss(*self.embeddings(), *triples)
        tables = {0: (self.user_embedding, self.user_preference), 1: (self.item_embedding, self.item_bias)}
        rows = [F.embedding(nodes, table.weight) for n, nodes in enumerate(triples) for table in tables[min(n, 1)]]
        l2 = torch.stack([r.square().sum() for r in rows]).sum() / 2
        return bpr + self.config.reg_weight * l2 / self.config.batch_size


PLAIN = {"VBPR": WholeVBPR}


def step_floor(model: Recommender) -> Floor:
    """Adam of what is trained, products over the graphs, projections of features; losses are small and left out."""
    d, config = model.config.embedding_dim, model.config
    tables = [table for table, *_ in model.feature_tables()]
    whole = {id(table) for table in tables}
    rest = sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in whole)
    total = Floor(floors.ADAM_BYTES * rest)
    for table in tables:
        total += floors.table_step(*table.shape, d)
    if not tables and hasattr(model, "projection"):  # constant features: forward, and the gradient of the projection
        rows = min(model.n_items, 2 * BATCH_SIZE) if isinstance(model, MODELS["VBPR"]) else model.n_items
        total += Floor(flops=2 * 2.0 * rows * sum(FEATURE_WIDTHS.values()) * d)
    if hasattr(model, "bipartite"):
        total += floors.propagate_step(getattr(model, "sampled", model.bipartite), d, config.n_ui_layers)
    if hasattr(model, "item_graph"):
        total += floors.spmm_step(model.item_graph, d)
    for graph in getattr(model, "item_graphs", {}).values():
        total += floors.spmm_step(graph, d)
    for initial, learned in zip(getattr(model, "initial", []), getattr(model, "learned", []), strict=True):
        total += floors.spmm_step(initial, d) + floors.weighted_step(learned, d)
    return total


def model_step(name: str) -> Case:
    def make(setting: Setting) -> Comparison:
        data, config = dataset(size_of(DATA, setting.shrink), KNN_K), config_of(name)
        model, _, native = make_step(data, config, "native", True, model_class=MODELS[name])
        plain = make_step(data, config, "reference", False, model_class=PLAIN.get(name, MODELS[name]))[2]
        return Comparison(Contender(native, as_trained, settle=True), {"plain": Contender(plain)}, step_floor(model))

    return Case("training step of a model", name, make)


def plain_neighbours(features: Tensor, k: int) -> Tensor:
    rows = F.normalize(features)
    return (rows @ rows.T).topk(k).indices


def relearn() -> Case:
    def make(setting: Setting) -> Comparison:
        data, config = dataset(size_of(DATA, setting.shrink), KNN_K), config_of("LATTICE")
        model = make_step(data, config, "native", True, model_class=MODELS["LATTICE"])[0]
        generator = torch.Generator()

        @torch.no_grad()
        def native() -> None:
            model.begin_epoch(0, generator)

        @torch.no_grad()
        def plain() -> list[Tensor]:
            return [plain_neighbours(model.projected(m), config.knn_k) for m in model.modalities]

        floor = Floor()
        for width in FEATURE_WIDTHS.values():
            floor += floors.knn(data.n_items, config.feature_dim)
            floor += Floor(flops=2.0 * data.n_items * width * config.feature_dim)
        return Comparison(Contender(native), {"plain": Contender(plain)}, floor)

    return Case("once an epoch", "LATTICE, relearn", make)


@pytest.mark.parametrize("case", [*map(model_step, TRAINED), relearn()], ids=str)
def test_models(measure, case: Case) -> None:
    measure(case)
