"""How graphs are built and normalised: against dense arithmetic, scipy, and the published formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from smore_ext import Graph, ops, reference


def dense(graph: Graph) -> torch.Tensor:
    return graph.to_sparse("coo").to_dense()


def checked(graph: Graph) -> Graph:
    """Passes its own checks, as its transpose does, which is one."""
    for g in (graph, graph.t):
        Graph(g.rowptr, g.col, g.weight, g.shape)
    assert torch.equal(dense(graph.t), dense(graph).T)
    return graph


def pairs(seed: int, n_users: int, n_items: int, n_edges: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Some repeat, and the last users and items have none."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(n_users - 2, (n_edges,), generator=g), torch.randint(n_items - 2, (n_edges,), generator=g)


def features(n: int = 30, width: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def power(degree: torch.Tensor, exponent: float) -> torch.Tensor:
    return torch.where(degree > 0, degree.clamp_min(1e-300) ** exponent, torch.zeros_like(degree))


def normalised(a: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """By the formulas, in float64, with degrees by row."""
    degree = a.sum(1) + eps
    if norm == "sym":
        return power(degree, -0.5)[:, None] * a * power(degree, -0.5)
    return power(degree, -1.0)[:, None] * a if norm == "rw" else a


def neighbour_matrix(x: torch.Tensor, k: int, self_loops: bool) -> torch.Tensor:
    """Similarities at the k nearest, zero elsewhere."""
    unit = torch.nn.functional.normalize(x.double())
    similarity = unit @ unit.T
    ranked = similarity if self_loops else similarity.clone().fill_diagonal_(-2)
    index = ranked.topk(k).indices
    return torch.zeros_like(similarity).scatter_(1, index, similarity.gather(1, index))


EACH_NORM = pytest.mark.parametrize("norm", ["sym", "rw", "none"])
EACH_EPS = pytest.mark.parametrize("eps", [0.0, 0.25])


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
    with pytest.raises(ValueError, match="one device, got cpu and meta"):
        Graph.maximum([a, b.to("meta")])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: Graph.knn(x, 3, weight="ones"), 'weight must be "cosine" or "one", got \'ones\''),
        (lambda x: Graph.knn(x, 3, norm="row"), 'norm must be "sym", "rw" or "none", got \'row\''),
        (lambda x: Graph.knn(x, 3, eps=-1e-7), "eps must be at least 0 and finite, got -1e-07"),
        (lambda x: Graph.knn(x, 30, self_loops=False), r"k must be in 1..29 \(the number of other rows\), got 30"),
        (
            lambda x: Graph.bipartite(*pairs(0, 5, 5, 3), 5, 5, norm=None),
            'norm must be "sym", "rw" or "none", got None',
        ),
        (lambda x: Graph.knn(x, 3).normalized(eps=float("nan")), "eps must be at least 0 and finite, got nan"),
        (lambda x: Graph.knn(x, 3).block((0, 3), (0, 9)).normalized(), 'norm "sym" needs a square graph, got 3 x 9'),
        (lambda x: Graph.weighted_sum([], []), "weighted_sum needs at least one graph"),
        (lambda x: Graph.weighted_sum([Graph.knn(x, 3)], [1, 2]), r"one weight a graph \(1\), got shape \(2,\)"),
    ],
)
def test_errors(build, message) -> None:
    with pytest.raises(ValueError, match=message):
        build(features())


@EACH_NORM
@EACH_EPS
@pytest.mark.parametrize("self_loops", [False, True])
def test_bipartite_of_every_kind(norm: str, eps: float, self_loops: bool) -> None:
    users, items = pairs(5, 12, 9, 40)
    a = torch.zeros(21, 21, dtype=torch.float64)
    a[users, items + 12] = 1
    a += a.T.clone() + self_loops * torch.eye(21)
    graph = checked(Graph.bipartite(users, items, 12, 9, norm, self_loops, eps))
    assert graph.weight.dtype == torch.float32
    torch.testing.assert_close(dense(graph).double(), normalised(a, norm, eps), rtol=1e-7, atol=1e-7)
    assert (graph.t is graph) == (norm != "rw") and (graph.scale is not None) == (norm != "rw")
    x = torch.randn(21, 7)
    for layers in (1, 3):
        torch.testing.assert_close(ops.propagate(graph, x, layers), reference.propagate(graph, x, layers))


def test_bipartite_of_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for shape in ((0, 0), (3, 0), (2, 3)):
        assert Graph.bipartite(none, none, *shape).n_edges == 0
        loops = checked(Graph.bipartite(none, none, *shape, norm="rw", self_loops=True))
        assert torch.equal(dense(loops), torch.eye(sum(shape)))


@EACH_NORM
@EACH_EPS
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("weight", ["cosine", "one"])
def test_knn_graph_of_every_kind(norm: str, eps: float, self_loops: bool, weight: str) -> None:
    x = features() + 0.5
    a = neighbour_matrix(x, 5, self_loops)
    a = a if weight == "cosine" else (a != 0).double()
    graph = checked(Graph.knn(x, 5, weight, norm, self_loops, eps))
    assert graph.n_edges == 150 and bool((graph.row == graph.col).any()) == self_loops
    torch.testing.assert_close(dense(graph).double(), normalised(a, norm, eps), rtol=1e-6, atol=1e-7)


@EACH_NORM
def test_knn_graph_with_a_floor(norm: str) -> None:
    x = features()
    for floor in (-0.2, 0.0, 0.4, 0.999, 2.0):
        a = neighbour_matrix(x, 20, True)
        a = torch.where(a >= floor, a, 0.0)
        graph = checked(Graph.knn(x, 20, norm=norm, floor=floor))
        torch.testing.assert_close(dense(graph).double(), normalised(a, norm, 0.0), rtol=1e-6, atol=1e-7)
        assert graph.n_edges == int((a != 0).sum())
        ones = Graph.knn(x, 20, "one", norm, floor=floor)
        assert torch.equal(ones.col, graph.col) and torch.equal(ones.rowptr, graph.rowptr)


def test_a_row_keeps_its_own_edge_among_equal_rows() -> None:
    x = features()
    x[10:25] = x[10]  # 15 equal rows, more than k
    graph = checked(Graph.knn(x, 5))
    own = torch.arange(30)
    assert (dense(graph)[own, own] > 0).all()
    assert (graph.t.rowptr.diff() > 0).all()  # every row is somebody's neighbour: its own
    assert (dense(Graph.knn(x, 5, self_loops=False))[own, own] == 0).all()


def test_zero_rows_have_no_edges_whatever_the_weight() -> None:
    x = features()
    x[[2, 17]] = 0
    for weight in ("cosine", "one"):
        for self_loops in (True, False):
            graph = checked(Graph.knn(x, 29, weight, self_loops=self_loops, eps=1e-7))
            kept = [r for r in range(30) if r not in (2, 17)]
            assert set(graph.row.tolist()) == set(graph.col.tolist()) == set(kept)


def test_published_item_graphs() -> None:
    """FREEDOM: ones, (1e-7 + k)^-1/2 on both sides. LATTICE: similarities, negative ones as none, over row sums."""
    x = features(60, 5, seed=3)
    graph = Graph.knn(x, 10, "one", eps=1e-7)
    torch.testing.assert_close(graph.weight, torch.full_like(graph.weight, 1 / (10 + 1e-7)))
    lattice = Graph.knn(x, 10, floor=0.0)
    adjacency = neighbour_matrix(x, 10, True).clamp_min(0)
    torch.testing.assert_close(dense(lattice).double(), normalised(adjacency, "sym", 0.0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
@EACH_NORM
@EACH_EPS
def test_normalized_against_scipy(seed: int, norm: str, eps: float) -> None:
    g = np.random.default_rng(seed)
    matrix = scipy.sparse.random_array((40, 40), density=0.1, rng=g, dtype=np.float64)
    matrix.data += -0.2 if seed == 2 else 0  # some degrees are negative, some weights too
    degree = matrix.sum(axis=1) + eps
    exponent = {"sym": -0.5, "rw": -1.0, "none": 0.0}[norm]
    factor = np.where(degree > 0, np.abs(np.where(degree > 0, degree, 1)) ** exponent, 0.0)
    left = scipy.sparse.diags_array(factor if norm != "none" else np.ones(40))
    wanted = left @ matrix @ (left if norm == "sym" else scipy.sparse.eye_array(40))
    graph = Graph.from_scipy(matrix)
    ours = checked(graph.normalized(norm, eps))
    assert ours.weight.dtype == torch.float64 and torch.equal(ours.rowptr, graph.rowptr)
    np.testing.assert_allclose(ours.to_scipy().toarray(), wanted.toarray(), rtol=1e-12, atol=1e-14)
    assert (graph.normalized(norm, eps) is graph) == (norm == "none")


@EACH_EPS
def test_normalized_binary_graphs_are_the_built_ones(eps: float) -> None:
    users, items = pairs(6, 20, 15, 90)
    binary = Graph.bipartite(users, items, 20, 15, "none")
    built, ours = Graph.bipartite(users, items, 20, 15, "sym", eps=eps), binary.normalized("sym", eps)
    assert ours.t is ours and torch.equal(ours.weight, built.weight) and torch.equal(ours.col, built.col)
    assert torch.equal(ours.scale, built.scale)
    x = torch.randn(35, 6)
    torch.testing.assert_close(ops.propagate(ours, x, 3), reference.propagate(built, x, 3))
    knn = Graph.knn(features(), 7, norm="none").normalized("sym", eps)
    torch.testing.assert_close(knn.weight, Graph.knn(features(), 7, eps=eps).weight)
    wide = binary.block((0, 20), (20, 35)).normalized("rw", eps)
    torch.testing.assert_close(dense(wide), dense(Graph.bipartite(users, items, 20, 15, "rw", eps=eps))[:20, 20:])


@pytest.mark.parametrize("seed", range(3))
def test_weighted_sum_against_scipy(seed: int) -> None:
    g = np.random.default_rng(seed)
    matrices = [scipy.sparse.random_array((30, 20), density=0.15, rng=g, dtype=np.float64) for _ in range(3)]
    weights = [0.7, -1.5, 0.0]
    wanted = sum(w * m for w, m in zip(weights, matrices, strict=True))
    graphs = [Graph.from_scipy(m) for m in matrices]
    for given in (weights, torch.tensor(weights), torch.tensor(weights, dtype=torch.float64)):
        ours = checked(Graph.weighted_sum(graphs, given))
        tolerance = 1e-7 if isinstance(given, torch.Tensor) and given.dtype == torch.float32 else 1e-14
        np.testing.assert_allclose(ours.to_scipy().toarray(), wanted.toarray(), rtol=tolerance, atol=tolerance)
    union = sum((m != 0).astype(np.int64) for m in matrices)
    assert ours.n_edges == union.nnz and ours.weight.dtype == torch.float64
    single = Graph.weighted_sum([graphs[0].to(torch.float32)], [1])
    assert torch.equal(single.weight, graphs[0].weight.float()) and torch.equal(single.col, graphs[0].col)
    largest = checked(Graph.maximum(graphs))
    assert (largest.to_scipy() != matrices[0].maximum(matrices[1]).maximum(matrices[2])).nnz == 0


def relearned(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, old: Graph) -> Graph:
    """As LATTICE relearns its graph, with both modalities' similarities, their weights, and the graph of before."""
    learned = Graph.weighted_sum([Graph.knn(t, 6, norm="none", floor=0.0) for t in (x, y)], weights.softmax(0))
    return Graph.weighted_sum([learned.normalized("sym"), old], [0.3, 0.7])


