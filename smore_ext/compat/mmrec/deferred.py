"""Matrices over all users and items of which a loss reads the rows of its batch: made for these alone.

Inside a `Step`, functions that make each row of their result from the same row of their arguments are put off; an index
asks for rows, and what comes before it is made for those. Any other use makes all rows, as torch would have done.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.row_nodes import Applied, Given, Node, Request, Spread, origin
from smore_ext.ops.modes import is_plain

Rule = Callable[["Step", Any, tuple[Any, ...], dict[str, Any]], Any]
LEAST = 1 << 12  # rows of a matrix; below, nothing is put off
WIDEST = 512  # columns: rows of a wider one, and of its gradient, cost more to copy than they save
FEW = 0.98  # of a batch's rows: if more are distinct, all are as good
PRODUCTS = ("linear", "mm", "matmul")


class PutOff(Lazy):
    """What a `Step` makes later, or when it closes."""

    is_put_off = True

    def forget(self) -> None:
        """Drops what it was made from: the step is over."""
        raise NotImplementedError


class Deferred(PutOff):
    """A matrix that a `Step` put off."""

    node: Node
    step: Step
    shared: bool  # what is written into it would show in another, or the other way round

    @classmethod
    def of(cls, node: Node, step: Step) -> Deferred:
        if node.live and not torch.is_grad_enabled():
            node = Applied(node.n, Tensor.detach, (node,), {})
        shape = (node.n, *node.sample.shape[1:])
        lazy = cls._of(shape, node.sample, node.live)
        lazy.node, lazy.step, lazy.shared = node, step, False
        step.made(lazy)
        return lazy

    def forget(self) -> None:
        del self.node

    def _make(self) -> Tensor:
        self.step.whole(self)
        return self.node.whole()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        step = next((v.step for v in _flat(args) if isinstance(v, Deferred) and v.step.open), None)
        if step is not None:
            if any(isinstance(v, Deferred) and v.step is not step for v in _flat([*args, *kwargs.values()])):
                args, kwargs = tree_map(lambda v: _of_step(v, step), (args, kwargs))  # kept from an earlier pass
            found = step.put_off(func, args, kwargs)
            if found is not NotImplemented:
                return found
        return super().__torch_function__(func, types, args, kwargs)


class Asked(PutOff):
    """Rows of a `Deferred`, [B, ...]."""

    request: Request
    tracked: bool  # was asked for while gradients are recorded

    @classmethod
    def of(cls, node: Node, index: Tensor, step: Step) -> Asked:
        at, start = origin(node)
        grad = torch.is_grad_enabled()
        lazy = cls._of((index.shape[0], *node.sample.shape[1:]), node.sample, grad and node.live)
        lazy.request, lazy.tracked = Request(at, index + start), grad  # a copy: an index may be written into
        step.made(lazy)
        return lazy

    def forget(self) -> None:
        del self.request

    def _make(self) -> Tensor:
        rows = self.request.get()
        return rows if self.tracked else rows.detach()


def each_once(x: Any, y: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Of rows that were asked for by the same index: those of both that are distinct, and how often each is meant.
    None for anything else, and where hardly any comes twice."""
    if type(x) is not Asked or type(y) is not Asked or not (x.tracked and y.tracked):
        return None
    if x._dense is not None or y._dense is not None:  # somebody has looked at them, and may have changed them
        return None
    index = x.request.index
    if not torch.equal(index, y.request.index):
        return None
    distinct, counts = torch.unique(index, return_counts=True)
    if distinct.shape[0] > FEW * index.shape[0]:
        return None
    return x.request.node.answer(distinct), y.request.node.answer(distinct), counts


