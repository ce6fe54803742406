"""Graph: storage, conversions, parts of a graph, and what is refused."""

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


def test_a_graph_does_not_follow_what_it_was_made_of() -> None:
    rowptr, col, weight = torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.ones(2)
    index, edges = torch.tensor([[0, 1], [1, 0]]), torch.ones(2)
    graphs = [Graph(rowptr, col, weight, (2, 2)), Graph.from_edges(*index, edges, (2, 2))]
    for part in (rowptr, col, weight, index, edges):
        part.zero_()
    for graph in graphs:
        assert torch.equal(graph.to_sparse("coo").to_dense(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        assert torch.equal(graph.t.weight, graph.weight)


def random_graph(seed: int, n_rows: int, n_cols: int, n_edges: int, dtype: torch.dtype = torch.float32) -> Graph:
    g = torch.Generator().manual_seed(seed)
    row, col = torch.randint(n_rows, (n_edges,), generator=g), torch.randint(n_cols, (n_edges,), generator=g)
    return Graph.from_edges(row, col, torch.randn(n_edges, generator=g, dtype=dtype), (n_rows, n_cols))


def square(index: torch.Tensor) -> Graph:
    return Graph.from_edges(index, index, None, (3, 3))


@pytest.mark.parametrize("seed", range(4))
def test_block_is_a_slice_of_the_matrix(seed: int) -> None:
    graph = random_graph(seed, 30, 20, 150)
    matrix = graph.to_scipy()
    if seed % 2:
        graph.t  # noqa: B018  known from here on: blocks bring theirs
    spans = [(slice(None), slice(None)), (slice(3, 17), slice(20)), (range(5, 30), (4, 11)), ((7, 7), slice(-6, None))]
    for rows, cols in [*spans, (slice(0, 0), slice(0, 0)), (slice(25, 4), range(2, 2)), (slice(29, 99), slice(19, 20))]:
        block = graph.block(rows, cols)
        as_slices = [slice(*s) if isinstance(s, tuple) else slice(s.start, s.stop) for s in (rows, cols)]
        wanted = matrix[as_slices[0]][:, as_slices[1]].toarray()
        assert (dense(block).numpy() == wanted).all() and block.shape == wanted.shape
        assert (dense(block.t).numpy() == wanted.T).all() and block.t.t is block
        Graph(block.rowptr, block.col, block.weight, block.shape)
        Graph(block.t.rowptr, block.t.col, block.t.weight, block.t.shape)
        assert (block._t is not None) and block.rowptr.dtype == block.col.dtype == graph.col.dtype


def test_blocks_of_a_bipartite_graph() -> None:
    graph = Graph.bipartite(torch.tensor([0, 0, 1, 3, 3]), torch.tensor([0, 2, 2, 1, 2]), 4, 3)
    r = graph.block(slice(4), slice(4, None))
    assert torch.equal(dense(r), dense(graph)[:4, 4:]) and torch.equal(dense(r.t), dense(graph)[4:, :4])
    assert r.weight.untyped_storage().data_ptr() == graph.weight.untyped_storage().data_ptr()  # nothing is copied
    assert r.t.weight.untyped_storage().data_ptr() == graph.weight.untyped_storage().data_ptr()
    assert r.scale is None and r.t.t is r
    corner = graph.block((2, 6), (2, 6))
    assert corner.t is corner and torch.equal(dense(corner), dense(graph)[2:6, 2:6])
    x = torch.randn(4, 5)
    torch.testing.assert_close(ops.propagate(corner, x, 3), reference.propagate(corner, x, 3))


def test_rows_and_columns_whose_product_is_beyond_int64() -> None:
    row, col = torch.tensor([3, 0, 2, 1, 3, 0]), torch.tensor([2**61 + 3, 5, 7, 2**61, 1, 5])
    graph = Graph.from_edges(row, col, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), (4, 2**62))
    assert graph.rowptr.tolist() == [0, 1, 2, 3, 5] and graph.col.tolist() == [5, 2**61, 7, 1, 2**61 + 3]
    assert graph.weight.tolist() == [8, 4, 3, 5, 1]
    other = Graph.from_edges(torch.tensor([1, 2]), torch.tensor([2**61, 8]), torch.tensor([9.0, 1.0]), (4, 2**62))
    largest, total = Graph.maximum([graph, other]), Graph.weighted_sum([graph, other], [1, 2])
    for union, weights in ((largest, [8, 9, 3, 1, 5, 1]), (total, [8, 22, 3, 2, 5, 1])):
        assert union.rowptr.tolist() == [0, 1, 2, 4, 6] and union.weight.tolist() == weights
        assert union.col.tolist() == [5, 2**61, 7, 8, 1, 2**61 + 3]


def test_from_edges_at_the_edge_of_int64() -> None:
    """The largest shape whose edges still have a number each: both ways must agree."""
    for n_cols in (2**61 - 1, 2**61, 2**61 + 1):
        graph = Graph.from_edges(torch.tensor([3, 0, 3]), torch.tensor([n_cols - 1, 0, n_cols - 2]), None, (4, n_cols))
        assert graph.rowptr.tolist() == [0, 1, 1, 1, 3] and graph.col.tolist() == [0, n_cols - 2, n_cols - 1]


def test_to_scipy_of_weights_that_require_grad() -> None:
    graph = random_graph(0, 5, 5, 9)
    graph.weight.requires_grad_()
    assert (graph.to_scipy().toarray() == dense(graph).detach().numpy()).all()


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda i: Graph.from_edges(i, i + 3, None, (4, 4)), IndexError, r"col must be in 0\.\.3, got 3\.\.5"),
        (lambda i: Graph.from_edges(i - 1, i, None, (4, 4)), IndexError, r"row must be in 0\.\.3, got -1\.\.1"),
        (lambda i: Graph.from_edges(i.float(), i, None, (4, 4)), TypeError, "row must be a 1-d tensor of int64, "),
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
        (lambda i: Graph.from_sparse(torch.eye(3)), TypeError, "2-d sparse COO, CSR or CSC"),
        (lambda i: Graph.bipartite(i, i, 2, 3), IndexError, r"row must be in 0\.\.1, got 0\.\.2"),
        (lambda i: Graph.from_edges(i[:0], i[:0], None, (-1, 5)), ValueError, r"at least 0, got \(-1, 5\)"),
        (lambda i: Graph(i[:0], i[:0], torch.ones(0), (-1, 5)), ValueError, r"at least 0, got \(-1, 5\)"),
        (lambda i: Graph.bipartite(i[:0], i[:0], 3, -2), ValueError, r"at least 0, got \(3, -2\)"),
        (
            # Ascends only if differences of int32 wrap.
            lambda i: Graph(
                torch.tensor([0, 2**31 - 1, -(2**31), 0], dtype=torch.int32), i[:0].int(), torch.ones(0), (3, 2)
            ),
            IndexError,
            "rowptr must ascend",
        ),
        (lambda i: square(i).block(slice(0, 3, 2), slice(3)), ValueError, "rows must be in steps of 1"),
        (lambda i: square(i).block((0, 3), range(2, 5)), IndexError, r"cols must begin and end in 0\.\.3, got 2 to 5"),
        (lambda i: square(i).block((2, 1), (0, 3)), IndexError, r"rows must begin and end in 0\.\.3, got 2 to 1"),
    ],
)
def test_errors(build, error, message) -> None:
    with pytest.raises(error, match=message):
        build(torch.tensor([0, 1, 2]))
