"""gather_rows beyond the op table: which tables learn, and what holds several of them."""

from __future__ import annotations

import torch
from torch import nn

from smore_ext import ops

INDEX = torch.tensor([2, 0, 2, 1])


def test_tables_that_learn_nothing_get_no_gradient(device: torch.device) -> None:
    learned, fixed = torch.randn(4, 3, device=device, requires_grad=True), torch.randn(4, 5, device=device)
    a, b, c = ops.gather_rows([learned, fixed, learned], INDEX.to(device))
    assert a.requires_grad and not b.requires_grad and c.requires_grad
    assert torch.equal(b, fixed[INDEX.to(device)]) and torch.equal(a, c)
    a.sum().backward()  # c is not used
    wanted = torch.tensor([1.0, 1.0, 2.0, 0.0], device=device)[:, None].expand(4, 3)
    assert torch.equal(learned.grad, wanted)


def test_bfloat16_gradients_are_summed_in_float32(device: torch.device) -> None:
    """257 times one is 257 in float32 and 256 in bfloat16, which then rounds."""
    table = torch.zeros(3, 2, device=device, dtype=torch.bfloat16, requires_grad=True)
    index = torch.ones(600, dtype=torch.int64, device=device)
    ops.gather_rows(table, index).sum().backward()
    assert table.grad.dtype == torch.bfloat16 and table.grad[1].tolist() == [600.0, 600.0]


def test_any_sequence_of_tensors_will_do() -> None:
    tables = nn.ParameterList([torch.randn(3, 2), torch.randn(3, 4)])
    rows = ops.gather_rows(tables, INDEX)
    assert isinstance(rows, tuple) and [row.shape for row in rows] == [(4, 2), (4, 4)]
    filters = nn.ParameterList([torch.randn(2, 2) for _ in tables])
    x = torch.randn(5, 2)
    outputs, fused = ops.spectrum_fusion([x, x], filters, torch.randn(2, 2))
    assert len(outputs) == 2 and fused.shape == x.shape


def test_rows_of_no_width_need_no_memory() -> None:
    """Found by the fuzzer: lists of 2^62 rows were asked for."""
    (grad,) = torch.ops.smore_ext.gather_rows_backward([torch.zeros(4, 0)], INDEX, 2**62)
    assert grad.shape == (2**62, 0)
