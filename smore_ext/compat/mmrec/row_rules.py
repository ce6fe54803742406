"""Which of torch's functions make each row of their result from the same row of their arguments, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smore_ext.compat.mmrec.deferred import PRODUCTS, Deferred, PutOff, Rule, Step
from smore_ext.compat.mmrec.matmul import is_matrix
from smore_ext.compat.mmrec.row_nodes import Dropped, Joined, MeanOfLayers, Node, Piece
from smore_ext.compat.mmrec.unit_rows import of_rows, unit_rows

ALL = slice(None)


class Stack(PutOff):
    """`torch.stack(parts)`, of which mostly the mean over parts is wanted. What a part is later does not show in it."""

    nodes: list[Node]
    along: int
    step: Step

    @classmethod
    def of(cls, step: Step, parts: list[Any], along: int) -> Stack:
        shape = list(parts[0].shape)
        shape.insert(along, len(parts))
        live = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
        stack = cls._of(tuple(shape), parts[0], live)
        stack.step, stack.nodes, stack.along = step, [step.node_of(part) for part in parts], along
        step.made(stack)
        return stack

    def forget(self) -> None:
        self.nodes = []

    def _make(self) -> Tensor:
        for node in self.nodes:
            self.step.needed(node)
        with torch._C.DisableTorchFunction():
            return torch.stack([node.whole() for node in self.nodes], dim=self.along)


def _over_parts(mean: bool) -> Callable[..., Any]:
    def rule(stack: Stack, dim: Any = None, keepdim: bool = False, **more: Any) -> Any:
        dim = dim[0] if isinstance(dim, list | tuple) and len(dim) == 1 else dim
        if more or keepdim or type(dim) is not int or dim % stack.ndim != stack.along or not stack.step.open:
            return NotImplemented
        if stack._dense is not None:
            return NotImplemented
        layers = MeanOfLayers.of_parts(stack.nodes) if mean else None
        if layers is not None:
            return stack.step.put(layers)
        return stack.step.apply(stack.nodes[0].n, _mean if mean else _sum, tuple(stack.nodes), {})

    return rule


Stack.rules = {"mean": _over_parts(True), "sum": _over_parts(False)}


def _sum(first: Tensor, second: Tensor, *others: Tensor) -> Tensor:
    total = first + second
    for part in others:
        total += part
    return total


def _mean(*parts: Tensor) -> Tensor:
    return _sum(*parts).div_(len(parts))


def _applied(step: Step, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`function` with every matrix of n rows among its arguments by rows; n is that of the first."""
    if kwargs.get("out") is not None:
        return NotImplemented
    tensors = [v for v in (*args, *kwargs.values(), *(args[0] if isinstance(args[0], list) else ())) if _is(v)]
    rows = next((v for v in tensors if isinstance(v, Deferred)), None)
    if rows is None:
        rows = max((v for v in tensors if is_matrix(v)), key=lambda v: v.shape[0], default=None)
    if rows is None:
        return NotImplemented
    n, ndim = rows.shape[0], max(v.ndim for v in tensors)

    def by_rows(value: Any) -> Any:
        if not _is(value):
            return value
        if value.ndim == ndim and value.shape[0] == n and (isinstance(value, Deferred) or _is_plain(value)):
            return step.node_of(value)
        if not _is_plain(value) or (value.ndim == ndim and value.shape[0] != 1):
            raise TypeError("it has other rows")
        return value

    try:
        own = tuple([by_rows(x) for x in v] if isinstance(v, list) else by_rows(v) for v in args)
        named = {name: by_rows(v) for name, v in kwargs.items()}
    except TypeError:
        return NotImplemented
    return step.apply(n, function, own, named)


