"""Bad input to an op: one error that names the op, what must hold and what came."""

from __future__ import annotations

import pytest
import torch

from smore_ext import Graph, ops
from smore_ext.testing import ERRORS, OpCase, OpError, check_error, on, registered_call

X = torch.arange(24.0).view(4, 6)
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
