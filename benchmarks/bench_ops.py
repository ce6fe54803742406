"""Each op against named peers at published sizes, forward and forward + backward. One group a case.

For a quick look select cases with pytest: -k "baby". Peers: "reference" is the plain PyTorch composition of
`smore_ext.reference` (sparse products: COO), "csr" is torch's CSR product (MKL).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from op_cases import (
    OpCase,
    bpr_case,
    differentiable_tensors,
    filter_case,
    fusion_case,
    graph_case,
    knn_case,
    map_tensors,
    nce_case,
    sample_case,
    topk_case,
)

from smore_ext import Graph, ops, reference

# users, items, train interactions (SPEC section 5; about 80 % of all are in train)
SIZES = {
    "baby": (19_445, 7_050, 118_551),
    "sports": (35_598, 18_357, 218_409),
    "clothing": (39_387, 23_033, 197_338),
}


def interactions(size: str) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Random pairs with a long tail of popularity, at a published size."""
    users, items, count = SIZES[size]
    g = torch.Generator().manual_seed(7)
    item = (torch.rand(count, generator=g).pow(3) * items).long()
    return torch.randint(users, (count,), generator=g), item, users, items


def bipartite(size: str) -> Graph:
    return Graph.bipartite(*interactions(size))


def neighbours(size: str, k: int) -> Graph:
    items = SIZES[size][1]
    g = torch.Generator().manual_seed(8)
    col = torch.randint(items, (items * k,), generator=g)
    return Graph.from_edges(
        torch.arange(items).repeat_interleave(k), col, torch.rand(items * k, generator=g), (items, items)
    )


CASES: dict[str, OpCase] = {
    **{f"fusion-{size}": fusion_case(2, SIZES[size][1], 64) for size in SIZES},
    **{f"filter-{d}-clothing": filter_case(SIZES["clothing"][1], d) for d in (32, 63, 100, 127, 128, 512)},
    "filter-64-baby": filter_case(SIZES["baby"][1], 64),
    **{f"spmm-bipartite-{size}": graph_case(size, lambda size=size: bipartite(size), 64) for size in SIZES},
    **{f"spmm-knn10-{size}": graph_case(size, lambda size=size: neighbours(size, 10), 64) for size in SIZES},
    **{f"propagate-{size}": graph_case(size, lambda size=size: bipartite(size), 64, 4) for size in SIZES},
    "knn-baby": knn_case(SIZES["baby"][1], 384, 10),
    "topk-baby": topk_case(4096, SIZES["baby"][1], 64, 50, 25_000),
    "topk-clothing": topk_case(4096, SIZES["clothing"][1], 64, 50, 20_000),
    "sample-baby": sample_case(*SIZES["baby"], SIZES["baby"][2]),
    "bpr-baby": bpr_case(*SIZES["baby"][:2], 64, 2048),
    "nce-baby": nce_case(2048, 64, 0.2),
}


def csr_product(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    return torch.sparse.mm(graph.to_sparse("csr"), x)


def csr_propagate(graph: Graph, x: torch.Tensor, n_layers: int, reduce: str) -> torch.Tensor:
    layers = [x]
    for _ in range(n_layers):
        layers.append(csr_product(graph, layers[-1]))
    return torch.stack(layers, dim=1).mean(dim=1)


CSR = SimpleNamespace(spmm=csr_product, propagate=csr_propagate)
PEERS = {"native": ops, "reference": reference, "csr": CSR}
RUNS = [(name, peer) for name, case in CASES.items() for peer in PEERS if hasattr(PEERS[peer], case.op)]


def ids(value: object) -> str:
    return str(value)


@pytest.mark.parametrize(("name", "peer"), RUNS, ids=ids)
def test_forward(benchmark, name: str, peer: str) -> None:
    case = CASES[name]
    benchmark.group = f"{name} forward"
    args = case.make(torch.float32, torch.Generator().manual_seed(0))
    with torch.no_grad():
        benchmark(case.call, PEERS[peer], args)


@pytest.mark.parametrize(("name", "peer"), [run for run in RUNS if CASES[run[0]].differentiable], ids=ids)
def test_forward_and_backward(benchmark, name: str, peer: str) -> None:
    case = CASES[name]
    benchmark.group = f"{name} forward + backward"
    args = map_tensors(case.make(torch.float32, torch.Generator().manual_seed(0)), torch.Tensor.requires_grad_)
    tensors = differentiable_tensors(case, args)

    def both() -> None:
        outputs = case.call(PEERS[peer], args)
        torch.autograd.grad(outputs, tensors, [torch.ones_like(o) for o in outputs])

    benchmark(both)
