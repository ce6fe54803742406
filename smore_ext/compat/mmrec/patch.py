"""The patch: pieces that prove themselves on samples, put into a tree before or after its modules are imported."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import ModuleType, TracebackType
from typing import Protocol, Self

from smore_ext.compat.mmrec.adam import Optimizer
from smore_ext.compat.mmrec.contrast import Contrast
from smore_ext.compat.mmrec.dropout import Dropout
from smore_ext.compat.mmrec.evaluate import Evaluation
from smore_ext.compat.mmrec.graphs import Graphs
from smore_ext.compat.mmrec.layers import Layers
from smore_ext.compat.mmrec.loading import Batches, Sampler
from smore_ext.compat.mmrec.matmul import Products
from smore_ext.compat.mmrec.messages import Messages
from smore_ext.compat.mmrec.neighbours import Neighbours
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.rows import Rows
from smore_ext.compat.mmrec.scatter import Scatter
from smore_ext.compat.mmrec.sparse_left import SparseLeft
from smore_ext.compat.mmrec.swaps import Swaps, dense_parameters
from smore_ext.compat.mmrec.tree import ImportWatch, Tree
from smore_ext.compat.mmrec.unit_rows import UnitRows

PIECES = (
    "evaluation",
    "sampler",
    "batches",
    "products",
    "layers",
    "dropout",
    "normalize",
    "messages",
    "scatter",
    "knn",
    "graphs",
    "optimizer",
    "contrast",
    "rows",
)


class Visitor(Protocol):
    """A piece that looks at each module of the tree."""

    def visit(self, module: ModuleType) -> None: ...


class Patch(Report):
    """A report that can be undone, and a context manager that undoes it at its end."""

    def __init__(self, swaps: Swaps) -> None:
        super().__init__()
        self._swaps = swaps
        self._watch: ImportWatch | None = None
        self._visitors: list[Visitor] = []

    def _visit(self, module: ModuleType) -> None:
        for visitor in self._visitors:
            visitor.visit(module)

    def _start(self, pieces: frozenset[str], tree: Tree) -> None:
        swaps, products = self._swaps, Products()
        if "products" in pieces:
            products.takers.append(SparseLeft(self))
        if "knn" in pieces:
            neighbours = Neighbours(self, swaps)
            products.takers.append(neighbours.take)
            neighbours.install()
            self._visitors.append(neighbours)
        if "layers" in pieces:
            Layers(self, swaps).install()
        if "dropout" in pieces:
            Dropout(self, swaps).install()
        if "normalize" in pieces:
            UnitRows(self, swaps).install()
        if products.takers:
            products.install(swaps)
        if {"knn", "layers", "messages"} & pieces:
            dense_parameters(swaps)
        for name, visitor in (
            ("evaluation", Evaluation),
            ("sampler", Sampler),
            ("batches", Batches),
            ("messages", Messages),
            ("scatter", Scatter),
            ("graphs", Graphs),
            ("optimizer", Optimizer),
            ("contrast", Contrast),
        ):
            if name in pieces:
                self._visitors.append(visitor(self, swaps))
        if "rows" in pieces:
            self._visitors.append(Rows(self, swaps, pieces))
        for module in tree.modules():
            self._visit(module)
        self._watch = ImportWatch(tree, self._visit)
        self._watch.start()

    def undo(self) -> None:
        """Puts back every name. Objects that were made meanwhile (an optimizer, a model's layers) stay as they are."""
        if self._watch is not None:
            self._watch.stop()
        for visitor in self._visitors:
            getattr(visitor, "stop", lambda: None)()
        self._swaps.undo()
        if self in _active:
            _active.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


_active: list[Patch] = []


def patch(pieces: Iterable[str] | None = None, root: str | os.PathLike[str] | None = None) -> Patch:
    """Makes an MMRec tree fast, without a change to its files.

    Each piece is run beside the tree's own code on a small sample, and replaces it only where values (of losses
    gradients too) agree; what needs the tree's data is proved at its first use. Modules that are loaded are patched
    now, others when they are imported.

    Args:
        pieces: of `PIECES`; None: all.
        root: the folder that holds the tree's `common/`, `utils/` and `models/`; None: found, see `Tree`.

    Returns:
        A report: `print(report)`, `report.replaced`, `report.left`; `report.undo()` puts everything back, and so does
        the end of `with patch():`.

    Raises:
        ValueError: an unknown piece.
        RuntimeError: a patch is active already.
    """
    chosen = frozenset(PIECES if pieces is None else [pieces] if isinstance(pieces, str) else pieces)
    if not chosen <= set(PIECES):
        raise ValueError(f"patch: pieces must be of {', '.join(PIECES)}, got {', '.join(sorted(chosen - set(PIECES)))}")
    if _active:
        raise RuntimeError("patch: a patch is active already; undo() it first")
    tree = Tree(root)
    report = Patch(Swaps(tree))
    _active.append(report)
    try:
        report._start(chosen, tree)
    except BaseException:
        report.undo()
        raise
    return report


def undo() -> None:
    """Undoes the active patch, if there is one."""
    for report in list(_active):
        report.undo()
