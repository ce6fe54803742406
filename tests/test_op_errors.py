"""Bad input to an op: one error that names the op, what must hold and what came."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from smore_ext import Graph, ops
from smore_ext.ops.sparse import _parts

X = torch.randn(4, 6)
FILTER = torch.randn(4, 2)
GRAPH = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))
IDS = torch.tensor([0, 1])


def adam(param=None, rows=None, factor=None, step=1.0, lr=0.1):
    param = torch.zeros(4, 6) if param is None else param
    moments = torch.zeros(param.shape), torch.zeros(param.shape)
    rows, factor = torch.ones(4, 2) if rows is None else rows, torch.ones(2, 6) if factor is None else factor
    return ops.factored_adam_(param, *moments, rows, factor, torch.tensor(step), lr)


ERRORS = {
    "table-weight": (
        lambda: ops.table_linear(X, X[:, :5], X[:, 0]),
        ValueError,
        r"weight must have shape \[4, 6\], got \[4, 5\]",
    ),
    "table-bias": (lambda: ops.table_linear(X, X, X[0]), ValueError, r"bias must have shape \[4\], got \[6\]"),
    "table-none": (lambda: ops.table_linear(X, X[:0], X[:0, 0]), ValueError, "weight must have at least 1 row"),
    "table-mixed": (lambda: ops.table_linear(X, X.double(), X[:, 0]), TypeError, "weight must have the dtype of table"),
    "adam-layout": (lambda: adam(X.T.contiguous().T), ValueError, "param must be contiguous .*, got strides"),
    "adam-dtype": (lambda: adam(X.half()), TypeError, "param must be float32 or float64, got Half"),
    "adam-rows": (lambda: adam(rows=X[:3]), ValueError, r"grad_rows must have shape \[4, 6\], got \[3, 6\]"),
    "adam-factor": (lambda: adam(factor=X), ValueError, r"factor must have shape \[2, 6\], got \[4, 6\]"),
    "adam-mixed": (lambda: adam(factor=torch.ones(2, 6).double()), TypeError, r"factor must have the dtype of param"),
    "adam-step": (lambda: adam(step=0.0), ValueError, "step must be at least 1, got 0"),
    "adam-lr": (lambda: adam(lr=float("nan")), ValueError, "lr must be at least 0 and finite, got nan"),
    "adam-lr-tensor": (lambda: adam(lr=torch.tensor(-1.0)), ValueError, "lr must be at least 0 and finite, got -1"),
    "adam-lr-shape": (lambda: adam(lr=torch.ones(2)), ValueError, r"lr must have one element, got shape \[2\]"),
    "filter-dtype": (
        lambda: ops.spectral_filter(X.half(), FILTER),
        TypeError,
        "x must be float32 or float64, got Half",
    ),
    "filter-mixed": (
        lambda: ops.spectral_filter(X, FILTER.double()),
        TypeError,
        r"weight must have the dtype of x \(Float\)",
    ),
    "filter-shape": (
        lambda: ops.spectral_filter(X, FILTER[:3]),
        ValueError,
        r"weight must have shape \[4, 2\], got \[3, 2\]",
    ),
    "filter-dim": (lambda: ops.spectral_filter(X[0], FILTER), ValueError, "x must have 2 dimensions, got shape"),
    "filter-columns": (lambda: ops.spectral_filter(X[:, :0], FILTER[:1]), ValueError, "at least 1 column"),
    "fusion-none": (
        lambda: ops.spectrum_fusion([], [], FILTER),
        ValueError,
        "xs must hold at least one tensor, got none",
    ),
    "fusion-count": (
        lambda: ops.spectrum_fusion([X, X], [FILTER], FILTER),
        ValueError,
        r"one filter per tensor of xs \(2\), got 1",
    ),
    "fusion-shape": (
        lambda: ops.spectrum_fusion([X, X[:3]], [FILTER, FILTER], FILTER),
        ValueError,
        r"xs\[1\] must have shape \[4, 6\], got \[3, 6\]",
    ),
    "spmm-rows": (lambda: ops.spmm(GRAPH, X[:3]), ValueError, r"one row per column of the graph \(4\), got 3"),
    "spmm-dtype": (lambda: ops.spmm(GRAPH, X.long()), TypeError, "x must be float32, float64 or bfloat16, got Long"),
    "spmm-half": (lambda: ops.spmm(GRAPH, X.half()), TypeError, "x must be float32, float64 or bfloat16, got Half"),
    "spmm-gate": (lambda: ops.spmm(GRAPH, X, X[:3]), ValueError, r"gate must have shape \[4, 6\], got \[3, 6\]"),
    "spmm-gate-dtype": (
        lambda: ops.spmm(GRAPH, X, X.double()),
        TypeError,
        r"gate must have the dtype of x \(Float\), got Double",
    ),
    "spmm-index-types": (
        lambda: torch.ops.smore_ext.spmm(
            *(t.long() if i < 2 else t for i, t in enumerate(_parts(GRAPH, X))), X, torch.ones_like(X)
        ),
        TypeError,
        r"spmm: t_rowptr must have the dtype of rowptr \(Long\), got Int",
    ),
    "graph-bfloat16": (lambda: GRAPH.to(torch.bfloat16), TypeError, "weights of a graph must be float32 or float64"),
    "propagate-scale": (
        lambda: torch.ops.smore_ext.propagate(*_parts(GRAPH, X), X, 2, True, None, X[:3, 0]),
        ValueError,
        r"propagate: scale must have shape \[4\], got \[3\]",
    ),
    "propagate-gate": (
        lambda: ops.propagate(GRAPH, X, 2, gate=X[:, :3]),
        ValueError,
        r"propagate: gate must have shape \[4, 6\], got \[4, 3\]",
    ),
    "spmm-graph": (lambda: ops.spmm("graph", X), TypeError, "expected a Graph or a torch sparse tensor, got str"),
    "spmm-dense": (lambda: ops.spmm(X, X), TypeError, "expected a 2-d sparse COO or CSR tensor"),
    "propagate-layers": (lambda: ops.propagate(GRAPH, X, -1), ValueError, "n_layers must be at least 0, got -1"),
    "propagate-reduce": (lambda: ops.propagate(GRAPH, X, 1, "sum"), ValueError, "reduce must be"),
    "propagate-square": (
        lambda: ops.propagate(Graph.from_edges(IDS, IDS, None, (2, 4)), X, 1),
        ValueError,
        "the graph must be square, got 2 rows and 4 columns",
    ),
    "knn-k": (lambda: ops.knn(X, 5), ValueError, r"k must be in 1..4 \(the number of rows\), got 5"),
    "knn-zero": (lambda: ops.knn(X, 0), ValueError, "k must be in 1..4"),
    "knn-nan": (lambda: ops.knn(torch.tensor([[1.0], [float("nan")]]), 1), ValueError, "squared norm of row 1"),
    "knn-inf": (lambda: ops.knn(torch.tensor([[float("inf")], [1.0]]), 1), ValueError, "squared norm of row 0"),
    "knn-dtype": (lambda: ops.knn(X.long(), 1), TypeError, "features must be float32 or float64, got Long"),
    "knn-others": (lambda: ops.knn(X, 4, exclude_self=True), ValueError, r"1..3 \(the number of other rows\), got 4"),
    "knn-base-k": (
        lambda: ops.knn(X, X[:3], 4),
        ValueError,
        r"k must be in 1..3 \(the number of rows of base\), got 4",
    ),
    "knn-base-none": (lambda: ops.knn(X[:0], X[:0], 1), ValueError, r"k must be in 1..0 \(the number of rows of base"),
    "knn-base-width": (
        lambda: ops.knn(X, X[:, :5], 1),
        ValueError,
        r"base must have the width of features \(6\), got 5",
    ),
    "knn-base-dtype": (
        lambda: ops.knn(X, X.double(), 1),
        TypeError,
        r"base must have the dtype of features \(Float\), got Double",
    ),
    "knn-base-self": (lambda: ops.knn(X, 1, X, True), ValueError, "exclude_self must be false where a base is given"),
    "knn-base-nan": (
        lambda: ops.knn(torch.ones(1, 1), torch.tensor([[1.0], [float("nan")]]), 1),
        ValueError,
        "base must be finite .* squared norm of row 1",
    ),
    "cosine-id": (
        lambda: ops.cosine_at(X, torch.tensor([[0], [1], [2], [4]])),
        IndexError,
        "cosine_at: index must be in 0..3, got 4 at position 3",
    ),
    "cosine-negative": (
        lambda: ops.cosine_at(X[:1], torch.tensor([[0, -1]])),
        IndexError,
        "index must be in 0..0, got -1 at position 1",
    ),
    "cosine-base-id": (
        lambda: ops.cosine_at(X, torch.full((4, 1), 3), X[:2]),
        IndexError,
        "index must be in 0..1, got 3 at position 0",
    ),
    "cosine-rows": (
        lambda: ops.cosine_at(X, IDS[:, None]),
        ValueError,
        r"index must have one row per row of features \(4\), got 2",
    ),
    "cosine-dim": (lambda: ops.cosine_at(X[:2], IDS), ValueError, "index must have 2 dimensions, got shape"),
    "cosine-int": (lambda: ops.cosine_at(X[:2], IDS[:, None].int()), TypeError, "index must be int64, got Int"),
    "cosine-half": (
        lambda: ops.cosine_at(X[:2].half(), IDS[:, None]),
        TypeError,
        "features must be float32 or float64",
    ),
    "cosine-width": (
        lambda: ops.cosine_at(X[:2], IDS[:, None], X[:, :5]),
        ValueError,
        r"base must have the width of features \(6\), got 5",
    ),
    "cosine-backward": (
        lambda: torch.ops.smore_ext.cosine_at_backward(X, X, torch.zeros(4, 6).long(), None, X.double()),
        TypeError,
        "cosine_at_backward: similarity must have the dtype of features",
    ),
    "topk-k": (lambda: ops.masked_topk(X, X, 5), ValueError, r"k must be in 1..4 \(the number of items\), got 5"),
    "topk-width": (lambda: ops.masked_topk(X, X[:, :5], 2), ValueError, "same width, got 6 and 5"),
    "topk-seen": (
        lambda: ops.masked_topk(X[:3], X, 2, GRAPH),
        ValueError,
        r"seen must have shape \(3, 4\) \(users x items\), got \(4, 4\)",
    ),
    "topk-raw": (
        lambda: torch.ops.smore_ext.masked_topk(X, X, 2, torch.tensor([0, 1, 1, 1, 1]), torch.tensor([7])),
        IndexError,
        "seen_col must ascend strictly within 0..3 in each row, got 7",
    ),
    "sample-user": (
        lambda: ops.sample_negatives(torch.tensor([0, 4]), GRAPH, torch.arange(4), 1),
        IndexError,
        "users must be in 0..3, got 4 at position 1",
    ),
    "sample-full": (
        lambda: ops.sample_negatives(torch.tensor([2, 0]), GRAPH, torch.tensor([1]), 1),
        ValueError,
        "got user 0 who has seen all 1",
    ),
    "sample-none": (
        lambda: ops.sample_negatives(IDS, GRAPH, IDS[:0], 1),
        ValueError,
        "candidates must hold between 1 and",
    ),
    "sample-order": (
        lambda: ops.sample_negatives(IDS, GRAPH, IDS.flip(0), 1),
        IndexError,
        "ascend strictly, got 0 at position 1",
    ),
    "sample-seed": (lambda: ops.sample_negatives(IDS, GRAPH, IDS, -1), ValueError, "seed must be at least 0, got -1"),
    "sample-dtype": (lambda: ops.sample_negatives(IDS.int(), GRAPH, IDS, 1), TypeError, "users must be int64, got Int"),
    "bpr-id": (
        lambda: ops.bpr_loss(X, X, IDS, IDS, IDS + 3),
        IndexError,
        "negatives must be in 0..3, got 4 at position 1",
    ),
    "bpr-dtype": (lambda: ops.bpr_loss(X, X, IDS.int(), IDS, IDS), TypeError, "users must be int64, got Int"),
    "bpr-length": (
        lambda: ops.bpr_loss(X, X, IDS, IDS[:1], IDS),
        ValueError,
        r"positives must have shape \[2\], got \[1\]",
    ),
    "bpr-width": (lambda: ops.bpr_loss(X, X[:, :5], IDS, IDS, IDS), ValueError, "same width, got 6 and 5"),
    "nce-temperature": (lambda: ops.info_nce(X, X, 0.0), ValueError, "temperature must be greater than 0, got 0"),
    "nce-shape": (lambda: ops.info_nce(X, X[:3], 0.2), ValueError, r"y must have shape \[4, 6\], got \[3, 6\]"),
    "nce-dtype": (
        lambda: ops.info_nce(X, X.double(), 0.2),
        TypeError,
        r"y must have the dtype of x \(Float\), got Double",
    ),
}


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> Iterator[None]:
    """The inputs above, and tensors made in the calls, on the device under test."""
    for name in ("X", "FILTER", "GRAPH", "IDS"):
        monkeypatch.setitem(globals(), name, globals()[name].to(device))
    with device:
        yield


@pytest.mark.parametrize("name", ERRORS)
def test_message_names_what_was_expected_and_what_came(name: str) -> None:
    call, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        call()


def test_raw_spmm_refuses_indices_out_of_range() -> None:
    rowptr, weight = torch.tensor([0, 1, 1]), torch.ones(1)
    for col in (2, -1):
        bad = torch.tensor([col])
        with pytest.raises(IndexError, match="every col must be in 0..1"):
            torch.ops.smore_ext.spmm(rowptr, bad, weight, rowptr, bad, weight, torch.ones(2, 3))
    falling = torch.tensor([0, 2, 1])
    with pytest.raises(IndexError, match="rowptr must"):
        torch.ops.smore_ext.spmm(falling, bad, weight, falling, bad, weight, torch.ones(2, 3))


def test_weights_that_require_grad_are_refused() -> None:
    sparse = torch.eye(4).to_sparse_coo().requires_grad_()
    with pytest.raises(ValueError, match="constants"):
        ops.spmm(sparse, X)
