"""Sums and means of rows by `torch_scatter`, as products with a graph where the same index comes again."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.lazy import formed
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import differs
from smore_ext.compat.mmrec.recent import Recent
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.graph import Graph

_NAMES = {"scatter_add": "sum", "scatter_sum": "sum", "scatter_mean": "mean", "scatter": None}  # None: an argument
_NARROWEST = 8  # columns: below, sorting the index does not pay


class _Known(NamedTuple):
    rows: Tensor
    size: int
    graphs: dict[str, Graph]  # by reduction; empty while the index was met once


class Scatter:
    """Functions `(src, index, dim=0, dim_size=n)` of rows [E, d]; an index is sorted when it comes a second time."""

    piece = "scatter"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._known: Recent[_Known] = Recent()
        self._seen: list[ModuleType] = []

    def visit(self, module: ModuleType) -> None:
        library = sys.modules.get("torch_scatter")
        if library is None or library in self._seen:
            return
        self._seen.append(library)
        for name in _NAMES.keys() & vars(library).keys():
            self._function(library, name)

    def _function(self, library: ModuleType, name: str) -> None:
        original = getattr(library, name)

        @functools.wraps(original)
        def scatter(src: Any, index: Any, dim: int = -1, *args: Any, **kwargs: Any) -> Any:
            src = formed(src)
            reduce = _NAMES[name] or kwargs.get("reduce", "sum")
            others = {k for k, v in kwargs.items() if v is not None} - {"dim_size", "reduce"}
            plain = not args and not others and reduce in ("sum", "add", "mean") and dim in (0, -2)
            if plain and is_matrix(src) and src.shape[1] >= _NARROWEST and _is_index(index, src):
                graph = self._graph(index, kwargs.get("dim_size"), "mean" if reduce == "mean" else "sum")
                if graph is not None:
                    return ops.spmm(graph, src)
            return original(src, index, dim, *args, **kwargs)

        why = self._doubt(original, scatter)
        self._known.clear()
        self.report.add(self.piece, f"torch_scatter.{name}", why is None, why or "")
        if why is None:
            self.swaps.replace(library, name, scatter)

    def _doubt(self, original: Callable[..., Any], ours: Callable[..., Any]) -> str | None:
        x, index = torch.arange(60.0).view(6, 10).sin(), torch.tensor([3, 0, 3, 1, 1, 3])
        whys = []
        for options in ({}, {"dim_size": 6}, {"reduce": "mean"}):
            if "reduce" in options and original.__name__ != "scatter":
                continue
            for _ in range(2):  # the second time with a graph
                run = [functools.partial(f, index=index, dim=0, **options) for f in (original, ours)]
                whys.append(differs(run[0], run[1], [x]))
        return next((why for why in whys if why), None)

    def _graph(self, index: Tensor, size: int | None, reduce: str) -> Graph | None:
        """[n, E], or None where the index is new, or names a row that is not there."""
        known = self._known.find(lambda k: (size is None or k.size == size) and torch.equal(k.rows, index))
        if known is None:
            lowest, highest = int(index.min()), int(index.max())
            if lowest >= 0 and (size is None or highest < size):
                self._known.add(_Known(index.clone(), highest + 1 if size is None else size, {}))
            return None
        if reduce not in known.graphs:
            edges = torch.arange(index.shape[0], device=index.device)
            sums = Graph.from_edges(index, edges, None, (known.size, index.shape[0]))
            known.graphs[reduce] = sums if reduce == "sum" else sums.normalized("rw")
        return known.graphs[reduce]


def _is_index(index: Any, src: Tensor) -> bool:
    plain = type(index) is Tensor and index.dtype == torch.int64 and index.device == src.device
    return plain and index.shape == (src.shape[0],) and index.shape[0] > 0