def _is(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_plain(value: Any) -> bool:
    return type(value) in (Tensor, torch.nn.Parameter) and value.layout == torch.strided


def _elementwise(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return NotImplemented if kwargs.get("inplace") else _applied(step, func, args, kwargs)


def _along(place: int, usual: int | None) -> Rule:
    """Functions along the dimensions that argument `place`, or `dim`, names: if the rows are not one of them."""

    def rule(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        dim = args[place] if len(args) > place else kwargs.get("dim", usual)
        dims = list(dim) if isinstance(dim, list | tuple) else [dim]
        if not _is(args[0]) or not dims:
            return NotImplemented
        if any(type(d) is not int or d % args[0].ndim == 0 for d in dims):
            return NotImplemented
        return _applied(step, func, args, kwargs)

    return rule


def _normalize(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if "normalize" in step.own and len(args) == 1 and of_rows(args[0], **kwargs) and args[0].requires_grad:
        return _applied(step, unit_rows, (args[0], kwargs.get("eps", 1e-12)), {})
    return _along(2, 1)(step, func, args, kwargs)


def _product(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A matrix times a small one, and a bias."""
    left, *others = args
    if kwargs.keys() - {"mat2", "other", "weight", "bias"}:
        return NotImplemented
    others += kwargs.values()
    if not (isinstance(left, Deferred) or is_matrix(left)) or left.ndim != 2:
        return NotImplemented
    if any(v is not None and not (_is_plain(v) and v.ndim <= 2) for v in others):
        return NotImplemented
    return step.apply(left.shape[0], func, (step.node_of(left), *args[1:]), kwargs)


def _cat(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parts, dim = args[0], args[1] if len(args) == 2 else kwargs.get("dim", 0)
    if kwargs.keys() - {"dim"} or len(args) > 2 or not isinstance(parts, list | tuple) or not parts:
        return NotImplemented
    if any(not (isinstance(part, Deferred) or is_matrix(part)) for part in parts):
        return NotImplemented
    if type(dim) is not int or not -parts[0].ndim <= dim < parts[0].ndim:
        return NotImplemented
    if dim % parts[0].ndim:
        return _applied(step, func, (list(parts), dim), {})
    first = parts[0]
    if any((p.shape[1:], p.dtype, p.device) != (first.shape[1:], first.dtype, first.device) for p in parts):
        return NotImplemented
    if min(part.shape[0] for part in parts) < 2:  # a node has two rows to try functions on
        return NotImplemented
    return step.put(Joined([step.node_of(part) for part in parts]))


def _stack(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parts, dim = args[0], args[1] if len(args) == 2 else kwargs.get("dim", 0)
    if kwargs.keys() - {"dim"} or len(args) > 2 or not isinstance(parts, list | tuple) or len(parts) < 2:
        return NotImplemented
    if type(dim) is not int or dim not in (0, 1):
        return NotImplemented
    if any(not (isinstance(part, Deferred) or is_matrix(part)) for part in parts):
        return NotImplemented
    kind = parts[0].shape, parts[0].dtype, parts[0].device
    if any((part.shape, part.dtype, part.device) != kind for part in parts):
        return NotImplemented
    return Stack.of(step, list(parts), dim)


def _unsqueeze(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dim = args[1] if len(args) == 2 else kwargs.get("dim")
    if not _is(args[0]) or type(dim) is not int or dim % (args[0].ndim + 1) == 0:
        return NotImplemented
    return _shared(args[0], _applied(step, func, args, kwargs))


def _view(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Shapes -1, ... with the rows first: two rows show whether they stay rows."""
    if len(args) < 2 or args[1] != -1 or kwargs or not _is(args[0]):
        return NotImplemented
    return _shared(args[0], _applied(step, func, args, kwargs))


def _dropout(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    named = dict(zip(("input", "p", "training", "inplace"), args, strict=False)) | kwargs
    x, p = named.get("input"), named.get("p", 0.5)
    if not isinstance(x, Deferred) or named.get("inplace") or not isinstance(p, int | float):
        return NotImplemented
    if "train" in named or named.get("training", True) not in (True, False):
        return NotImplemented  # torch.dropout, by name
    if named.get("training", True) is False or p == 0:
        return _shared(x, _applied(step, func, args, kwargs))
    if x.ndim != 2 or "dropout" not in step.own or not 0 < p < 1:
        return NotImplemented
    return step.put(Dropped(x.node, float(p), int(torch.randint(1 << 62, ()).item())))


def _split(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    sizes = args[1] if len(args) > 1 else kwargs.get("split_size_or_sections", kwargs.get("split_size"))
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    if not _is(args[0]) or not isinstance(sizes, list | tuple) or dim != 0 or sum(sizes) != args[0].shape[0]:
        return NotImplemented
    if min(sizes) < 2:
        return NotImplemented
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(_piece(step, args[0], start, size) for start, size in zip(starts, sizes, strict=True))


def _piece(step: Step, of: Tensor, start: int, n: int) -> Deferred:
    return _shared(of, step.put(Piece(step.node_of(of), start, n)))


def _shared(of: Any, view: Any) -> Any:
    """Both have the same memory."""
    for one in (of, view):
        if isinstance(one, Deferred):
            one.shared = True
    return view


def _detach(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _shared(args[0], _applied(step, func, args, kwargs))


def _getitem(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, index = args
    if not _is(x):
        return NotImplemented
    first, *others = index if isinstance(index, tuple) else (index,)
    if isinstance(first, slice) and first == ALL and others:
        if any(not isinstance(other, slice) and type(other) is not int for other in others):
            return NotImplemented
        return _shared(x, _applied(step, func, args, {}))
    if any(not isinstance(other, slice) or other != ALL for other in others):
        return NotImplemented
    if isinstance(first, slice) and first.step in (None, 1):
        start, stop, _ = first.indices(x.shape[0])
        return _piece(step, x, start, stop - start) if stop - start >= 2 else NotImplemented
    return _ask(step, x, first)


def _ask(step: Step, x: Tensor, index: Any) -> Any:
    if type(index) is not Tensor or index.dtype != torch.int64 or index.ndim != 1 or index.device != x.device:
        return NotImplemented
    if not index.numel() or int(index.min()) < 0 or int(index.max()) >= x.shape[0]:
        return NotImplemented  # counted from the end, or an error
    return step.ask(step.node_of(x), index)


def _index_select(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _ask(step, args[0], args[2]) if len(args) == 3 and args[1] == 0 and _is(args[0]) else NotImplemented


def _embedding(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    named = dict(zip(names, args, strict=False)) | kwargs
    special = named.get("padding_idx") is not None or named.get("max_norm") is not None
    if special or named.get("scale_grad_by_freq") or named.get("sparse"):
        return NotImplemented
    return _ask(step, named["weight"], named["input"])


def _in_place(function: Any) -> Rule:
    """a += b of a matrix whose memory no other has: it stands for a + b from then on."""

    def rule(step: Step, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        a = args[0]
        if not isinstance(a, Deferred) or a.shared or a._dense is not None or not torch.is_grad_enabled():
            return NotImplemented
        new = _applied(step, function, args, kwargs)
        if new is NotImplemented or new.shape != a.shape or new.dtype != a.dtype:
            return NotImplemented
        a.node, a._live = new.node, new._live
        return a

    return rule


_ELEMENTWISE = (
    "sigmoid tanh relu leaky_relu elu gelu silu logsigmoid log_sigmoid softplus "
    "exp log neg abs square sqrt rsqrt clone "
    "add radd sub rsub subtract mul rmul multiply div rdiv truediv rtruediv reciprocal true_divide divide pow rpow"
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(("softmax", "log_softmax", "sum", "mean", "logsumexp"), _along(1, None)),
    "normalize": _normalize,
    "norm": _along(2, None),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "stack": _stack,
    "detach": _detach,
    "unsqueeze": _unsqueeze,
    **dict.fromkeys(("view", "reshape"), _view),
    "dropout": _dropout,
    "split": _split,
    "getitem": _getitem,
    "index_select": _index_select,
    "embedding": _embedding,
    **dict.fromkeys(("iadd", "add_"), _in_place(torch.add)),
    **dict.fromkeys(("isub", "sub_"), _in_place(torch.sub)),
    **dict.fromkeys(("imul", "mul_"), _in_place(torch.mul)),
    **dict.fromkeys(("itruediv", "div_"), _in_place(torch.div)),
}
