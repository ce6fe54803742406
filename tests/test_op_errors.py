"""Bad input to an op: one error that names the op, what must hold and what came."""

from __future__ import annotations

import pytest
import torch

from smore_ext import Graph, ops
from smore_ext.testing import ERRORS, OpCase, OpError, check_error, on, registered_call

X = torch.arange(24.0).view(4, 6)
WEIGHT = torch.ones(3)
GRAPH = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_message_names_what_was_expected_and_what_came(error: OpError, device: torch.device) -> None:
    check_error(error, ops, device)


def test_an_error_that_does_not_come_or_says_something_else_is_found() -> None:
    with pytest.raises(AssertionError, match="spmm-none: must raise ValueError, and passed"):
        check_error(OpError("spmm", "none", lambda: [GRAPH, X], ValueError, ""), ops)
    with pytest.raises(AssertionError, match="spmm-other: the message must match 'nothing', got: .*got 3"):
        check_error(OpError("spmm", "other", lambda: [GRAPH, X[:3]], ValueError, "nothing"), ops)


def test_graphs_hold_no_bfloat16() -> None:
    with pytest.raises(TypeError, match="weights of a graph must be float32 or float64"):
        GRAPH.to(torch.bfloat16)


# What the public functions cannot ask for: the registered ops check it all the same.


def raw(op: str, args: list, device: torch.device) -> tuple:
    """The registered op, and its arguments for these of the public function."""
    return registered_call(OpCase(op, "raw", lambda *_: args), ops, on(device, args))


def test_raw_spmm_refuses_mixed_indices(device: torch.device) -> None:
    op, (rowptr, col, *others), _ = raw("spmm", [GRAPH, X, X], device)
    with pytest.raises(TypeError, match=r"spmm: t_rowptr must have the dtype of rowptr \(Long\), got Int"):
        op(rowptr.long(), col.long(), *others)


def test_raw_propagate_refuses_a_wrong_scale(device: torch.device) -> None:
    op, (*others, _), _ = raw("propagate", [GRAPH, X, 2], device)
    with pytest.raises(ValueError, match=r"propagate: scale must have shape \[4\], got \[3\]"):
        op(*others, X[:3, 0].to(device))


def test_raw_propagate_refuses_a_scale_of_weights_that_are_given(device: torch.device) -> None:
    op, (*others, _, order, t_order), _ = raw("propagate", [GRAPH, X, 2, "mean", None, WEIGHT], device)
    with pytest.raises(ValueError, match="propagate: scale is of constant weights, which come with t_weight, got none"):
        op(*others, X[:, 0].to(device), order, t_order)


def test_raw_spmm_takes_its_weights_in_one_way(device: torch.device) -> None:
    op, (rowptr, col, weight, t_rowptr, t_col, t_weight, x, _), _ = raw("spmm", [GRAPH, X], device)
    graph, order = (rowptr, col, weight, t_rowptr, t_col), GRAPH.to(device).t_order
    plain = op(*graph, t_weight, x)
    assert torch.equal(op(*graph, None, x, None, None, order), plain)
    with pytest.raises(ValueError, match="spmm: one of t_weight, order and t_order must be given, got 2"):
        op(*graph, t_weight, x, None, None, order)
    with pytest.raises(ValueError, match="spmm: one of t_weight, order and t_order must be given, got 0"):
        op(*graph, None, x)
    with pytest.raises(ValueError, match="spmm: weight is a constant .* must not require grad: give t_order instead"):
        op(rowptr, col, weight.clone().requires_grad_(), t_rowptr, t_col, t_weight, x)
    with pytest.raises(ValueError, match=r"spmm: order must have shape \[3\], got \[2\]"):
        op(*graph, None, x, None, order[:2])
    with pytest.raises(TypeError, match=r"spmm: t_order must have the dtype of rowptr \(Int\), got Long"):
        op(*graph, None, x, None, None, order.long())
    with pytest.raises(IndexError, match=r"spmm: rowptr must not decrease and every entry of order must be in 0\.\.2"):
        op(*graph, None, x, None, order + 1)


