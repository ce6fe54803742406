"""What is still to be computed of matrices with one row a node, a row at a time or all at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from smore_ext import ops

_SAMPLE = 2  # rows that tell what shape and kind the others have
_MOST = 0.75  # of all rows: if a batch names more, all are made


@contextmanager
def _plainly() -> Iterator[None]:
    """By torch's own functions, in a state that does not depend on who asks first."""
    calmly = torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False)
    with torch._C.DisableTorchFunction(), calmly[0], calmly[1], calmly[2]:
        yield


class RowSet:
    """Rows of a matrix of n rows: each once, in order."""

    def __init__(self, rows: Tensor, n: int) -> None:
        self.rows, self.n = rows, n
        self._place: Tensor | None = None
        self._others: dict[tuple[int, int], RowSet] = {}

    def places(self, rows: Tensor) -> Tensor:
        """Where in the set these stand; -1 for those that do not."""
        if self._place is None:
            self._place = torch.full((self.n,), -1)
            self._place[self.rows] = torch.arange(self.rows.shape[0])
        return self._place[rows]

    def within(self, start: int, n: int) -> RowSet:
        """Those that lie in a piece of the matrix, as rows of it; of a whole that has it as a piece if start < 0."""
        if (start, n) not in self._others:
            rows = self.rows
            if start > 0 or n < self.n:
                first, last = torch.searchsorted(rows, torch.tensor([max(start, 0), start + n])).tolist()
                rows = rows[first:last]
            self._others[start, n] = RowSet(rows - start, n)
        return self._others[start, n]


class Node:
    """A matrix [n, ...] of which rows can be had alone. `sample` are two of its rows, or like them."""

    def __init__(self, n: int, sample: Tensor, live: bool) -> None:
        self.n, self.sample, self.live = n, sample, live
        self.number = -1  # in its pass
        self.waiting: list[weakref.ref[Request]] = []
        self._whole: Tensor | None = None
        self._known: list[tuple[RowSet, Tensor]] = []

    def _make(self) -> Tensor:
        raise NotImplementedError

    def _rows(self, rows: RowSet) -> Tensor:
        raise NotImplementedError

    def made_of(self) -> list[Node]:
        return []

    @property
    def made(self) -> bool:
        return self._whole is not None

    def whole(self) -> Tensor:
        if self._whole is None:
            with _plainly():
                self._whole = self._make()
        return self._whole

    def at(self, rows: RowSet) -> Tensor:
        for known, value in self._known:
            if known is rows:
                return value
        value = self._rows(rows) if self._whole is None else gathered(self._whole, rows.rows)
        self._known.append((rows, value))
        return value

    def answer(self, index: Tensor) -> Tensor:
        """whole()[index]; all that wait for rows of this node are answered together."""
        with _plainly():
            for known, value in self._known if self._whole is None else ():
                places = known.places(index)
                if bool((places >= 0).all()):
                    return gathered(value, places)
            found = (ref() for ref in self.waiting)
            requests, self.waiting = [r for r in found if r is not None and r.value is None], []
            indices = [r.index for r in requests]
            if all(own is not index for own in indices):
                indices.append(index)
            together = torch.cat(indices)
            if self._whole is None:
                rows = RowSet(torch.unique(together), self.n)
                if rows.rows.shape[0] <= _MOST * self.n:
                    values = gathered(self.at(rows), rows.places(together))
                else:
                    values = gathered(self.whole(), together)
            else:
                values = gathered(self._whole, together)
            parts, start = {}, 0
            for own in indices:  # not by split, whose results nobody may write into
                parts[id(own)] = values if len(indices) == 1 else values[start : start + len(own)]
                start += len(own)
            for request in requests:
                request.value = parts[id(request.index)]
            return parts[id(index)]


class Request:
    """Rows of a node that somebody asked for and has not looked at."""

    def __init__(self, node: Node, index: Tensor) -> None:
        self.node, self.index = node, index
        self.value: Tensor | None = None
        node.waiting.append(weakref.ref(self))

    def get(self) -> Tensor:
        if self.value is None:
            self.value = self.node.answer(self.index)
        return self.value


class Given(Node):
    """A tensor."""

    def __init__(self, tensor: Tensor) -> None:
        with torch._C.DisableTorchFunction():
            sample = tensor.detach()[:_SAMPLE]
        super().__init__(tensor.shape[0], sample, tensor.requires_grad)
        self._whole = tensor


