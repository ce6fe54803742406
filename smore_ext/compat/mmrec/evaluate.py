"""`Trainer.evaluate` without a score matrix, and the metrics of an evaluator without loops over users."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode

from smore_ext import ops
from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.proof import bare, classes_of, difference, draws, own_functions, undisturbed
from smore_ext.compat.mmrec.recent import Recent
from smore_ext.compat.mmrec.report import Report
from smore_ext.compat.mmrec.swaps import Swaps
from smore_ext.evaluation.metrics import user_metrics
from smore_ext.graph import Graph

_USERS = 64  # of the sample that an evaluation is tried on
_ROUNDED = 1.01e-4  # metrics come rounded to four places
_PLACES = 4

Evaluate = Callable[..., Any]


class _Lists(NamedTuple):
    """What an evaluation loader holds."""

    users: Tensor  # [V] int64
    seen: Graph  # [V, I], row r: what is masked for users[r]


class _Factors(NamedTuple):
    """A model's scores as a product, and the state that it was in."""

    state: tuple[Any, ...]
    users: Tensor  # [U, d]
    items: Tensor  # [I, d]


class _Ranking(NamedTuple):
    """What was ranked last for a model."""

    factors: _Factors
    lists: _Lists
    k: int
    items: Tensor  # [V, k]


class _LazyScores(Lazy):
    left: Tensor  # [B, d]
    right: Tensor  # [d, I]

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> _LazyScores:
        scores = cls._of((left.shape[0], right.shape[1]), left, False, left, right)
        scores.left, scores.right = left, right
        return scores

    def _make(self) -> Tensor:
        return torch.einsum("bd,di->bi", self.left, self.right)