class Step(TorchFunctionMode):
    """One pass of a loss.

    rules: by the name of a function, what puts it off.
    whole_before: which of the matrices, counted as they are met, were made whole in an earlier pass: made at once now.
    own: of the pieces, those whose functions may stand for torch's: "dropout", "normalize".
    """

    def __init__(self, rules: Mapping[str, Rule], whole_before: set[int], own: frozenset[str]) -> None:
        super().__init__()
        self.rules, self.whole_before, self.own = rules, whole_before, own
        self.open, self.asked = True, 0
        self._count, self._closing = 0, False
        self._nodes: weakref.WeakSet[Node] = weakref.WeakSet()
        self._given: weakref.WeakValueDictionary[int, Given] = weakref.WeakValueDictionary()
        self._memories: set[int] = set()  # of other tensors that functions which are put off were given
        self._all: list[weakref.ref[PutOff]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.open:
            if writes(func, kwargs):
                if args and isinstance(args[0], Deferred) and args[0].step is self:
                    found = self.put_off(func, args, kwargs)
                    if found is not NotImplemented:
                        return found
                if any(self._holds(value) for value in _flat([*args, *kwargs.values()])):
                    self.settle()
            elif _name(func) in self.rules and not any(issubclass(t, Lazy) for t in types) and _begins(func, args):
                found = self.put_off(func, args, kwargs)
                if found is not NotImplemented:
                    return found
        return func(*args, **kwargs)

    def put_off(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What stands for the result, or NotImplemented."""
        rule = self.rules.get(_name(func))
        if rule is None or torch.is_autocast_enabled("cpu"):
            return NotImplemented
        return rule(self, func, args, kwargs)

    def put(self, node: Node) -> Deferred:
        """A new matrix, made at once if it was in the pass before."""
        node.number = self._count
        self._count += 1
        self._nodes.add(node)
        if isinstance(node, Applied):
            tree_map(self._remember, (node.args, node.kwargs))
        lazy = Deferred.of(node, self)
        if node.number in self.whole_before:
            node.whole()
        return lazy

    def _remember(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._memories.add(_memory(value))

    def apply(self, n: int, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A function of rows; NotImplemented where two rows show that it is none."""
        try:
            return self.put(Applied(n, function, args, kwargs))
        except (TypeError, ValueError, RuntimeError, IndexError):
            return NotImplemented  # torch says what is wrong

    def spread(self, left: Tensor, x: Tensor) -> Deferred:
        """A sparse matrix times x, of which all rows are needed then: the next pass makes them at once."""
        of = self.node_of(x)
        self._remember(left._values() if left.layout == torch.sparse_coo else left.values())
        if not isinstance(of, Spread):  # several in a row may become one
            self.needed(of)
        return self.put(Spread(left, of))

    def ask(self, node: Node, index: Tensor) -> Asked:
        self.asked += 1
        return Asked.of(node, index, self)

    def node_of(self, value: Tensor) -> Node:
        if isinstance(value, Deferred):
            return value.node
        found = self._given.get(id(value))
        if found is None:
            self._given[id(value)] = found = Given(value)
            self._nodes.add(found)
        return found

    def made(self, lazy: PutOff) -> None:
        self._all.append(weakref.ref(lazy))

    def whole(self, lazy: Deferred) -> None:
        """Told before all rows are made."""
        if not self._closing:
            self.needed(lazy.node)

    def needed(self, node: Node) -> None:
        """All rows of it, and of what it is made from: the next pass makes them at once."""
        self.whole_before.update(one.number for one in above(node) if one.number >= 0)

    def settle(self) -> None:
        """Makes all that somebody can still see: what they are made from is about to change, or the pass is over."""
        seen = [lazy for ref in self._all if (lazy := ref()) is not None]
        for lazy in sorted(seen, key=lambda lazy: type(lazy) is not Asked):
            lazy.dense()

    def _holds(self, value: Any) -> bool:
        """Whether something that is put off is made from this tensor's memory."""
        if isinstance(value, Deferred):
            return True
        if not isinstance(value, Tensor) or isinstance(value, Lazy):
            return False
        if not is_plain(value):
            return True  # who knows
        if value.layout != torch.strided:
            return bool(self._memories)
        made = [node for node in self._nodes if node.made]
        return _memory(value) in self._memories or any(_memory(node.whole()) == _memory(value) for node in made)

    def close(self) -> None:
        """What outlives the pass is made, as a later change of the parameters would show in it."""
        self._closing = True
        try:
            self.settle()
        finally:
            self.open = False
            for lazy in [ref() for ref in self._all]:
                if isinstance(lazy, PutOff):
                    lazy.forget()
            self._memories.clear()
            self._all.clear()

    def __enter__(self) -> Step:
        _running.steps = [*_steps(), self]
        super().__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        super().__exit__(*about)
        _running.steps = [step for step in _steps() if step is not self]
        with contextlib.nullcontext() if about[0] is None else contextlib.suppress(Exception):
            self.close()


_running = threading.local()  # as modes are


def _steps() -> list[Step]:
    return getattr(_running, "steps", [])


def in_step() -> bool:
    return bool(_steps())


def _of_step(value: Any, step: Step) -> Any:
    return value.dense() if isinstance(value, Deferred) and value.step is not step else value


def step_for(x: Any) -> Step | None:
    """The step that can put off what is made of x."""
    if isinstance(x, Deferred):
        return x.step if x.step.open and x.ndim == 2 else None
    return _steps()[-1] if _steps() and torch.is_grad_enabled() and _starts(x) else None


def above(node: Node) -> set[Node]:
    """The node and all that it is made from, but for what is made already and products."""
    found, left = set(), [node]
    while left:
        one = left.pop()
        if one in found or one.made or (isinstance(one, Spread) and one is not node):
            continue
        found.add(one)
        left += one.made_of()
    return found


_OPERATORS = ("add", "sub", "mul", "div", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_WRITES = {"__setitem__", "__set__", *(f"__i{name}__" for name in _OPERATORS)}


def writes(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a function of torch changes an argument."""
    if kwargs.get("inplace") or kwargs.get("out") is not None:
        return True
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in _WRITES
    return bool(name.endswith("_")) and name != "requires_grad_"


def _name(func: Any) -> str:
    return getattr(func, "__name__", "").removeprefix("__").removesuffix("__")


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _flat(args: Any) -> list[Any]:
    """Arguments, and what is in those that are lists."""
    return [one for value in args for one in ([*value, value] if isinstance(value, list | tuple) else [value])]


def _begins(func: Any, args: Any) -> bool:
    """Whether what a function makes of tensors is put off: of a trained matrix, or of a frozen one times one."""
    values = _flat(args)
    if not torch.is_grad_enabled():
        return False
    trained = any(isinstance(value, Tensor) and value.requires_grad for value in values[1:])
    return any(map(_starts, values)) or (_name(func) in PRODUCTS and trained and _is_long(values[0]))


def _starts(value: Any) -> bool:
    return _is_long(value) and value.requires_grad and value.shape[1] <= WIDEST


def _is_long(value: Any) -> bool:
    return is_matrix(value) and value.shape[0] >= LEAST and value.device.type == "cpu"