def test_raw_edge_ops_refuse_indices_out_of_range(device: torch.device) -> None:
    op, (rowptr, col, *others), _ = raw("edge_dot", [GRAPH, X, X], device)
    with pytest.raises(IndexError, match=r"edge_dot: rowptr must not decrease and every col must be in 0\.\.3"):
        op(rowptr, col + 2, *others)
    softmax, (rowptr, col, logits), _ = raw("edge_softmax", [GRAPH, WEIGHT], device)
    with pytest.raises(IndexError, match=r"edge_softmax: rowptr must run from 0 .* \(3\), got 1 to 4"):
        softmax(rowptr + 1, col, logits)
    with pytest.raises(IndexError, match="edge_softmax: rowptr must not decrease, got an entry that does"):
        softmax(torch.tensor([0, 2, 1, 3], dtype=torch.int32, device=device), col, logits)


def test_graphs_refuse_other_weights_and_edges_than_theirs() -> None:
    for weight, error, message in (
        (X[0], ValueError, r"with_weight: weight must have shape \(3,\), got \(6,\)"),
        (WEIGHT.half(), TypeError, "with_weight: weight must be float32 or float64, got torch.float16"),
        (WEIGHT.to("meta"), ValueError, "with_weight: weight must be on the graph's device, cpu, got meta"),
    ):
        with pytest.raises(error, match=message):
            GRAPH.with_weight(weight)
    for keep, error, message in (
        (X[0] > 0, ValueError, r"drop_edges: keep must have shape \(3,\), got \(6,\)"),
        (WEIGHT, TypeError, "drop_edges: keep must be a 1-d bool mask or int64 list of edges, got torch.float32"),
        (torch.tensor([2, 3]), IndexError, r"drop_edges: keep must be in 0\.\.2, got 2\.\.3"),
        ((WEIGHT > 0).to("meta"), ValueError, "drop_edges: keep must be on the graph's device, cpu, got meta"),
    ):
        with pytest.raises(error, match=message):
            GRAPH.drop_edges(keep)


def test_raw_topk_refuses_unsorted_rows(device: torch.device) -> None:
    x, rowptr, col = on(device, [X, torch.tensor([0, 1, 1, 1, 1]), torch.tensor([7])])
    with pytest.raises(IndexError, match="seen_col must ascend strictly within 0..3 in each row, got 7"):
        torch.ops.smore_ext.masked_topk(x, x, 2, rowptr, col)


def test_raw_spmm_refuses_indices_out_of_range(device: torch.device) -> None:
    rowptr, weight, x = on(device, [torch.tensor([0, 1, 1]), torch.ones(1), torch.ones(2, 3)])
    for col in (2, -1):
        bad = torch.tensor([col], device=device)
        with pytest.raises(IndexError, match="every col must be in 0..1"):
            torch.ops.smore_ext.spmm(rowptr, bad, weight, rowptr, bad, weight, x)
    falling = torch.tensor([0, 2, 1], device=device)
    with pytest.raises(IndexError, match="rowptr must"):
        torch.ops.smore_ext.spmm(falling, bad, weight, falling, bad, weight, x)


@pytest.mark.parametrize("wrong", [None, [1.0], "x", X.numpy()], ids=lambda value: type(value).__name__)
def test_what_is_no_tensor_is_a_type_error_of_the_op(wrong: object) -> None:
    for op, call in {
        "spmm": lambda: ops.spmm(GRAPH, wrong),
        "propagate": lambda: ops.propagate(GRAPH, wrong, 2),
        "poly_filter": lambda: ops.poly_filter(GRAPH, wrong, [1.0]),
        "masked_topk": lambda: ops.masked_topk(wrong, X, 2, GRAPH),
    }.items():
        with pytest.raises(TypeError, match=rf"{op}: (x|users) must be a torch.Tensor, got .*{type(wrong).__name__}"):
            call()
    for call in (lambda: ops.knn(wrong, 2), lambda: ops.info_nce(X, wrong, 0.2), lambda: ops.masked_topk(X, wrong, 2)):
        with pytest.raises((TypeError, RuntimeError), match="smore_ext::"):
            call()