class Applied(Node):
    """A function that makes each row of its result from the same row of its arguments."""

    def __init__(self, n: int, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        with torch._C.DisableTorchFunction():
            with torch.no_grad():
                sample = function(*tree_map(_sampled, args), **tree_map(_sampled, kwargs))
            if not isinstance(sample, Tensor) or not sample.ndim or sample.shape[0] != _SAMPLE:
                raise TypeError("its result has other rows")
            self.grad = torch.is_grad_enabled()
            self.function, self.args, self.kwargs = function, args, kwargs
            found: list[bool] = []
            tree_map(lambda v: found.append(v.live if isinstance(v, Node) else _requires(v)), (args, kwargs))
            super().__init__(n, sample.detach(), self.grad and any(found) and sample.is_floating_point())

    def made_of(self) -> list[Node]:
        found: list[Any] = []
        tree_map(found.append, (self.args, self.kwargs))
        return [value for value in found if isinstance(value, Node)]

    def _call(self, of: Callable[[Node], Tensor]) -> Tensor:
        def value(v: Any) -> Any:
            return of(v) if isinstance(v, Node) else v

        args, kwargs = tree_map(value, (self.args, self.kwargs))
        with torch.set_grad_enabled(self.grad):
            return self.function(*args, **kwargs)

    def _make(self) -> Tensor:
        return self._call(Node.whole)

    def _rows(self, rows: RowSet) -> Tensor:
        return self._call(lambda node: node.at(rows))


class Dropped(Node):
    """Dropout of a matrix. A row has one mask in a pass, whoever asks for it, and with whichever others."""

    def __init__(self, of: Node, p: float, seed: int) -> None:
        super().__init__(of.n, of.sample, of.live and torch.is_grad_enabled())
        self.of, self.p, self.seed = of, p, seed
        self.grad = torch.is_grad_enabled()
        self._drawn: list[tuple[RowSet, Tensor]] = []
        self._count = 0

    def made_of(self) -> list[Node]:
        return [self.of]

    def _mask(self, rows: RowSet) -> Tensor:
        ones = torch.ones(rows.rows.shape[0], *self.sample.shape[1:], dtype=self.sample.dtype)
        mask = ops.dropout(ones, self.p, self.seed, self._count)
        self._count += mask.numel()
        for known, drawn in self._drawn:
            place = known.places(rows.rows)
            there = (place >= 0).nonzero().squeeze(1)
            mask[there] = drawn[place[there]]
        self._drawn.append((rows, mask))
        return mask

    def _times(self, x: Tensor, rows: RowSet) -> Tensor:
        with torch.set_grad_enabled(self.grad):
            return x * self._mask(rows)

    def _make(self) -> Tensor:
        return self._times(self.of.whole(), RowSet(torch.arange(self.n), self.n))

    def _rows(self, rows: RowSet) -> Tensor:
        return self._times(self.of.at(rows), rows)


class Joined(Node):
    """Matrices one under the other."""

    def __init__(self, parts: list[Node]) -> None:
        super().__init__(sum(part.n for part in parts), parts[0].sample, any(part.live for part in parts))
        self.parts = parts

    def made_of(self) -> list[Node]:
        return self.parts

    def _make(self) -> Tensor:
        return torch.cat([part.whole() for part in self.parts])

    def _rows(self, rows: RowSet) -> Tensor:
        found, start = [], 0
        for part in self.parts:
            inside = rows.within(start, part.n)
            if inside.rows.shape[0]:
                found.append(part.at(inside))
            start += part.n
        return found[0] if len(found) == 1 else torch.cat(found)


class Piece(Node):
    """Rows start to start + n of another."""

    def __init__(self, of: Node, start: int, n: int) -> None:
        super().__init__(n, of.sample, of.live)
        self.of, self.start = of, start

    def made_of(self) -> list[Node]:
        return [self.of]

    def _make(self) -> Tensor:
        return self.of.whole()[self.start : self.start + self.n]

    def _rows(self, rows: RowSet) -> Tensor:
        return self.of.at(rows.within(-self.start, self.of.n))


class Spread(Node):
    """A sparse matrix of constant values times a matrix, all rows of which it needs."""

    def __init__(self, left: Tensor, of: Node) -> None:
        super().__init__(left.shape[0], of.sample, of.live)
        self.left, self.of = left, of

    def _make(self) -> Tensor:
        return ops.spmm(self.left, self.of.whole())

    def _rows(self, rows: RowSet) -> Tensor:
        return gathered(self.whole(), rows.rows)


class MeanOfLayers(Spread):
    """The mean of x, A x, A A x, ..., to `n_layers` products."""

    def __init__(self, left: Tensor, of: Node, n_layers: int) -> None:
        super().__init__(left, of)
        self.n_layers = n_layers

    @classmethod
    def of_parts(cls, parts: list[Node]) -> MeanOfLayers | None:
        """None where they are something else, or where single layers are there already."""
        first, last = parts[0], parts[-1]
        if type(last) is not Spread or last.left.shape[0] != last.left.shape[1]:
            return None
        for before, part in zip(parts, parts[1:], strict=False):
            if type(part) is not Spread or part.of is not before or part.left is not last.left or part.made:
                return None
        return cls(last.left, first, len(parts) - 1)

    def _make(self) -> Tensor:
        return ops.propagate(self.left, self.of.whole(), self.n_layers)


def origin(node: Node) -> tuple[Node, int]:
    """The node whose piece this is, and where in it."""
    start = 0
    while isinstance(node, Piece):
        start += node.start
        node = node.of
    return node, start


def gathered(x: Tensor, index: Tensor) -> Tensor:
    if x.ndim == 2 and x.dtype in (torch.float32, torch.float64):
        return ops.gather_rows(x, index)
    return x.index_select(0, index)


def _sampled(value: Any) -> Any:
    return value.sample if isinstance(value, Node) else value


def _requires(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
