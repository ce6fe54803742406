"""Graphs as the registered ops get them: whatever their indices hold, an error or a right result comes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from smore_ext import Graph, ops

LARGEST = {torch.int32: 2**31 - 1, torch.int64: 2**63 - 1}
raw = torch.ops.smore_ext

# (rowptr, col, t_rowptr, t_col, the graph's values, x) -> the op; only rowptr is wrong.
OPS: dict[str, Callable[..., object]] = {
    "spmm": lambda r, c, tr, tc, w, x: raw.spmm(r, c, w, tr, tc, w, x),
    "spmm-order": lambda r, c, tr, tc, w, x: raw.spmm(r, c, w, tr, tc, None, x, None, None, c),
    "propagate-0": lambda r, c, tr, tc, w, x: raw.propagate(r, c, w, tr, tc, w, x, 0),
    "propagate-0-gated": lambda r, c, tr, tc, w, x: raw.propagate(r, c, w, tr, tc, w, x, 0, True, x),
    "propagate-0-learned": lambda r, c, tr, tc, w, x: raw.propagate(
        r, c, w.clone().requires_grad_(), tr, tc, None, x, 0, True, None, None, None, c
    ),
    "propagate-2": lambda r, c, tr, tc, w, x: raw.propagate(r, c, w, tr, tc, w, x, 2),
    "poly_filter-0": lambda r, c, tr, tc, w, x: raw.poly_filter(r, c, w, tr, tc, w, x, x[0, :1]),
    "poly_filter-0-learned": lambda r, c, tr, tc, w, x: raw.poly_filter(
        r, c, w.clone().requires_grad_(), tr, tc, None, x, x[0, :1], None, None, c
    ),
    "poly_filter-2": lambda r, c, tr, tc, w, x: raw.poly_filter(r, c, w, tr, tc, w, x, x[0, :3]),
    "gated_product_backward-0": lambda r, c, tr, tc, w, x: raw.gated_product_backward(
        tr, tc, w, r, c, w, x, x, x, 0, True
    ),
    "edge_dot": lambda r, c, tr, tc, w, x: raw.edge_dot(r, c, tr, tc, c, x, x),
    "edge_softmax": lambda r, c, tr, tc, w, x: raw.edge_softmax(r, c, w),
    "masked_topk": lambda r, c, tr, tc, w, x: raw.masked_topk(x, x, 2, r, c),
    "sample_negatives": lambda r, c, tr, tc, w, x: raw.sample_negatives(c.long(), r, c, c.long(), 1),
}


def wrong_pointers(n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of n rows with one edge each, right at both ends."""
    right = torch.arange(n + 1, dtype=dtype)

    def with_entry(at: int, value: int) -> Tensor:
        return right.index_fill(0, torch.tensor([at]), value)

    return {
        "negative": with_entry(n // 2, -10),
        "least": with_entry(n // 2, -LARGEST[dtype] - 1),
        "largest": with_entry(n // 2, LARGEST[dtype]),
        "largest-everywhere": torch.cat([right[:1], torch.full_like(right[1:-1], LARGEST[dtype]), right[-1:]]),
        "least-everywhere": torch.cat([right[:1], torch.full_like(right[1:-1], -LARGEST[dtype] - 1), right[-1:]]),
        "falling": torch.cat([right[:1], right[1:-1].flip(0), right[-1:]]),
        "second": with_entry(1, n),
        "last": with_entry(n - 1, 0),
    }


@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize("n", [4, 3001])
@pytest.mark.parametrize("op", OPS)
def test_row_pointers_wrong_in_the_middle_are_refused(
    op: str, n: int, dtype: torch.dtype, device: torch.device
) -> None:
    col = torch.arange(n, dtype=dtype, device=device)
    right = torch.arange(n + 1, dtype=dtype, device=device)
    weight, x = torch.ones(n, device=device), torch.rand(n, 16, device=device)
    threads = torch.get_num_threads()
    for name, rowptr in wrong_pointers(n, dtype).items():
        for count in (1, 3):
            torch.set_num_threads(count)
            try:
                with pytest.raises(IndexError, match="rowptr must"):
                    OPS[op](rowptr.to(device), col, right, col, weight, x)
                    pytest.fail(f"{name}, {count} threads: passed")
            finally:
                torch.set_num_threads(threads)


@pytest.mark.parametrize("op", [name for name in OPS if "0" in name])
def test_no_layers_refuse_columns_out_of_range(op: str, device: torch.device) -> None:
    rowptr, weight, x = torch.arange(5, device=device), torch.ones(4, device=device), torch.rand(4, 3, device=device)
    right, wrong = torch.arange(4, device=device), torch.tensor([0, 1, 2, 4], device=device)
    OPS[op](rowptr, right, rowptr, right, weight, x)
    with pytest.raises(IndexError, match=r"must be in 0\.\.3"):
        OPS[op](rowptr, wrong, rowptr, right, weight, x)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_no_layers_send_gradients_past_the_graph(learned: bool, gated: bool, device: torch.device) -> None:
    graph = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([1, 1]), None, (3, 3)).to(device)
    x = torch.rand(3, 4, device=device, dtype=torch.float64, requires_grad=True)
    gate = torch.rand(3, 4, device=device, dtype=torch.float64, requires_grad=True) if gated else None
    weight = torch.rand(2, device=device, dtype=torch.float64, requires_grad=True) if learned else None
    coefficients = torch.rand(1, device=device, dtype=torch.float64, requires_grad=True)
    y = ops.propagate(graph, x, 0, gate=gate, weight=weight)
    assert torch.equal(y, x * gate if gate is not None else x) and y.data_ptr() != x.data_ptr()
    assert torch.autograd.gradcheck(lambda x: ops.propagate(graph, x, 0, gate=gate, weight=weight), x)
    assert torch.autograd.gradgradcheck(lambda x, c: ops.poly_filter(graph, x, c, weight), (x, coefficients))
    if weight is not None:
        assert torch.autograd.grad(y.sum(), weight, allow_unused=True)[0] is None


def test_a_scale_that_is_written_to_before_backward_is_an_error(device: torch.device) -> None:
    graph = Graph.bipartite(torch.tensor([0, 1]), torch.tensor([0, 1]), 2, 2).to(device)
    x = torch.rand(4, 3, device=device, requires_grad=True)
    assert graph.scale is not None
    for run in (lambda: ops.propagate(graph, x, 2), lambda: ops.poly_filter(graph, x, [1.0, 2.0, 3.0])):
        total = run().sum()
        graph.scale.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            total.backward()
