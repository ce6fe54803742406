"""Does a GPU repeat itself bit for bit, and agree with the CPU? python -m benchmarks.gpu_agreement DEVICE OUT.json

Every case of the op table (smore_ext.testing) runs twice on the device: outputs and gradients must have the same bits.
kNN graphs and negatives must be those of the CPU. How far the other ops are from it is only written down; the tests
judge that.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.inputs import bipartite, interactions, seen_items, size_of
from smore_ext import Graph, backends, ops
from smore_ext.testing.cases import CASES, Args, OpCase, gradients, on
from smore_ext.training.device import usable_device

PROCESSES = 4
KNN_SIZES = ((700, 40, 10), (1301, 257, 40), (3000, 4096, 40))


def results(case: OpCase, args: Args) -> list[Tensor]:
    """Outputs and gradients, on the CPU."""
    found = case.call(ops, args)
    if case.differentiable:
        generator = torch.Generator().manual_seed(5)
        incoming = [torch.randn(o.shape, generator=generator) for o in found if o.is_floating_point()]
        found += gradients(case, ops, args, incoming)
    return [tensor.detach().cpu() for tensor in found]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest, relative to the largest value of its tensor; over the finite values of floating tensors."""
    largest = 0.0
    for a, b in zip(ours, theirs, strict=True):
        finite = a.isfinite() & b.isfinite()
        if a.is_floating_point() and finite.any():
            scale = b[finite].abs().max().clamp_min(torch.finfo(b.dtype).tiny)
            largest = max(largest, float((a - b)[finite].abs().max() / scale))
    return largest


def awkward_features(rows: int, width: int) -> Tensor:
    """Normal rows, some of them repeated (ties), one zero."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    x[rows // 2 : rows // 2 + rows // 10] = x[: rows // 10]
    x[rows - 1] = 0
    return x


def knn_graphs(device: torch.device) -> list[Tensor]:
    graphs = [Graph.knn(awkward_features(rows, width).to(device), k) for rows, width, k in KNN_SIZES]
    return [part.cpu() for graph in graphs for part in (graph.rowptr, graph.col, graph.weight)]


def knn_graphs_by_bytes(device: torch.device) -> list[Tensor]:
    """The same, their candidates found by products of bytes; the CPU has float32 alone."""
    with backends.knn_products("int8") if device.type == "cuda" else nullcontext():
        return knn_graphs(device)


def negatives(device: torch.device) -> list[Tensor]:
    """Of two epochs, for every interaction of a data set of true size."""
    size = size_of("baby")
    pairs = interactions(size)
    args = on(device, [pairs.users, seen_items(size), torch.unique(pairs.items)])
    return [ops.sample_negatives(*args, seed=2**40 + 5, offset=offset).cpu() for offset in (0, 7)]


def propagated(device: torch.device) -> list[Tensor]:
    """On a graph of true size: some of its rows are long."""
    graph = bipartite(size_of("baby")).to(device)
    x = torch.randn(graph.n_cols, 64, generator=torch.Generator().manual_seed(3)).to(device)
    return [ops.propagate(graph, x, 3).cpu()]


AS_ON_CPU = {"kNN graphs": knn_graphs, "kNN graphs by bytes": knn_graphs_by_bytes, "negatives": negatives}
LARGE = AS_ON_CPU | {"propagate, true size": propagated}


def examine(task: str, where: str) -> dict[str, Any]:
    """One op's cases, or one of LARGE. An error ends the task: after it the device's context may be of no more use."""
    device, cpu = usable_device(where), torch.device("cpu")
    differing: list[str] = []
    found: dict[str, Any] = {"differing": differing, "as_on_cpu": None, "largest_difference": 0.0, "error": None}
    label = task
    try:
        if task in LARGE:
            first, second = LARGE[task](device), LARGE[task](device)
            on_cpu = LARGE[task](cpu)
            found["largest_difference"] = difference(first, on_cpu)
            found["as_on_cpu"] = same(first, on_cpu) if task in AS_ON_CPU else None
            return found | {"differing": [] if same(first, second) else [label]}
        for case in [case for case in CASES if case.op == task]:
            label = f"{case.op} {case.name}"
            args = case.make(torch.float32, torch.Generator().manual_seed(11))
            first, second = (results(case, on(device, args)) for _ in range(2))
            found["largest_difference"] = max(found["largest_difference"], difference(first, results(case, args)))
            if not same(first, second):
                differing.append(label)
    except Exception as error:  # whatever an op raises is a finding here
        found["error"] = f"{label}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return found


def main(where: str, out: Path) -> int:
    tasks = [*ops.__all__, *LARGE]
    # A process for each task: an access that fails on a GPU spoils its process, but no other.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawn, max_tasks_per_child=1) as pool:
        found = dict(zip(tasks, pool.map(partial(examine, where=where), tasks), strict=True))
    findings = {
        "tasks": len(tasks),
        "differing": [label for task in found.values() for label in task["differing"]],
        "as_on_cpu": {name: found[name]["as_on_cpu"] for name in AS_ON_CPU},
        "largest_difference": {name: task["largest_difference"] for name, task in found.items()},
        "errors": {name: task["error"] for name, task in found.items() if task["error"]},
    }
    out.write_text(json.dumps(findings, indent=1) + "\n")
    print(json.dumps(findings, indent=1))
    return 1 if findings["differing"] or findings["errors"] or not all(findings["as_on_cpu"].values()) else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
