"""The one table of op cases: parity, gradcheck, opcheck, compile, layout, thread and benchmark code all run
over it.

To cover a new op, write a function that returns its `OpCase` for a size, and put some sizes into `CASES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.ops.sparse import _parts, _scale

Args = list[Any]


@dataclass(frozen=True)
class OpCase:
    """One op on one kind of input.

    make(dtype, generator) gives the arguments of the public function; call(module, args) runs it from
    `smore_ext.ops` or `smore_ext.reference` and returns its outputs as a flat tuple. `differentiable` are
    positions in args (a position that holds a list stands for all tensors in it). raw(args) gives the
    arguments of torch.ops.smore_ext.<op>.
    """

    op: str
    name: str
    make: Callable[[torch.dtype, torch.Generator], Args]
    differentiable: tuple[int, ...] = ()
    raw: Callable[[Args], Args] = list
    small: bool = False  # small enough for gradcheck
    in_place: int = 0  # the first so many arguments are changed in place: they are the outputs, and `call` copies them

    def call(self, module: ModuleType, args: Args) -> tuple[Tensor, ...]:
        if not self.in_place:
            return flatten(getattr(module, self.op)(*args))
        changed = [t.clone() for t in args[: self.in_place]]
        getattr(module, self.op)(*changed, *args[self.in_place :])
        return tuple(changed)

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


def on(device: torch.device, value: Any) -> Any:
    """Arguments on a device: tensors and graphs in (nested) lists; numbers stay."""
    if isinstance(value, list | tuple):
        return type(value)(on(device, v) for v in value)
    return value.to(device) if isinstance(value, Tensor | Graph) else value


def gradients(case: OpCase, module: ModuleType, args: Args, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of all that is differentiable in args, given the gradients that come in at the floating outputs."""
    args = map_tensors(args, lambda t: t.detach().clone().requires_grad_())
    outputs = [o for o in case.call(module, args) if o.is_floating_point()]
    total = sum((o * c.to(o)).sum() for o, c in zip(outputs, cotangents, strict=True))
    return torch.autograd.grad(total, differentiable_tensors(case, args))


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