def test_gradients_of_a_relearned_graph() -> None:
    x, y, weights = features(40, 7), features(40, 5, seed=2), torch.tensor([0.2, -0.4])
    old, cotangent = Graph.knn(features(40, 9, seed=4), 6), features(40, 40, seed=5)
    with torch.no_grad():
        constant = relearned(x.requires_grad_(), y.requires_grad_(), weights, old)
    leaves = [x, y, weights.requires_grad_()]
    graph = relearned(*leaves, old)
    assert torch.equal(graph.weight, constant.weight) and not constant.weight.requires_grad
    assert torch.equal(graph.t.weight, graph.weight[graph.t.col.new_tensor(transposed_order(graph))])

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    kept = [neighbour_matrix(t.detach(), 6, True) > 0 for t in exact[:2]]
    units = [torch.nn.functional.normalize(t) for t in exact[:2]]
    similar = [torch.where(k, u @ u.T, 0.0) for k, u in zip(kept, units, strict=True)]
    learned = sum(w * s for w, s in zip(exact[2].softmax(0), similar, strict=True))
    matrix = 0.3 * normalised(learned, "sym", 0.0) + 0.7 * dense(old).double()
    torch.testing.assert_close(dense(graph).double(), matrix, rtol=1e-6, atol=1e-7)
    loss = (graph.weight * cotangent[graph.row.long(), graph.col.long()]).sum()
    ours = torch.autograd.grad(loss, leaves)
    wanted = torch.autograd.grad((matrix * cotangent).sum(), exact)
    for got, exactly in zip(ours, wanted, strict=True):
        torch.testing.assert_close(got.double(), exactly, rtol=1e-4, atol=1e-5)


def transposed_order(graph: Graph) -> list[int]:
    return sorted(range(graph.n_edges), key=lambda e: (int(graph.col[e]), int(graph.row[e])))


def test_gradients_are_the_same_for_any_number_of_threads() -> None:
    x, y = features(3000, 16), features(3000, 16, seed=2)
    y[:1500] = y[0]  # a few rows that many name
    old, results = Graph.knn(features(3000, 8, seed=3), 6), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaves = [t.clone().requires_grad_() for t in (x, y, torch.tensor([0.2, -0.4]))]
        weight = relearned(*leaves, old).weight
        incoming = torch.linspace(-1, 1, weight.shape[0])
        results.append([weight, *torch.autograd.grad(weight, leaves, incoming)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradients_where_a_degree_is_not_positive() -> None:
    graph = Graph.from_edges(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 2, 2]), torch.ones(4), (4, 4))
    graph.weight.copy_(torch.tensor([1.0, 2.0, 0.0, -3.0])).requires_grad_()
    for norm in ("sym", "rw"):
        (grad,) = torch.autograd.grad(graph.normalized(norm).weight.sum(), graph.weight)
        assert grad.isfinite().all() and grad[2:].tolist() == [0, 0]


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
