"""Negatives without a Python loop, and batches without data frames."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from smore_ext import ops
from smore_ext.compat.mmrec.proof import bare, by_place, classes_of, own_functions, undisturbed
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.graph import Graph

_SEEN = {0: {0, 1, 2}, 1: {5}, 2: {3, 4, 9, 10}}  # of the sample: three users and twelve items
_ITEMS = 12
_DRAWS = 1500  # for each of them
_MOST = 2.5  # chi-squared over degrees of freedom, far above what uniform draws give

Method = Callable[..., Any]


class _Candidates(NamedTuple):
    history: Any  # the loader's own, to know it again
    n_users: int
    n_items: int
    seen: Graph
    items: Tensor


class Sampler:
    """`_sample_neg_ids` by `ops.sample_negatives`, seeded from Python's `random`: uniform as before, other draws."""

    piece = "sampler"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._known: WeakKeyDictionary[Any, _Candidates | None] = WeakKeyDictionary()
        self._proved: dict[Method, bool] = {}

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            if own_functions(cls, "_sample_neg_ids"):
                self.swaps.set(cls, "_sample_neg_ids", self._sampler(cls, vars(cls)["_sample_neg_ids"]))

    def _sampler(self, cls: type, original: Method) -> Method:
        @functools.wraps(original)
        def sample(loader: Any, u_ids: Any) -> Any:
            if original not in self._proved:
                why = self._doubt(cls, original)
                self.report.add(self.piece, f"{cls.__name__}._sample_neg_ids", why is None, why or "")
                self._proved[original] = why is None
            candidates = self._candidates(loader) if self._proved[original] else None
            return original(loader, u_ids) if candidates is None else self._draw(candidates, u_ids)

        return by_place(original, sample)

    def _draw(self, candidates: _Candidates, u_ids: Any) -> Tensor:
        users = torch.from_numpy(np.asarray(u_ids, dtype=np.int64))
        return ops.sample_negatives(users, candidates.seen, candidates.items, random.getrandbits(62))

    def _candidates(self, loader: Any) -> _Candidates | None:
        """Of a loader; made once, and anew when its history or its items are other ones."""
        history = loader.history_items_per_u
        known = self._known.get(loader)
        sizes = len(history), len(loader.all_items)
        if known is not None and known.history is history and (known.n_users, known.n_items) == sizes:
            return known
        items = torch.as_tensor(sorted(loader.all_items), dtype=torch.int64)
        if not len(items) or bool((items.diff() <= 0).any()) or int(items[0]) < 0:
            return None  # drawn more often the more often they stand there
        users = torch.tensor(list(history), dtype=torch.int64)
        lengths = torch.tensor([len(seen) for seen in history.values()])
        col = torch.tensor([item for seen in history.values() for item in seen], dtype=torch.int64)
        shape = (int(users.max()) + 1, max(int(items[-1]), int(col.max())) + 1)
        seen = Graph.from_edges(users.repeat_interleave(lengths), col, None, shape)
        self._known[loader] = known = _Candidates(history, len(history), len(items), seen, items)
        return known

    def _doubt(self, cls: type, original: Method) -> str | None:
        """Whether both draw uniformly from what a user has not seen."""
        loader = bare(cls)
        loader.all_items, loader.history_items_per_u = list(range(_ITEMS)), _SEEN
        loader.all_items_set, loader.all_item_len, loader.config, loader.device = set(range(_ITEMS)), _ITEMS, {}, "cpu"
        users = np.repeat(np.array(list(_SEEN)), _DRAWS)
        try:
            with undisturbed():
                random.seed(1)
                np.random.seed(1)
                theirs = original(loader, users)
                candidates = self._candidates(loader)
                ours = None if candidates is None else self._draw(candidates, users)
        except Exception as error:  # whatever a tree's code may raise
            return f"{type(error).__name__}: {str(error)[:120]}"
        if ours is None or not isinstance(theirs, Tensor) or (theirs.shape, theirs.dtype) != (ours.shape, ours.dtype):
            return "it gives negatives in another form"
        for which, drawn in (("the original", theirs), ("ours", ours)):
            for user, seen in _SEEN.items():
                counts = np.bincount(drawn[users == user].numpy(), minlength=_ITEMS)
                left = [item for item in range(_ITEMS) if item not in seen]
                expected = _DRAWS / len(left)
                chi = ((counts[left] - expected) ** 2 / expected).sum() / (len(left) - 1)
                if counts.sum() != counts[left].sum() or len(counts) > _ITEMS or chi > _MOST:
                    return f"{which} does not draw uniformly from what a user has not seen"
        return None


class _Columns(NamedTuple):
    frame: Any  # to know it again
    pairs: Tensor  # [2, E]: users, items
    users: Any  # [E] numpy, what a sampler is given


class Batches:
    """`_get_neg_sample` and `_get_non_neg_sample` as slices of tensors that are made once a shuffle."""

    piece = "batches"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._columns: WeakKeyDictionary[Any, _Columns] = WeakKeyDictionary()
        self._proved: dict[Method, bool] = {}

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            for name, negatives in (("_get_neg_sample", True), ("_get_non_neg_sample", False)):
                if own_functions(cls, name):
                    self.swaps.set(cls, name, self._batch(cls, vars(cls)[name], negatives))

    def _batch(self, cls: type, original: Method, negatives: bool) -> Method:
        @functools.wraps(original)
        def batch(loader: Any, *args: Any, **kwargs: Any) -> Any:
            if args or kwargs or (negatives and getattr(loader, "neighborhood_loss_required", False)):
                return original(loader, *args, **kwargs)
            if original not in self._proved:
                why = self._doubt(loader, original, negatives)
                self.report.add(self.piece, f"{cls.__name__}.{original.__name__}", why is None, why or "")
                self._proved[original] = why is None
            return self._slice(loader, negatives) if self._proved[original] else original(loader)

        return batch

    def _slice(self, loader: Any, negatives: bool) -> Tensor:
        frame = loader.dataset.df
        columns = self._columns.get(loader)
        if columns is None or columns.frame is not frame:
            users, items = (
                np.ascontiguousarray(frame[loader.config[name]].values, dtype=np.int64)
                for name in ("USER_ID_FIELD", "ITEM_ID_FIELD")
            )
            pairs = torch.from_numpy(np.stack([users, items])).to(loader.device)
            self._columns[loader] = columns = _Columns(frame, pairs, users)
        begin = loader.pr
        loader.pr += loader.step
        pairs = columns.pairs[:, begin : loader.pr]
        if not negatives:
            return pairs.clone()
        drawn = loader._sample_neg_ids(columns.users[begin : loader.pr]).to(loader.device)
        return torch.cat([pairs, drawn.unsqueeze(0)])

    def _doubt(self, loader: Any, original: Method, negatives: bool) -> str | None:
        """Both make the batch that is due, from the same state."""
        begin = loader.pr
        outcomes = []
        try:
            for make in (original, lambda loader: self._slice(loader, negatives)):
                with undisturbed():
                    outcomes.append((make(loader), loader.pr))
                loader.pr = begin
        except Exception as error:  # whatever a tree's code may raise
            return f"{type(error).__name__}: {str(error)[:120]}"
        finally:
            loader.pr = begin
        (theirs, end), (ours, own_end) = outcomes
        same = isinstance(theirs, Tensor) and theirs.dtype == ours.dtype and torch.equal(theirs, ours)
        return None if same and end == own_end else "it makes batches of another form"