def filter_case(n: int, d: int) -> OpCase:
    def make(dtype, g):
        return [rand(g, dtype, n, d), rand(g, dtype, d // 2 + 1, 2)]

    return OpCase("spectral_filter", f"{n}x{d}", make, (0, 1), small=n * d <= 40)


def fusion_case(modalities: int, n: int, d: int) -> OpCase:
    def make(dtype, g):
        xs = [rand(g, dtype, n, d) for _ in range(modalities)]
        filters = [rand(g, dtype, d // 2 + 1, 2) for _ in range(modalities + 1)]
        return [xs, filters[:-1], filters[-1]]

    return OpCase("spectrum_fusion", f"{modalities}x{n}x{d}", make, (0, 1, 2), small=n * d <= 40)


def _raw_spmm(args: Args) -> Args:
    return [*_parts(args[0], args[1]), *args[1:]]


def _raw_propagate(args: Args) -> Args:
    graph, x, layers, reduce, gate = [*args, None][:5]
    return [*_parts(graph, x), x, layers, reduce == "mean", gate, _scale(graph, x)]


def spmm_case(n_rows: int, n_cols: int, edges: int, d: int, wide: bool = False, gated: bool = False) -> OpCase:
    def make(dtype, g):
        graph = random_graph(g, n_rows, n_cols, edges, wide)
        return [graph, *(rand(g, dtype, n_cols, d) for _ in range(1 + gated))]

    name = f"{n_rows}x{n_cols}x{d}{'-int64' if wide else ''}{'-gated' if gated else ''}"
    return OpCase("spmm", name, make, (1, 2) if gated else (1,), _raw_spmm, small=edges <= 14)


def propagate_case(
    n: int, edges: int, d: int, layers: int, reduce: str, gated: bool = False, bipartite: bool = False
) -> OpCase:
    def make(dtype, g):
        graph = random_graph(g, n, n, edges)
        if bipartite:  # its weights are separable; two fifths of the nodes are users, and some nodes have no edge
            users, items = randint(g, 2 * n // 5, edges // 2), randint(g, n - 2 * n // 5 - 1, edges // 2)
            users[: edges // 10] = 0
            graph = Graph.bipartite(users, items, 2 * n // 5, n - 2 * n // 5)
        return [graph, rand(g, dtype, n, d), layers, reduce, *(rand(g, dtype, n, d) for _ in range(gated))]

    name = f"{n}x{d}-{layers}-{reduce}{'-gated' if gated else ''}{'-bipartite' if bipartite else ''}"
    return OpCase("propagate", name, make, (1, 4) if gated else (1,), _raw_propagate, small=edges <= 12)


def graph_case(name: str, graph: Callable[[], Graph], d: int, layers: int | None = None, gated: bool = False) -> OpCase:
    """spmm, with a gate or not (or propagate, with `layers`) on a graph of one's own."""

    def make(dtype, g):
        matrix = graph()
        dense = [rand(g, dtype, matrix.n_cols, d) for _ in range(1 + gated)]
        return [matrix, *dense, *([] if layers is None else [layers, "mean"])]

    if layers is None:
        return OpCase("spmm", name, make, (1, 2) if gated else (1,), _raw_spmm)
    return OpCase("propagate", name, make, (1,), _raw_propagate)


def knn_case(n: int, d: int, k: int, queries: int | None = None, exclude_self: bool = False) -> OpCase:
    """queries: so many rows are looked up in the n of a base."""

    def make(dtype, g):
        rows = rand(g, torch.float32, n, d).to(dtype)
        if queries is not None:
            return [rand(g, torch.float32, queries, d).to(dtype), k, rows]
        return [rows, k, None, True] if exclude_self else [rows, k]

    name = f"{n}x{d}-{k}{'-others' if exclude_self else ''}{f'-{queries}-queries' if queries is not None else ''}"
    return OpCase("knn", name, make)


def cosine_case(n: int, d: int, k: int, base: int | None = None) -> OpCase:
    """base: rows of a second table. A few rows are named much more often than others, and some name themselves."""

    def make(dtype, g):
        limit = n if base is None else base
        index = randint(g, limit, n, k) if n * k else torch.zeros(n, k, dtype=torch.int64)
        index[:, : k // 3] %= max(limit // 8, 1)
        return [rand(g, dtype, n, d), index, *([] if base is None else [rand(g, dtype, base, d)])]

    name = f"{n}x{d}-{k}{f'-of-{base}' if base is not None else ''}"
    return OpCase("cosine_at", name, make, (0,) if base is None else (0, 2), small=n * k <= 20)


def topk_case(users: int, items: int, d: int, k: int, edges: int | None) -> OpCase:
    def make(dtype, g):
        seen = None if edges is None else random_graph(g, users, items, edges)
        return [rand(g, dtype, users, d), rand(g, dtype, items, d), k, seen]

    def raw(args: Args) -> Args:
        *dense, seen = args
        return dense + ([] if seen is None else [seen.rowptr, seen.col])

    return OpCase("masked_topk", f"{users}x{items}x{d}-{k}", make, raw=raw)


def sample_case(users: int, items: int, edges: int, size: int, step: int = 1) -> OpCase:
    """Candidates are every step-th item; users who have seen them all are left out of the batch."""

    def make(dtype, g):
        seen = random_graph(g, users, items, edges)
        ids, candidates = randint(g, users, size), torch.arange(0, items, step)
        known = torch.bincount(seen.row[seen.col % step == 0], minlength=users)
        return [ids[known[ids] < candidates.shape[0]], seen, candidates, 2**40 + 5, 2**33 + 1]

    def raw(args: Args) -> Args:
        users, seen, *rest = args
        return [users, seen.rowptr, seen.col, *rest]

    return OpCase("sample_negatives", f"{users}x{items}-{size}", make, raw=raw)


def bpr_case(users: int, items: int, d: int, size: int) -> OpCase:
    def make(dtype, g):
        ids = [randint(g, users, size), randint(g, items, size), randint(g, items, size)]
        return [rand(g, dtype, users, d), rand(g, dtype, items, d), *ids]

    return OpCase("bpr_loss", f"{users}x{items}x{d}-{size}", make, (0, 1), small=size <= 7)


def nce_case(size: int, d: int, temperature: float) -> OpCase:
    def make(dtype, g):
        return [rand(g, dtype, size, d), rand(g, dtype, size, d), temperature]

    return OpCase("info_nce", f"{size}x{d}-{temperature}", make, (0, 1), small=size <= 5)


def table_case(n: int, width: int, d: int) -> OpCase:
    def make(dtype, g):
        return [rand(g, dtype, n, width), rand(g, dtype, d, width), rand(g, dtype, d)]

    return OpCase("table_linear", f"{n}x{width}-{d}", make, (0, 1, 2), small=n * width <= 20)


def adam_case(n: int, width: int, d: int, step: int) -> OpCase:
    def make(dtype, g):
        param, average = rand(g, dtype, n, width), rand(g, dtype, n, width)
        square = rand(g, dtype, n, width).square() if step > 1 else torch.zeros(n, width, dtype=dtype)
        factors = [rand(g, dtype, n, d), rand(g, dtype, d, width)]
        return [param, average if step > 1 else average * 0, square, *factors, torch.tensor(float(step)), 1e-2]

    return OpCase("factored_adam_", f"{n}x{width}-{d}-{step}", make, in_place=3)


ROW_SIZES = (
    (5, 1),
    (3, 2),
    (7, 5),
    (4, 8),
    (0, 6),
    (33, 16),
    (70, 63),
    (1025, 64),
    (40, 100),
    (9, 127),
    (3, 512),
)

CASES: Sequence[OpCase] = [
    *(filter_case(n, d) for n, d in ROW_SIZES),
    *(fusion_case(2, n, d) for n, d in ROW_SIZES),
    *(fusion_case(m, n, d) for m in (1, 3) for n, d in ((5, 1), (7, 5), (4, 8), (70, 63))),
    *(fusion_case(m, 1027, 64) for m in (1, 3)),
    spmm_case(6, 4, 14, 3),
    spmm_case(5, 5, 12, 2, wide=True),
    spmm_case(0, 4, 0, 3),
    spmm_case(4, 0, 0, 3),
    spmm_case(7, 3, 0, 5),
    spmm_case(90, 70, 800, 64),
    spmm_case(90, 70, 800, 63, wide=True),
    spmm_case(300, 200, 9000, 192),
    spmm_case(50, 60, 400, 17),
    spmm_case(6, 4, 14, 3, gated=True),
    spmm_case(4, 0, 0, 3, gated=True),
    spmm_case(300, 200, 9000, 64, gated=True),
    spmm_case(90, 70, 800, 17, wide=True, gated=True),
    propagate_case(5, 12, 3, 3, "mean"),
    propagate_case(5, 12, 3, 2, "last"),
    propagate_case(4, 9, 2, 0, "mean"),
    propagate_case(4, 9, 2, 0, "last"),
    propagate_case(0, 0, 3, 2, "mean"),
    propagate_case(250, 4000, 64, 4, "mean"),
    propagate_case(250, 4000, 33, 3, "last"),
    propagate_case(5, 12, 3, 3, "mean", gated=True),
    propagate_case(5, 12, 3, 2, "last", gated=True),
    propagate_case(5, 12, 3, 0, "mean", gated=True),
    propagate_case(250, 4000, 64, 1, "last", gated=True),
    propagate_case(250, 4000, 33, 2, "mean", gated=True),
    propagate_case(30, 120, 8, 3, "mean", gated=True, bipartite=True),
    propagate_case(250, 2000, 64, 4, "mean", bipartite=True),
    propagate_case(250, 2000, 33, 3, "last", bipartite=True),
    propagate_case(250, 2000, 17, 2, "mean", gated=True, bipartite=True),
    propagate_case(250, 2000, 64, 1, "mean", bipartite=True),
    *(knn_case(*size) for size in ((1, 3, 1), (6, 2, 6), (50, 7, 10), (700, 40, 10), (1300, 20, 40))),
    *(knn_case(*size, exclude_self=True) for size in ((2, 3, 1), (6, 2, 5), (700, 40, 10))),
    *(knn_case(*size) for size in ((5, 3, 2, 0), (1, 2, 1, 3), (700, 40, 10, 90), (90, 20, 40, 1300))),
    *(cosine_case(*size) for size in ((5, 3, 4), (4, 1, 2, 3), (0, 3, 2), (3, 0, 2), (4, 3, 0), (6, 9, 3, 2))),
    *(cosine_case(*size) for size in ((300, 64, 10), (150, 100, 7), (70, 13, 30, 200), (400, 64, 6, 20))),
    topk_case(3, 5, 4, 5, 9),
    topk_case(0, 5, 4, 2, 0),
    topk_case(70, 130, 64, 20, 2000),
    topk_case(130, 501, 63, 50, None),
    topk_case(65, 90, 16, 90, 1500),
    sample_case(20, 40, 100, 500, step=2),
    sample_case(5, 12, 70, 3000),
    sample_case(1, 3, 0, 0),
    *(bpr_case(*size) for size in ((4, 5, 3, 7), (3, 3, 2, 0), (60, 90, 64, 600), (60, 90, 65, 90))),
    *(nce_case(*size) for size in ((5, 3, 0.2), (2, 2, 0.5), (0, 3, 0.2), (300, 64, 0.2), (65, 63, 0.01))),
    nce_case(130, 100, 1.0),
    *(adam_case(*size) for size in ((0, 3, 2, 1), (5, 0, 2, 1), (3, 5, 0, 4), (1, 1, 1, 1), (19, 45, 7, 3))),
    *(table_case(*size) for size in ((0, 3, 2), (5, 0, 2), (4, 5, 3), (19, 45, 7), (290, 1100, 64), (40, 300, 65))),
    adam_case(70, 130, 64, 1),
    adam_case(41, 4100, 300, 1000),
]