class _Unmultiplied(TorchFunctionMode):
    """Leaves products [B, d] @ [d, I] undone."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not kwargs and len(args) == 2 and func.__name__.strip("_") in ("mm", "matmul"):
            left, right = args
            if is_matrix(left) and is_matrix(right) and (left.shape[0], right.shape[1]) == self.shape:
                return _LazyScores.of(left, right)
        return func(*args, **(kwargs or {}))


class Evaluation:
    piece = "evaluation"

    def __init__(self, report: Report, swaps: Swaps) -> None:
        self.report, self.swaps = report, swaps
        self._steps = 0  # of any optimizer: fused ones do not raise the version of what they step
        self._hook = register_optimizer_step_post_hook(self._stepped)
        self._lists: WeakKeyDictionary[Any, tuple[list[Any], _Lists]] = WeakKeyDictionary()
        self._relevant: WeakKeyDictionary[Any, tuple[Any, Graph | None]] = WeakKeyDictionary()
        self._factors: WeakKeyDictionary[nn.Module, _Factors] = WeakKeyDictionary()
        self._rankings: WeakKeyDictionary[nn.Module, _Ranking] = WeakKeyDictionary()
        self._same: Recent[tuple[_Lists, _Lists, Tensor]] = Recent()
        self._trainers: WeakKeyDictionary[nn.Module, dict[bool, bool]] = WeakKeyDictionary()  # by is_test
        self._evaluators: dict[Evaluate, bool] = {}

    def _stepped(self, *_: Any) -> None:
        self._steps += 1

    def stop(self) -> None:
        self._hook.remove()
        self._factors.clear()
        self._rankings.clear()

    def visit(self, module: ModuleType) -> None:
        for cls in classes_of(module):
            if own_functions(cls, "evaluate", "_valid_epoch"):
                self.swaps.set(cls, "evaluate", self._of_trainer(vars(cls)["evaluate"]))
            elif own_functions(cls, "evaluate", "_calculate_metrics"):
                self.swaps.set(cls, "evaluate", self._of_evaluator(vars(cls)["evaluate"]))

    # a trainer

    def _of_trainer(self, original: Evaluate) -> Evaluate:
        parameters = list(inspect.signature(original).parameters)

        @functools.wraps(original)
        def evaluate(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            given = dict(zip(parameters[1:], args, strict=False)) | kwargs
            if not {"eval_data"} <= given.keys() <= {"eval_data", "is_test", "idx"} or len(args) >= len(parameters):
                return original(trainer, *args, **kwargs)  # a fork's own way
            eval_data, is_test, idx = given["eval_data"], bool(given.get("is_test", False)), given.get("idx", 0)
            fresh = trainer.model.training  # it was trained since, whatever else says so
            good = self._trainers.setdefault(trainer.model, {})
            if is_test not in good:
                why = self._doubt(trainer, eval_data, original, is_test)
                name = f"{type(trainer).__name__}.evaluate of {type(trainer.model).__name__}{' in test' * is_test}"
                told = why or "one forward pass, and one list a user, for validation and test"
                self.report.add(self.piece, name, why is None, told)
                good[is_test] = why is None
            ranked = self._ranked(trainer, eval_data, fresh) if good[is_test] else None
            if ranked is None:
                return original(trainer, *args, **kwargs)
            return trainer.evaluator.evaluate([ranked], eval_data, is_test=is_test, idx=idx)

        return evaluate

    def _doubt(self, trainer: Any, eval_data: Any, original: Evaluate, is_test: bool) -> str | None:
        """Why a model is not evaluated by us. Tried on a few users; nothing that is drawn is missed later."""
        model, few = trainer.model, _few(eval_data)
        writes = vars(trainer.evaluator).get("save_recom_result")
        if is_test and writes is None:
            return "whether it writes lists in test is not known"
        model.eval()
        try:
            with undisturbed(), torch.no_grad():
                batch = next(iter(_copy(few)))
                with _Unmultiplied((len(batch[0]), model.n_items)):
                    scores, random = draws(lambda: model.full_sort_predict(batch))
                if random:
                    return "it draws random numbers when it scores: one forward pass a batch, as it was"
                if type(scores) is not _LazyScores:
                    return "its scores are no product of user and item embeddings"
                ranked = self._ranked(trainer, few, fresh=True)
                if ranked is None:
                    return "too few items are left to rank, or scores are not finite"
                trainer.evaluator.save_recom_result = False
                theirs = original(trainer, few, is_test=is_test)
                ours = trainer.evaluator.evaluate([ranked], few, is_test=is_test, idx=0)
        except Exception as error:  # whatever a tree's code may raise
            return f"{type(error).__name__}: {str(error)[:120]}"
        finally:
            if writes is None:
                vars(trainer.evaluator).pop("save_recom_result", None)
            else:
                trainer.evaluator.save_recom_result = writes
            self._factors.pop(model, None)
            self._rankings.pop(model, None)
        if theirs.keys() != ours.keys():
            return "it reports other metrics"
        worst = max(theirs, key=lambda name: abs(theirs[name] - ours[name]), default=None)
        if worst is not None and abs(theirs[worst] - ours[worst]) > _ROUNDED:
            return f"{worst} of a sample is {ours[worst]} in place of {theirs[worst]}"
        return None

    @torch.no_grad()
    def _ranked(self, trainer: Any, eval_data: Any, fresh: bool) -> Tensor | None:
        """[V, K] items in order of score, or None where the original has to decide."""
        model = trainer.model
        model.eval()
        factors = self._factors_of(model, fresh)
        if factors is None:
            return None
        lists = self._lists_of(eval_data, model.n_items)
        ks = trainer.config["topk"]
        k = max([ks] if isinstance(ks, int) else ks)
        if k > lists.seen.n_cols:
            return None
        index = self._index(model, factors, lists, k)
        return None if bool((index < 0).any()) else index

    def _index(self, model: Any, factors: _Factors, lists: _Lists, k: int) -> Tensor:
        """[V, k]. Who was ranked before, for validation, with the same items masked, has the same list in test."""
        known = self._rankings.get(model)
        if known is None or known.factors is not factors or known.k != k:
            index = ops.masked_topk(factors.users[lists.users], factors.items, k, lists.seen)[1]
            self._rankings[model] = _Ranking(factors, lists, k, index)
            return index
        before = self._rows_of(known.lists, lists)
        index, new = known.items[before], (before < 0).nonzero().squeeze(1)
        if len(new):
            users = factors.users[lists.users[new]]
            index[new] = ops.masked_topk(users, factors.items, k, lists.seen.rows(new))[1]
        return index

    def _rows_of(self, known: _Lists, lists: _Lists) -> Tensor:
        """For each row of `lists` the row of `known` with the same user and the same items masked, or -1."""
        found = self._same.find(lambda pair: pair[0] is known and pair[1] is lists)
        if found is None:
            found = known, lists, _rows_of(known, lists)
            self._same.add(found)
        return found[2]

    def _factors_of(self, model: Any, fresh: bool) -> _Factors | None:
        tensors = [*model.parameters(), *model.buffers()]
        state = (self._steps, *map(_state_of, tensors))
        known = self._factors.get(model)
        if known is not None and known.state == state and not fresh:
            return known
        n_users, n_items, device = model.n_users, model.n_items, tensors[0].device
        nobody = torch.empty(2, 0, dtype=torch.int64, device=device)
        with _Unmultiplied((n_users, n_items)):
            scores = model.full_sort_predict([torch.arange(n_users, device=device), nobody])
        if type(scores) is not _LazyScores:
            return None
        users, items = scores.left.contiguous(), scores.right.t().contiguous()
        if not bool(torch.isfinite(users).all() and torch.isfinite(items).all()):
            return None
        self._factors[model] = factors = _Factors(state, users, items)
        return factors

    def _lists_of(self, eval_data: Any, n_items: int) -> _Lists:
        state = _attributes(eval_data, "eval_u", "pos_items_per_u", "train_pos_len_list")
        if eval_data in self._lists and _same(self._lists[eval_data][0], state):
            return self._lists[eval_data][1]
        users, rows, items, n = [], [], [], 0
        for batch in _copy(eval_data):
            users.append(batch[0])
            rows.append(batch[1][0] + n)
            items.append(batch[1][1])
            n += len(batch[0])
        seen = Graph.from_edges(torch.cat(rows), torch.cat(items), None, (n, n_items))
        lists = _Lists(torch.cat(users), seen)
        if not getattr(eval_data, "shuffle", True):
            self._lists[eval_data] = state, lists
        return lists

    # an evaluator

    def _of_evaluator(self, original: Evaluate) -> Evaluate:
        @functools.wraps(original)
        def evaluate(
            evaluator: Any, batch_matrix_list: list[Tensor], eval_data: Any, is_test: bool = False, idx: int = 0
        ) -> Any:
            if original not in self._evaluators:
                why = self._doubt_metrics(type(evaluator), original)
                self.report.add(self.piece, f"{type(evaluator).__name__}.evaluate", why is None, why or "metrics")
                self._evaluators[original] = why is None
            writes = is_test and getattr(evaluator, "save_recom_result", True)  # a file of lists is theirs to write
            if self._evaluators[original] and not writes:
                metrics = self._metrics(evaluator, batch_matrix_list, eval_data)
                if metrics is not None:
                    return metrics
            return original(evaluator, batch_matrix_list, eval_data, is_test, idx)

        return evaluate

    def _metrics(self, evaluator: Any, batch_matrix_list: list[Tensor], eval_data: Any) -> dict[str, Any] | None:
        names = [name for name in evaluator.metrics if name != "recall2"]
        if not set(names) <= {"recall", "precision", "ndcg", "map"}:
            return None
        ranked = torch.cat(batch_matrix_list).cpu()
        relevant = self._relevant_of(eval_data)
        if relevant is None or relevant.n_rows != len(ranked) or ranked.shape[1] < max(evaluator.topk):
            return None
        if bool((ranked >= relevant.n_cols).any()):
            relevant = Graph.from_edges(relevant.row, relevant.col, None, (len(ranked), int(ranked.max()) + 1))
            self._relevant[eval_data] = self._relevant[eval_data][0], relevant
        values = user_metrics(ranked, relevant, evaluator.topk, [*dict.fromkeys([*names, "recall"])])
        means = {name: value.mean().item() for name, value in values.items()}
        if "recall2" in evaluator.metrics:  # all hits over all relevant items
            lengths = relevant.rowptr.diff().double()
            means |= {
                f"recall2@{k}": float((values[f"recall@{k}"] * lengths).sum() / lengths.sum()) for k in evaluator.topk
            }
        keys = [f"{name}@{k}" for name in evaluator.metrics for k in evaluator.topk]
        return {key: round(np.float64(means[key]), _PLACES) for key in keys}

    def _relevant_of(self, eval_data: Any) -> Graph | None:
        """[V, I] of the items to be found; None where a user has none, or one twice."""
        given = eval_data.get_eval_items()
        if eval_data not in self._relevant or self._relevant[eval_data][0] is not given:
            items = [np.asarray(items) for items in given]
            lengths = torch.tensor([len(i) for i in items])
            col = torch.from_numpy(np.concatenate(items).astype(np.int64))
            row = torch.arange(len(items)).repeat_interleave(lengths)
            graph = Graph.from_edges(row, col, None, (len(items), int(col.max()) + 1))
            same = bool((lengths > 0).all()) and graph.n_edges == len(col)
            same = same and np.array_equal(np.asarray(eval_data.get_eval_len_list()), lengths.numpy())
            self._relevant[eval_data] = given, graph if same else None
        return self._relevant[eval_data][1]

    def _doubt_metrics(self, cls: type, original: Evaluate) -> str | None:
        evaluator = bare(cls)
        evaluator.config, evaluator.topk, evaluator.save_recom_result = {}, [1, 3, 6], False
        evaluator.metrics = ["recall", "recall2", "precision", "ndcg", "map"]
        generator = torch.Generator().manual_seed(5)
        ranked = torch.stack([torch.randperm(15, generator=generator)[:6] for _ in range(9)])
        items = [torch.randperm(15, generator=generator)[: 1 + i].numpy() for i in range(9)]
        lengths = np.array([len(i) for i in items])
        data = _Sample(items, lengths)
        try:
            with undisturbed():
                theirs = original(evaluator, [ranked[:5], ranked[5:]], data)
                ours = self._metrics(evaluator, [ranked[:5], ranked[5:]], data)
        except Exception as error:  # whatever a tree's code may raise
            return f"{type(error).__name__}: {str(error)[:120]}"
        return difference("a metric", theirs, ours)


def _rows_of(known: _Lists, lists: _Lists) -> Tensor:
    most = int(torch.cat([known.users, lists.users]).max()) + 1
    place = torch.full((most,), -1, device=known.users.device)
    place[known.users] = torch.arange(len(known.users), device=known.users.device)
    row = place[lists.users]
    lengths, others = lists.seen.rowptr.diff(), known.seen.rowptr.diff()[row]
    row = torch.where((row >= 0) & (lengths == others), row, -1)
    there = (row >= 0).nonzero().squeeze(1)
    ours, theirs = lists.seen.rows(there), known.seen.rows(row[there])
    apart = (ours.col != theirs.col).nonzero().squeeze(1)
    row[there[ours.row[apart]]] = -1
    return row


def _state_of(tensor: Tensor) -> tuple[Any, ...]:
    """What tells that a parameter is as it was: `.data` and fused optimizers change values and no version."""
    values = tensor.detach()
    if values.layout != torch.strided:
        return id(tensor), tensor._version
    words = values.contiguous().view(-1).view(torch.uint8 if values.element_size() % 4 else torch.int32)
    return id(tensor), tensor.data_ptr(), tensor._version, int(words.sum(dtype=torch.int64))


def _attributes(of: Any, *names: str) -> list[Any]:
    return [getattr(of, name, None) for name in names]


def _same(before: list[Any], now: list[Any]) -> bool:
    return all(a is b for a, b in zip(before, now, strict=True))


class _Sample:
    """An evaluation loader of a few users."""

    def __init__(self, items: list[Any], lengths: Any) -> None:
        self.items, self.lengths = items, lengths

    def get_eval_items(self) -> list[Any]:
        return self.items

    def get_eval_len_list(self) -> Any:
        return self.lengths


def _copy(eval_data: Any) -> Any:
    """Not by `copy`, which leaves a mark in the class."""
    copied = bare(type(eval_data))
    vars(copied).update(vars(eval_data))
    return copied


def _few(eval_data: Any) -> Any:
    """The first users of an evaluation loader; all, if it is not made as MMRec's are."""
    few = _copy(eval_data)
    try:
        n_seen = int(sum(few.train_pos_len_list[:_USERS]))
        for name in ("eval_u", "eval_items_per_u", "eval_len_list", "train_pos_len_list"):
            setattr(few, name, getattr(few, name)[:_USERS])
        few.pos_items_per_u = few.pos_items_per_u[:, :n_seen]
        few.pr = few.inter_pr = 0
    except (AttributeError, TypeError, IndexError):
        return _copy(eval_data)
    return few
