"""Graph: storage, conversions and the constructions of docs/spec.md, section 2, against dense arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from smore_ext import Graph, ops, reference


def dense(graph: Graph) -> torch.Tensor:
    return graph.to_sparse("coo").to_dense()


@pytest.fixture
def edges() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    row, col = torch.randint(0, 9, (60,), generator=generator), torch.randint(0, 7, (60,), generator=generator)
    return row, col, torch.randn(60, generator=generator)


def test_from_edges_sorts_and_sums_duplicates(edges) -> None:
    row, col, weight = edges
    expected = torch.zeros(9, 7).index_put_((row, col), weight, accumulate=True)
    graph = Graph.from_edges(row, col, weight, (9, 7))
    torch.testing.assert_close(dense(graph), expected)
    assert graph.col.dtype == torch.int32 and graph.n_edges == len({*zip(row.tolist(), col.tolist(), strict=True)})
    Graph(graph.rowptr, graph.col, graph.weight, graph.shape)  # passes its own checks


def test_transpose_is_built_once_and_is_its_own_inverse(edges) -> None:
    graph = Graph.from_edges(*edges, (9, 7))
    assert graph.t is graph.t and graph.t.t is graph
    torch.testing.assert_close(dense(graph.t), dense(graph).T, rtol=0, atol=0)
    Graph(graph.t.rowptr, graph.t.col, graph.t.weight, graph.t.shape)


def test_conversions_keep_the_matrix(edges) -> None:
    graph = Graph.from_edges(*edges, (9, 7))
    for again in (
        Graph.from_sparse(graph.to_sparse("csr")),
        Graph.from_sparse(graph.to_sparse("coo")),
        Graph.from_scipy(graph.to_scipy()),
        Graph.from_scipy(scipy.sparse.coo_matrix(graph.to_scipy())),
        graph.to(torch.float64).to(torch.float32),
        graph.to("cpu"),
    ):
        torch.testing.assert_close(dense(again), dense(graph), rtol=0, atol=0)
    assert Graph.from_scipy(scipy.sparse.eye(3, dtype=np.float64)).weight.dtype == torch.float64


def test_rows_selects_with_repetition(edges) -> None:
    graph = Graph.from_edges(*edges, (9, 7))
    index = torch.tensor([8, 0, 0, 3])
    torch.testing.assert_close(dense(graph.rows(index)), dense(graph)[index], rtol=0, atol=0)
    with pytest.raises(IndexError, match=r"rows must be in 0\.\.8, got 9"):
        graph.rows(torch.tensor([9]))


def test_adjoint(edges) -> None:
    graph = Graph.from_edges(*edges, (9, 7)).to(torch.float64)
    x, y = torch.randn(7, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    torch.testing.assert_close((ops.spmm(graph, x) * y).sum(), (x * ops.spmm(graph.t, y)).sum())


def test_torch_sparse_tensors_are_converted_once_and_noticed_when_changed(edges) -> None:
    graph = Graph.from_edges(*edges, (9, 7))
    x = torch.randn(7, 4)
    for layout in ("coo", "csr"):
        sparse = graph.to_sparse(layout).clone()
        torch.testing.assert_close(ops.spmm(sparse, x), reference.spmm(sparse, x))
        sparse *= 2
        torch.testing.assert_close(ops.spmm(sparse, x), reference.spmm(graph, x) * 2)


def test_bipartite_against_dense_arithmetic() -> None:
    users, items = (
        torch.tensor([0, 0, 1, 3, 3, 3, 0]),
        torch.tensor([1, 2, 2, 0, 1, 2, 1]),
    )  # (0, 1) twice; user 2, item 3 alone
    r = torch.zeros(4, 4)
    r[users, items] = 1
    a = torch.zeros(8, 8)
    a[:4, 4:], a[4:, :4] = r, r.T
    scale = torch.where(a.sum(1) > 0, a.sum(1).rsqrt(), torch.zeros(8))
    graph = Graph.bipartite(users, items, 4, 4)
    torch.testing.assert_close(dense(graph), scale[:, None] * a * scale[None])
    assert graph.t is graph and torch.equal(dense(graph), dense(graph).T)
    Graph(graph.rowptr, graph.col, graph.weight, graph.shape)


def test_knn_graph_against_dense_arithmetic() -> None:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(1)) + 0.5
    similarity = torch.nn.functional.normalize(x.double()) @ torch.nn.functional.normalize(x.double()).T
    value, index = similarity.topk(5)
    kept = torch.zeros_like(similarity).scatter_(1, index, value)
    scale = kept.sum(1).rsqrt()
    graph = Graph.knn(x, 5)
    torch.testing.assert_close(dense(graph).double(), scale[:, None] * kept * scale[None], rtol=1e-6, atol=1e-7)
    assert not torch.equal(dense(graph), dense(graph).T)  # directed
    Graph(graph.rowptr, graph.col, graph.weight, graph.shape)


def test_knn_graph_of_zero_rows_and_negative_degrees() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.1], [-1.0, 0.0]])
    graph = Graph.knn(x, 4)
    matrix = dense(graph)
    assert torch.isfinite(matrix).all()
    assert (matrix[1] == 0).all() and (matrix[:, 1] == 0).all()  # a zero row has no edges
    assert 1 not in graph.col.tolist()
    # Row 3 sums to 1 - 1 - 0.995 < 0: its degree counts as none.
    assert (matrix[3] == 0).all() and (matrix[:, 3] == 0).all()


def test_maximum_takes_the_largest_weight() -> None:
    a = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([0.5, -1.0]), (2, 3))
    b = Graph.from_edges(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]), torch.tensor([0.25, -2.0, 3.0]), (2, 3))
    torch.testing.assert_close(dense(Graph.maximum([a, b])), torch.tensor([[0.5, 0, 0], [0, -1.0, 3.0]]))
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3, 2\)"):
        Graph.maximum([a, b.t])
    with pytest.raises(ValueError, match="at least one graph"):
        Graph.maximum([])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda i: Graph.from_edges(i, i + 3, None, (4, 4)), IndexError, r"col must be in 0\.\.3, got 3\.\.5"),
        (lambda i: Graph.from_edges(i - 1, i, None, (4, 4)), IndexError, r"row must be in 0\.\.3, got -1\.\.1"),
        (lambda i: Graph.from_edges(i.float(), i, None, (4, 4)), TypeError, "row must be a 1-d integer tensor"),
        (lambda i: Graph.from_edges(i, i[:2], None, (4, 4)), ValueError, "equally long, got 3 and 2"),
        (lambda i: Graph.from_edges(i, i, i, (4, 4)), TypeError, "weight must be float32 or float64"),
        (lambda i: Graph(i.int(), i[:2], torch.ones(2), (2, 9)), TypeError, "both int32 or both int64"),
        (lambda i: Graph(i, i[:2], torch.ones(2).half(), (2, 9)), TypeError, "weight must be float32 or float64"),
        (lambda i: Graph(torch.tensor([0, 2]), torch.tensor([1, 1]), torch.ones(2), (1, 2)), IndexError, "strictly"),
        (
            lambda i: Graph(torch.tensor([0, 3]), torch.tensor([0, 1]), torch.ones(2), (1, 2)),
            IndexError,
            "number of edges",
        ),
        (
            lambda i: Graph(torch.tensor([0, 2]), torch.tensor([0, 2]), torch.ones(2), (1, 2)),
            IndexError,
            r"col must be in 0\.\.1",
        ),
        (lambda i: Graph(torch.tensor([0]), i, torch.ones(3), (1, 9)), ValueError, "rows \\+ 1 = 2 entries"),
        (lambda i: Graph.from_sparse(torch.eye(3)), TypeError, "2-d sparse COO or CSR"),
        (lambda i: Graph.bipartite(i, i, 2, 3), IndexError, r"row must be in 0\.\.1, got 0\.\.2"),
    ],
)
def test_errors(build, error, message) -> None:
    with pytest.raises(error, match=message):
        build(torch.tensor([0, 1, 2]))


def test_spmm_of_a_published_size_graph_matches_scipy(shared_data) -> None:
    from smore_ext import load_dataset

    data = load_dataset(shared_data / "clothing")
    graph = Graph.bipartite(*data.train, data.n_users, data.n_items)
    x = torch.randn(graph.n_cols, 64)
    expected = graph.to_scipy().astype(np.float64) @ x.double().numpy()
    torch.testing.assert_close(ops.spmm(graph, x).double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_separable_weights_are_known_and_kept() -> None:
    graph = Graph.bipartite(torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 2, 1]), 4, 3)
    for g in (graph, graph.t, graph.to(torch.float64), graph.to("cpu")):
        weight = (g.scale[g.row.long()] * g.scale[g.col.long()]).to(g.weight.dtype)
        torch.testing.assert_close(weight, g.weight, rtol=1e-6, atol=0)
    assert graph.scale[2] == 0  # a user without items
    assert graph.to("meta").scale.device.type == "meta"
    graph._t = None
    assert graph.t is not graph and torch.equal(graph.t.scale, graph.scale)
    knn = Graph.knn(torch.randn(9, 4), 3)
    assert knn.scale is None and knn.t.scale is None and graph.rows(torch.tensor([0, 1])).scale is None


def test_float64_uses_the_weights_themselves() -> None:
    graph = Graph.bipartite(torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 2, 1]), 4, 3)
    x = torch.randn(7, 5, dtype=torch.float64)
    torch.testing.assert_close(ops.propagate(graph, x, 3), reference.propagate(graph, x, 3), rtol=1e-14, atol=1e-14)


def test_propagate_reads_separable_weights_in_its_first_layer_only() -> None:
    graph = Graph.bipartite(torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 2, 1]), 4, 3)
    x = torch.randn(7, 5)
    once, twice = (ops.propagate(graph, x, layers, "last") for layers in (1, 2))
    graph.weight.zero_()
    assert not ops.propagate(graph, x, 1, "last").any()
    graph = Graph.bipartite(torch.tensor([0, 0, 1, 3]), torch.tensor([0, 2, 2, 1]), 4, 3)
    graph.scale.zero_()
    assert torch.equal(ops.propagate(graph, x, 1, "last"), once)
    assert not ops.propagate(graph, x, 2, "last").any() and twice.any()
