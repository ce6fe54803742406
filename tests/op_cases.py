"""The one table of op cases: parity, gradcheck, opcheck, compile, layout, thread and benchmark code all run over it.

To cover a new op, add a function that returns its `OpCase`s and put it into `CASES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from smore_ext import Graph
from smore_ext.ops.sparse import _parts

Args = list[Any]


@dataclass(frozen=True)
class OpCase:
    """One op on one kind of input.

    make(dtype, generator) gives the arguments of the public function; call(module, args) runs it from `smore_ext.ops` or
    `smore_ext.reference` and returns its outputs as a flat tuple. `differentiable` are positions in args (a position that
    holds a list stands for all tensors in it). raw(args) gives the arguments of torch.ops.smore_ext.<op>.
    """

    op: str
    name: str
    make: Callable[[torch.dtype, torch.Generator], Args]
    differentiable: tuple[int, ...] = ()
    raw: Callable[[Args], Args] = list
    small: bool = False  # small enough for gradcheck

    def call(self, module: ModuleType, args: Args) -> tuple[Tensor, ...]:
        return flatten(getattr(module, self.op)(*args))

    def call_raw(self, args: Args) -> tuple[Tensor, ...]:
        return flatten(getattr(torch.ops.smore_ext, self.op)(*self.raw(args)))


def flatten(value: Any) -> tuple[Tensor, ...]:
    if isinstance(value, Tensor):
        return (value,)
    return tuple(t for part in value for t in flatten(part))


def map_tensors(value: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """Applies f to every dense floating tensor among (lists of) arguments; graphs and numbers stay."""
    if isinstance(value, Tensor):
        return f(value) if value.is_floating_point() else value
    if isinstance(value, list):
        return [map_tensors(v, f) for v in value]
    return value


def differentiable_tensors(case: OpCase, args: Args) -> list[Tensor]:
    return [t for i in case.differentiable for t in (args[i] if isinstance(args[i], list) else [args[i]])]


def rand(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def randint(generator: torch.Generator, high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=generator)


def random_graph(generator: torch.Generator, n_rows: int, n_cols: int, n_edges: int, wide: bool = False) -> Graph:
    """Directed graph with empty rows, isolated columns and one row much longer than the others."""
    row = randint(generator, max(n_rows - n_rows // 4, 1), n_edges)
    row[: n_edges // 5] = 0
    col = randint(generator, max(n_cols - n_cols // 5, 1), n_edges)
    graph = Graph.from_edges(row, col, rand(generator, torch.float32, n_edges), (n_rows, n_cols))
    if wide:
        graph = Graph(graph.rowptr.long(), graph.col.long(), graph.weight, graph.shape)
    return graph


def spectral_cases() -> list[OpCase]:
    cases = []
    for n, d in ((5, 1), (3, 2), (7, 5), (4, 8), (0, 6), (33, 16), (70, 63), (1025, 64), (40, 100), (9, 127), (3, 512)):
        bins = d // 2 + 1
        small = n * d <= 40

        def one(dtype, g, n=n, d=d, bins=bins):
            return [rand(g, dtype, n, d), rand(g, dtype, bins, 2)]

        cases.append(OpCase("spectral_filter", f"{n}x{d}", one, (0, 1), small=small))
        for modalities in (1, 2, 3):
            if modalities != 2 and not small:
                continue

            def many(dtype, g, n=n, d=d, bins=bins, modalities=modalities):
                xs = [rand(g, dtype, n, d) for _ in range(modalities)]
                return [xs, [rand(g, dtype, bins, 2) for _ in range(modalities)], rand(g, dtype, bins, 2)]

            cases.append(OpCase("spectrum_fusion", f"{modalities}x{n}x{d}", many, (0, 1, 2), small=small))
    return cases


def sparse_cases() -> list[OpCase]:
    def raw(args: Args) -> Args:
        graph, x, *rest = args
        return [*_parts(graph, x), x, *rest[:1], *(r == "mean" for r in rest[1:])]

    cases = []
    for n_rows, n_cols, edges, d, wide in (
        (6, 4, 14, 3, False),
        (5, 5, 12, 2, True),
        (0, 4, 0, 3, False),
        (4, 0, 0, 3, False),
        (7, 3, 0, 5, False),
        (90, 70, 800, 64, False),
        (90, 70, 800, 63, True),
        (300, 200, 9000, 192, False),
        (50, 60, 400, 17, False),
    ):
        small = edges <= 14

        def product(dtype, g, n_rows=n_rows, n_cols=n_cols, edges=edges, d=d, wide=wide):
            return [random_graph(g, n_rows, n_cols, edges, wide), rand(g, dtype, n_cols, d)]

        name = f"{n_rows}x{n_cols}x{d}{'-int64' if wide else ''}"
        cases.append(OpCase("spmm", name, product, (1,), raw, small))
    for n, edges, d, layers, reduce in (
        (5, 12, 3, 3, "mean"),
        (5, 12, 3, 2, "last"),
        (4, 9, 2, 0, "mean"),
        (4, 9, 2, 0, "last"),
        (0, 0, 3, 2, "mean"),
        (250, 4000, 64, 4, "mean"),
        (250, 4000, 33, 3, "last"),
    ):

        def repeated(dtype, g, n=n, edges=edges, d=d, layers=layers, reduce=reduce):
            return [random_graph(g, n, n, edges), rand(g, dtype, n, d), layers, reduce]

        cases.append(OpCase("propagate", f"{n}x{d}-{layers}-{reduce}", repeated, (1,), raw, small=edges <= 12))
    return cases


def search_cases() -> list[OpCase]:
    cases = []
    for n, d, k in ((1, 3, 1), (6, 2, 6), (50, 7, 10), (700, 40, 10), (1300, 20, 40)):

        def features(dtype, g, n=n, d=d, k=k):
            return [rand(g, torch.float32, n, d).to(dtype), k]

        cases.append(OpCase("knn", f"{n}x{d}-{k}", features))

    def raw_topk(args: Args) -> Args:
        users, items, k, seen = args
        return [users, items, k] + ([] if seen is None else [seen.rowptr, seen.col])

    for users, items, d, k, edges in (
        (3, 5, 4, 5, 9),
        (0, 5, 4, 2, 0),
        (70, 130, 64, 20, 2000),
        (130, 501, 63, 50, None),
        (65, 90, 16, 90, 1500),
    ):

        def ranking(dtype, g, users=users, items=items, d=d, k=k, edges=edges):
            seen = None if edges is None else random_graph(g, users, items, edges)
            return [rand(g, dtype, users, d), rand(g, dtype, items, d), k, seen]

        cases.append(OpCase("masked_topk", f"{users}x{items}x{d}-{k}", ranking, raw=raw_topk))
    return cases


def sampling_cases() -> list[OpCase]:
    def raw(args: Args) -> Args:
        users, seen, *rest = args
        return [users, seen.rowptr, seen.col, *rest]

    cases = []
    for users, items, edges, size in ((20, 40, 100, 500), (5, 12, 70, 3000), (1, 3, 0, 0)):

        def batch(dtype, g, users=users, items=items, edges=edges, size=size):
            seen = random_graph(g, users, items, edges)
            ids = randint(g, users, size)
            candidates = torch.arange(0, items, 1 if edges < 90 else 2)
            open_users = torch.tensor([bool((~torch.isin(candidates, _row(seen, u))).any()) for u in range(users)])
            return [ids[open_users[ids]], seen, candidates, 2**40 + 5, 2**33 + 1]

        cases.append(OpCase("sample_negatives", f"{users}x{items}-{size}", batch, raw=raw))
    return cases


def _row(graph: Graph, row: int) -> Tensor:
    return graph.col[int(graph.rowptr[row]) : int(graph.rowptr[row + 1])]


def loss_cases() -> list[OpCase]:
    cases = []
    for users, items, d, size in ((4, 5, 3, 7), (3, 3, 2, 0), (60, 90, 64, 600), (60, 90, 65, 90)):

        def batch(dtype, g, users=users, items=items, d=d, size=size):
            ids = [randint(g, users, size), randint(g, items, size), randint(g, items, size)]
            return [rand(g, dtype, users, d), rand(g, dtype, items, d), *ids]

        cases.append(OpCase("bpr_loss", f"{users}x{items}x{d}-{size}", batch, (0, 1), small=size <= 7))
    for size, d, temperature in ((5, 3, 0.2), (2, 2, 0.5), (0, 3, 0.2), (300, 64, 0.2), (65, 63, 0.01), (130, 100, 1.0)):

        def pair(dtype, g, size=size, d=d, temperature=temperature):
            return [rand(g, dtype, size, d), rand(g, dtype, size, d), temperature]

        cases.append(OpCase("info_nce", f"{size}x{d}-{temperature}", pair, (0, 1), small=size <= 5))
    return cases


CASES: Sequence[OpCase] = [
    *spectral_cases(),
    *sparse_cases(),
    *search_cases(),
    *sampling_cases(),
    *loss_cases(),
]
