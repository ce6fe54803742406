"""What errors say: the setting's flag, what is expected, what came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from smore_ext import Dataset, Graph, ops
from smore_ext.models import Batch
from smore_ext.models.lattice import LATTICE, LATTICEConfig
from smore_ext.models.smore import SMORE, SMOREConfig
from smore_ext.runs import folder
from smore_ext.training.loop import TrainingDiverged


class Diverging(tiny.Tiny):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * float("nan")


def test_a_run_that_diverges_at_once_kept_no_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.MODELS, "Tiny", tiny.Tiny)  # `trainer` replaces it
    with pytest.raises(TrainingDiverged) as raised:
        tiny.trainer(Diverging, tmp_path).run()
    assert f"no epoch is done, so {tmp_path} holds the weights at the start" in str(raised.value)
    assert (tmp_path / folder.LAST).exists()


def with_features(*modalities: str) -> Dataset:
    data = tiny.tiny_dataset()
    random = torch.Generator().manual_seed(2)
    features = {name: torch.rand(data.n_items, 5, generator=random) for name in modalities}
    return Dataset.from_pairs("tiny", 30, 40, data.train, data.valid, data.test, features)


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (SMORE, SMOREConfig(knn_k=41)),
        (SMORE, SMOREConfig(knn_k={"image": 4, "text": 41})),
        (LATTICE, LATTICEConfig(knn_k=41)),
    ],
)
def test_more_neighbours_than_items_names_the_setting(model: type, config: object) -> None:
    with pytest.raises(ValueError, match="knn_k must be at most 40, the items of 'tiny', got 41: see --knn-k"):
        model(with_features("image", "text"), config)


@pytest.mark.parametrize("knn_k", [{"image": 4}, {"image": 4, "text": 4, "audio": 4}, {"imgae": 4, "text": 4}])
def test_a_modality_that_knn_k_lacks_or_invents(knn_k: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"knn_k must name every modality \(image, text\), got"):
        SMORE(with_features("image", "text"), SMOREConfig(knn_k=knn_k))


# What is no tensor

T, F = torch.arange(3), torch.rand(3, 2)
GRAPH = Graph.from_edges(T, T, None, (3, 3))
OPS = {
    "spmm": (lambda x: ops.spmm(GRAPH, x), "x"),
    "spmm gate": (lambda x: ops.spmm(GRAPH, F, gate=x), "gate"),
    "propagate": (lambda x: ops.propagate(GRAPH, x, 2), "x"),
    "poly_filter": (lambda x: ops.poly_filter(GRAPH, x, F[:, 0]), "x"),
    "edge_dot": (lambda x: ops.edge_dot(GRAPH, F, x), "v"),
    "edge_softmax": (lambda x: ops.edge_softmax(GRAPH, x), "logits"),
    "knn": (lambda x: ops.knn(x, 2), "features"),
    "cosine_at": (lambda x: ops.cosine_at(F, x), "index"),
    "masked_topk": (lambda x: ops.masked_topk(F, x, 2), "items"),
    "sample_negatives": (lambda x: ops.sample_negatives(T, GRAPH, x, seed=1), "candidates"),
    "spectral_filter": (lambda x: ops.spectral_filter(x, F), "x"),
    "spectrum_fusion": (lambda x: ops.spectrum_fusion([F], [F], x), "fusion_weight"),
    "dropout": (lambda x: ops.dropout(x, 0.5, 1), "x"),
    "bpr_loss": (lambda x: ops.bpr_loss(F, F, T, x, T), "positives"),
    "bpr_loss rows": (lambda x: ops.bpr_loss(F, F, x), "users"),
    "info_nce": (lambda x: ops.info_nce(x, F, 0.2), "x"),
    "info_nce counts": (lambda x: ops.info_nce(F, F, 0.2, counts=x), "counts"),
    "info_nce keys": (lambda x: ops.info_nce(F, F, 0.2, x), "keys"),
    "row_logsumexp": (lambda x: ops.row_logsumexp(F, x), "b"),
    "table_linear": (lambda x: ops.table_linear(x, F, None), "table"),
    "gather_rows": (lambda x: ops.gather_rows(F, x), "index"),
    "modality_preference": (lambda x: ops.modality_preference(F, x, F), "attention"),
}
GRAPHS = {
    "Graph": (lambda x: Graph(x, T.int(), F[:, 0], (3, 3)), "rowptr"),
    "from_edges": (lambda x: Graph.from_edges(T, x, None, (3, 3)), "col"),
    "from_edges weight": (lambda x: Graph.from_edges(T, T, x, (3, 3)), "weight"),
    "from_sparse": (lambda x: Graph.from_sparse(x), "tensor"),
    "bipartite": (lambda x: Graph.bipartite(x, T, 3, 3), "users"),
    "knn": (lambda x: Graph.knn(x, 1), "features"),
    "rows": (lambda x: GRAPH.rows(x), "index"),
    "with_weight": (lambda x: GRAPH.with_weight(x), "weight"),
    "drop_edges": (lambda x: GRAPH.drop_edges(x), "keep"),
}


@pytest.mark.parametrize(("value", "kind"), [(np.ones(3, np.float32), "numpy.ndarray"), ([1, 2], "list"), ("x", "str")])
@pytest.mark.parametrize("name", OPS)
def test_ops_name_what_is_no_tensor(name: str, value: object, kind: str) -> None:
    call, argument = OPS[name]
    op = name.partition(" ")[0]
    with pytest.raises(
        TypeError, match=rf"^smore_ext::{op}: {argument} must be a torch.Tensor, got {kind}(: torch.*)?$"
    ):
        call(value)


@pytest.mark.parametrize("name", OPS)
def test_ops_take_dense_tensors(name: str) -> None:
    call, argument = OPS[name]
    op = name.partition(" ")[0]
    with pytest.raises(
        TypeError, match=rf"^smore_ext::{op}: {argument} must be a dense tensor, got layout torch.sparse"
    ):
        call(torch.eye(3).to_sparse())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.propagate(GRAPH, F, 1.5), "smore_ext::propagate: n_layers must be a whole number, got 1.5"),
        (lambda: ops.masked_topk(F, F, 2.0), "smore_ext::masked_topk: k must be a whole number, got 2.0"),
        (lambda: ops.dropout(F, 0.5, "x"), "smore_ext::dropout: seed must be a whole number, got 'x'"),
        (lambda: ops.dropout(F, "x", 1), "smore_ext::dropout: p must be a number, got 'x'"),
        (lambda: ops.knn(F, 2.5), "smore_ext::knn: k must be a whole number, got 2.5"),
        (lambda: ops.knn(F, None), "smore_ext::knn: k must be a whole number, got None"),
        (lambda: ops.knn(F, F), "smore_ext::knn: k must be a whole number, got None"),
        (lambda: ops.knn(F, F, 2.5), "smore_ext::knn: base must be a tensor, or a whole number behind one, got 2.5"),
        (lambda: ops.knn(F, 2, exclude_self="no"), "smore_ext::knn: exclude_self must be True or False, got 'no'"),
        (lambda: ops.masked_topk(F, F, None), "smore_ext::masked_topk: k must be a whole number, got None"),
        (lambda: ops.info_nce(F, F, "0.2"), "info_nce: temperature must be a number, or a tensor of one, got '0.2'"),
        (lambda: ops.info_nce(F, F, None), "info_nce: temperature must be a number, or a tensor of one, got None"),
        (lambda: ops.spectrum_fusion(None, [F], F), "smore_ext::spectrum_fusion: xs must hold torch.Tensors, got None"),
        (lambda: ops.gather_rows([F, None], T), "smore_ext::gather_rows: tables must hold torch.Tensors, got NoneType"),
        (lambda: ops.gather_rows(np.ones((3, 3)), T), "gather_rows: tables must hold torch.Tensors, got numpy.ndarray"),
        (lambda: ops.gather_rows(torch.eye(3).to_sparse(), T), "tables must hold dense tensors, got layout"),
        (lambda: ops.spectrum_fusion([F, F.to_sparse()], [F], F), "xs must hold dense tensors, got layout torch"),
        (lambda: Graph.from_edges(T.to(torch.uint16), T, None, (3, 3)), "row must be .* got torch.uint16"),
    ],
)  # fmt: skip
def test_ops_name_what_is_no_number(call: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_every_op_is_asked() -> None:
    assert {name.partition(" ")[0] for name in OPS} >= set(ops.__all__) - {"factored_adam_"}
    for name in ops.__all__:
        assert hasattr(getattr(ops, name), "__wrapped__"), f"{name} lacks @takes_tensors"


@pytest.mark.parametrize(("value", "kind"), [(np.ones(3, np.float32), "numpy.ndarray"), ([1, 2], "list"), ("x", "str")])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_name_what_is_no_tensor(name: str, value: object, kind: str) -> None:
    call, argument = GRAPHS[name]
    place = name.partition(" ")[0]
    with pytest.raises(TypeError, match=rf"^{place}: {argument} must be a torch.Tensor, got {kind}(: torch.*)?$"):
        call(value)


def test_sequences_name_what_is_no_tensor_or_graph() -> None:
    with pytest.raises(TypeError, match="smore_ext::spectrum_fusion: xs must hold torch.Tensors, got numpy.ndarray"):
        ops.spectrum_fusion([np.ones(3)], [], F)
    for call in (Graph.maximum, lambda graphs: Graph.weighted_sum(graphs, [1.0, 1.0])):
        with pytest.raises(TypeError, match="each of graphs must be a Graph, got list"):
            call([GRAPH, [1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 3}, r"train: expected \(users, items\), two vectors, got int"),
        ({"valid": [1, 2, 3]}, r"valid: expected \(users, items\), two vectors, got list"),
        ({"n_users": "3"}, "expected n_users as an integer, got str"),
        ({"n_items": [3]}, "expected n_items as an integer, got list"),
        ({"features": np.ones((3, 2))}, "features: expected a mapping by modality, got ndarray"),
        ({"graphs": [GRAPH]}, "graphs: expected a mapping by modality, got list"),
    ],
)
def test_a_dataset_names_what_is_of_another_type(change: dict[str, object], message: str) -> None:
    parts = {"n_users": 3, "n_items": 3, "train": (T, T), "valid": ([], []), "test": np.zeros((2, 0), int)}
    Dataset.from_pairs("x", **parts)
    with pytest.raises(TypeError, match=message):
        Dataset.from_pairs("x", **{**parts, **change})
