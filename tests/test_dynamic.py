"""torch.compile(dynamic=True) makes one graph for any number of rows, and export takes a dynamic batch: every op."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn

from smore_ext import Graph, ops
from smore_ext.testing import OpCase, differentiable_tensors, flatten, map_tensors, on, registered_call
from smore_ext.testing.cases import (
    adam_case,
    bpr_case,
    cosine_case,
    dropout_case,
    edge_dot_case,
    edge_softmax_case,
    filter_case,
    fusion_case,
    gather_case,
    knn_case,
    nce_case,
    poly_case,
    preference_case,
    propagate_case,
    row_logsumexp_case,
    sample_case,
    spmm_case,
    table_case,
    topk_case,
)

SIZES = (12, 17, 23, 31, 40)

# An op on n rows, users or nodes, for any n.
RESIZED: dict[str, Callable[[int], OpCase]] = {
    "bpr_loss": lambda n: bpr_case(n, n + 3, 8, n + 5),
    "cosine_at": lambda n: cosine_case(n, 8, 5),
    "dropout": lambda n: dropout_case(n, 8),
    "edge_dot": lambda n: edge_dot_case(n, n + 5, 6 * n, 8),
    "edge_softmax": lambda n: edge_softmax_case(n, n + 5, 6 * n),
    "factored_adam_": lambda n: adam_case(n, 8, 4, 3),
    "gather_rows": lambda n: gather_case(n, n + 3, 8, 5),
    "info_nce": lambda n: nce_case(n, 8, 0.2),
    "knn": lambda n: knn_case(n, 8, 5),
    "masked_topk": lambda n: topk_case(n, n + 5, 8, 4, 3 * n),
    "modality_preference": lambda n: preference_case(n, 2, 8, p=0.1),
    "poly_filter": lambda n: poly_case(n, 6 * n, 8, 3),
    "propagate": lambda n: propagate_case(n, 6 * n, 8, 2, "mean"),
    "row_logsumexp": lambda n: row_logsumexp_case(n, n + 7, 8),
    "sample_negatives": lambda n: sample_case(n, 3 * n, 4 * n, n + 2),
    "spectral_filter": lambda n: filter_case(n, 8),
    "spectrum_fusion": lambda n: fusion_case(2, n, 8),
    "spmm": lambda n: spmm_case(n, n + 5, 6 * n, 8),
    "table_linear": lambda n: table_case(n, 8, 4),
}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_every_op_is_here() -> None:
    assert sorted(RESIZED) == sorted(ops.__all__)


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@torch._dynamo.config.patch(specialize_float=True)  # else torch first tries whether a temperature may be a symbol
@pytest.mark.parametrize("op", RESIZED)
def test_one_graph_serves_any_number_of_rows(op: str, device: torch.device) -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    overload, in_place = None, RESIZED[op](SIZES[0]).in_place

    def call(*args: object) -> tuple[Tensor, ...]:
        written = [t.clone() for t in args[:in_place]]
        outputs = overload(*written, *args[in_place:])
        return tuple(written) if outputs is None else flatten(outputs)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    for n in SIZES:
        case = RESIZED[op](n)
        args = on(device, case.make(torch.float32, seeded()))
        if case.differentiable:
            args = map_tensors(args, lambda t: t.requires_grad_())
        overload, given, named = registered_call(case, ops, args)
        given = [*given, *named.values()]
        assert same(compiled(*given), call(*given)), n
        if case.differentiable:
            tensors = differentiable_tensors(case, args)
            outputs = [o.sum() for o in compiled(*given) if o.requires_grad]
            plain = [o.sum() for o in call(*given) if o.requires_grad]
            assert same(torch.autograd.grad(outputs, tensors), torch.autograd.grad(plain, tensors)), n
    assert counter.frame_count == 1


class OnGraph(nn.Module):
    """An op on a graph of its own, as a model has it, for any width or batch."""

    def __init__(self, call: Callable[..., object]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return flatten(self.call(*tensors))


GRAPH = Graph.from_edges(torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), None, (4, 4))
ITEMS = torch.randn(9, 8)
FILTER = torch.randn(5, 2)


def ids(n: int) -> Tensor:
    return torch.arange(n) % 4


# What is called, and the tensors that it takes for a batch of n.
EXPORTED: dict[str, tuple[Callable[..., object], Callable[[int], tuple[Tensor, ...]]]] = {
    "bpr_loss": (lambda u, p, n: ops.bpr_loss(ITEMS, ITEMS, u, p, n), lambda n: (ids(n), ids(n), ids(n))),
    "cosine_at": (lambda x, i: ops.cosine_at(x, i, ITEMS), lambda n: (torch.randn(n, 8), ids(n)[:, None])),
    "dropout": (lambda x: ops.dropout(x, 0.5, 1, 2), lambda n: (torch.randn(n, 8),)),
    "edge_dot": (lambda u, v: ops.edge_dot(GRAPH, u, v), lambda n: (torch.randn(4, n), torch.randn(4, n))),
    "edge_softmax": (lambda e, x: (ops.edge_softmax(GRAPH, e), x + 1), lambda n: (torch.randn(3), torch.randn(n))),
    "info_nce": (lambda x, y: ops.info_nce(x, y, 0.2), lambda n: (torch.randn(n, 8), torch.randn(n, 8))),
    "knn": (lambda x: ops.knn(x, 3), lambda n: (torch.randn(n, 8),)),
    "masked_topk": (lambda x: ops.masked_topk(x, ITEMS, 3), lambda n: (torch.randn(n, 8),)),
    "poly_filter": (lambda x: ops.poly_filter(GRAPH, x, [1.0, 0.5]), lambda n: (torch.randn(4, n),)),
    "propagate": (lambda x: ops.propagate(GRAPH, x, 2), lambda n: (torch.randn(4, n),)),
    "info_nce with counts": (
        lambda x, y, c: ops.info_nce(x, y, 0.2, counts=c),
        lambda n: (torch.randn(n, 8), torch.randn(n, 8), torch.randint(1, 4, (n,))),
    ),
    "info_nce with keys": (lambda x: ops.info_nce(x, 2 * x, 0.2, ITEMS, "none"), lambda n: (torch.randn(n, 8),)),
    "row_logsumexp": (lambda x: ops.row_logsumexp(x, ITEMS), lambda n: (torch.randn(n, 8),)),
    "sample_negatives": (lambda u: ops.sample_negatives(u, GRAPH, torch.arange(4), 1), lambda n: (ids(n),)),
    "spectral_filter": (lambda x: ops.spectral_filter(x, FILTER), lambda n: (torch.randn(n, 8),)),
    "spectrum_fusion": (lambda x, y: ops.spectrum_fusion([x, y], [], FILTER), lambda n: (torch.randn(n, 8),) * 2),
    "spmm": (lambda x: ops.spmm(GRAPH, x), lambda n: (torch.randn(4, n),)),
    "table_linear": (lambda x: ops.table_linear(x, ITEMS, ITEMS[:, 0]), lambda n: (torch.randn(n, 8),)),
}


@pytest.mark.parametrize("op", EXPORTED)
def test_export_takes_a_dynamic_batch(op: str) -> None:
    call, make = EXPORTED[op]
    module, args = OnGraph(call), make(11)
    module(*args)  # makes the graph's transpose
    batch = torch.export.Dim("batch", min=3)
    dynamic = tuple({d: batch for d, n in enumerate(t.shape) if n == 11} for t in args)
    program = torch.export.export(module, args, dynamic_shapes={"tensors": dynamic}).module()
    for n in (11, 5, 30):
        given = make(n)
        assert same(program(*given), module(*given)), n
