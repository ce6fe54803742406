"""Normalised user-item matrices that a model fills by dictionaries and lists of lists, made from its edges at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from smore_ext.compat.mmrec.proof import bare, by_place, classes_of, difference, proved, undisturbed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps

_USERS, _ITEMS = 5, 4  # of the sample

Builder = Callable[..., Any]


class _Norm(NamedTuple):
    """A = [[0, R], [R^T, 0]], or that + I; its degrees + eps, to a power, on the left or on both sides."""

    loops: bool
    power: float
    both: bool
    eps: float


_NORMS = [
    _Norm(loops, power, both, eps)
    for power, both in ((-0.5, True), (-1.0, False))
    for loops in (False, True)
    for eps in (1e-7, 0.0)
]


class Graphs:
    """Methods `get_norm_adj_mat(self)` and `get_adj_mat(self)` of models, or with the interactions as argument."""

    piece = "graphs"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            if not issubclass(cls, nn.Module):
                continue
            for name, original in list(vars(cls).items()):
                takes = isinstance(original, FunctionType) and len(inspect.signature(original).parameters) in (1, 2)
                if takes and "adj_mat" in name and "knn" not in name:
                    self._method(cls, name, original)

    def _method(self, cls: type, name: str, original: Builder) -> None:
        maker: list[_Maker] = []

        @functools.wraps(original)
        def ours(model: Any, *args: Any) -> Any:
            matrix = args[0] if args else model.interaction_matrix
            return maker[0](model, matrix) if _is_plain(matrix, model) else original(model, *args)

        def doubt() -> str | None:
            try:
                with undisturbed():
                    found = _Maker.of(cls, original)
            except Exception as error:  # whatever a tree's code may raise
                return f"the original raised {type(error).__name__}: {str(error)[:120]}"
            if isinstance(found, str):
                return found
            maker.append(found)
            return None

        def tell(why: str | None) -> None:
            self.report.add(self.piece, f"{cls.__name__}.{name}", why is None, why or "")

        self.swaps.set(cls, name, by_place(original, proved(original, ours, doubt, tell)))


class _Maker:
    """Makes what a method made of the sample: the matrix, in its form, and what it keeps in the model."""

    def __init__(self, norm: _Norm, result: Any, kept: list[str], changed: dict[str, Any]) -> None:
        self.norm, self.result, self.kept, self.changed = norm, result, kept, changed

    def __call__(self, model: Any, matrix: Any) -> Any:
        full, degrees = _normalised(matrix, self.norm)
        for name in self.kept:
            block = full.tocsr()[: matrix.shape[0], matrix.shape[0] :]
            setattr(model, name, _like(self.changed[name], block, model))
        if not isinstance(self.result, tuple):
            return _like(self.result, full, model)
        return _sums_like(self.result[0], degrees), _like(self.result[1], full, model)

    @classmethod
    def of(cls, owner: type, original: Builder) -> _Maker | str:
        """The maker that gives what the method gives, or why there is none."""
        before, theirs = vars(_sample(owner)), _sample(owner)
        matrix = theirs.interaction_matrix
        result = original(theirs, *([matrix] if len(inspect.signature(original).parameters) == 2 else []))
        changed = {k: v for k, v in vars(theirs).items() if k not in before and k != "interaction_matrix"}
        if not all(hasattr(value, "tocsr") for value in changed.values()):
            return "it keeps more than matrices in the model"
        whole = result[1] if isinstance(result, tuple) and len(result) == 2 else result
        if not hasattr(whole, "tocsr") and not (isinstance(whole, torch.Tensor) and whole.layout == torch.sparse_coo):
            return "it gives no sparse matrix"
        for norm in _NORMS:
            ours, maker = _sample(owner), cls(norm, result, list(changed), changed)
            own = maker(ours, ours.interaction_matrix)
            if difference("the matrix", result, own) is None:
                kept = {name: vars(ours)[name] for name in changed}
                return difference("what it keeps", changed, kept) or maker
        return "it is normalised in another way"


def _sample(owner: type) -> Any:
    import scipy.sparse as sp  # the trees need it, the package does not

    row, col = np.array([0, 0, 1, 2, 3, 4, 4], dtype=np.int32), np.array([0, 2, 1, 0, 1, 2, 0], dtype=np.int32)
    model = bare(owner)
    nn.Module.__init__(model)
    model.n_users, model.n_items, model.n_nodes = _USERS, _ITEMS, _USERS + _ITEMS
    model.num_user, model.num_item, model.device = _USERS, _ITEMS, torch.device("cpu")
    model.interaction_matrix = sp.coo_matrix((np.ones(7, dtype=np.float32), (row, col)), shape=(_USERS, _ITEMS))
    return model


def _is_plain(matrix: Any, model: Any) -> bool:
    """Whether it holds each pair once, with 1."""
    if getattr(matrix, "format", "") != "coo" or not bool((matrix.data == 1).all()):
        return False
    if matrix.shape != (getattr(model, "n_users", None), getattr(model, "n_items", None)):
        return False
    pairs = matrix.row.astype(np.int64) * matrix.shape[1] + matrix.col
    return len(np.unique(pairs)) == len(pairs)


def _normalised(matrix: Any, norm: _Norm) -> tuple[Any, Any]:
    """(COO [U+I, U+I] by row, degrees [U+I])."""
    import scipy.sparse as sp

    n_users, n = matrix.shape[0], sum(matrix.shape)
    row, col = matrix.row.astype(np.int64), matrix.col.astype(np.int64) + n_users
    loops = [np.arange(n)] if norm.loops else []
    rows, cols = np.concatenate([row, col, *loops]), np.concatenate([col, row, *loops])
    degrees = np.bincount(rows, minlength=n)
    with np.errstate(divide="ignore"):
        factor = np.power(degrees + norm.eps, norm.power)
    factor[np.isinf(factor)] = 0.0
    value = factor[rows] * factor[cols] if norm.both else factor[rows]
    return sp.coo_matrix((value, (rows, cols)), shape=(n, n)).tocsr().tocoo(), degrees


def _like(sample: Any, matrix: Any, model: Any) -> Any:
    """The matrix in the form of the sample's."""
    if not isinstance(sample, torch.Tensor):
        return matrix.astype(sample.dtype).asformat(sample.format)
    index = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    value = torch.from_numpy(matrix.data).to(sample.dtype)
    tensor = torch.sparse_coo_tensor(index, value, matrix.shape, check_invariants=False)
    return tensor.to(getattr(model, "device", "cpu"))


def _sums_like(sample: Any, degrees: Any) -> Any:
    array = degrees.astype(sample.dtype).reshape([-1 if size > 1 else 1 for size in sample.shape])
    return np.asmatrix(array) if isinstance(sample, np.matrix) else array
