"""What a case of an op is: its arguments and what is promised about it; and helpers to make and handle arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from smore_ext.graph import Graph

Args = list[Any]


@dataclass(frozen=True)
class OpCase:
    """One op on one kind of input.

    A namespace (a module, or anything with attributes) holds the op, as the function `op`, and another one its twin of
    the same name in plain PyTorch. Both take the arguments that `make` returns.

    Attributes:
        op: name of the public function.
        name: of the case, for messages: usually its sizes.
        make: make(dtype, generator) gives the arguments, on the CPU: floating tensors in `dtype`, and whatever else the
            op takes. The same generator state must give the same arguments.
        differentiable: positions of the arguments that receive gradients; one that holds a list stands for all tensors
            in it.
        small: small enough for gradcheck, which runs the op twice for each element.
        twice: gradients can be differentiated again.
        sums: positions of the arguments that are of the type of sums: float32 where rows are bfloat16.
        in_place: the first so many arguments are changed in place: they are the outputs, and `call` copies them first.
        autocast: the op's rule. "none": autocast does not concern it. "float32": under autocast it takes inputs of half
            precision as float32. "storage": bfloat16 is a way to hold rows in memory, sums are made in float32, and
            autocast to bfloat16 makes it so.
    """

    op: str
    name: str
    make: Callable[[torch.dtype, torch.Generator], Args]
    differentiable: tuple[int, ...] = ()
    _: KW_ONLY
    small: bool = False
    twice: bool = False
    sums: tuple[int, ...] = ()
    in_place: int = 0
    autocast: Literal["none", "float32", "storage"] = "none"

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    def call(self, namespace: Any, args: Args) -> tuple[Tensor, ...]:
        """The outputs of the op in `namespace`, as a flat tuple."""
        if not self.in_place:
            return flatten(getattr(namespace, self.op)(*args))
        changed = [t.clone() for t in args[: self.in_place]]
        getattr(namespace, self.op)(*changed, *args[self.in_place :])
        return tuple(changed)


@dataclass(frozen=True)
class OpError:
    """A call that must be refused with an error whose message says what must hold and what came.

    Attributes:
        op: name of the public function.
        name: of the fault, for messages.
        make: gives the arguments, on the CPU.
        error: class of the exception.
        match: regular expression that its message must contain.
    """

    op: str
    name: str
    make: Callable[[], Args]
    error: type[Exception]
    match: str

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


class _Recorder(TorchFunctionMode):
    """Notes every call of an op, with the arguments as they come from Python."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            self.calls.append((func, args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))


def registered_call(
    case: OpCase, namespace: Any, args: Args
) -> tuple[torch._ops.OpOverload, tuple[Any, ...], dict[str, Any]]:
    """What the public function hands to torch's dispatcher: the registered op of the same name, and its arguments.

    Found by running it, so a case need not know how a graph travels. Raises LookupError if no such op is called.
    """
    with _Recorder() as recorder:
        case.call(namespace, args)
    for op, positional, named in recorder.calls:
        overload = op if isinstance(op, torch._ops.OpOverload) else op.default
        if overload._schema.name.rpartition("::")[2] == case.op:
            return overload, positional, named
    called = ", ".join(str(op) for op, _, _ in recorder.calls) or "none"
    raise LookupError(f"{case.op} must call a registered op of its own name, called: {called}")


def flatten(value: Any) -> tuple[Tensor, ...]:
    """The tensors in nested lists and tuples, in order."""
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


def in_bfloat16(case: OpCase, args: Args) -> Args:
    """Arguments with rows in bfloat16, for a case that takes bfloat16 as a way to hold them."""
    return [arg if i in case.sums else map_tensors(arg, Tensor.bfloat16) for i, arg in enumerate(args)]


def differentiable_tensors(case: OpCase, args: Args) -> list[Tensor]:
    """The tensors that receive gradients, in order."""
    return [t for i in case.differentiable for t in (args[i] if isinstance(args[i], list) else [args[i]])]


def on(device: torch.device, value: Any) -> Any:
    """Arguments on a device: tensors and graphs in (nested) lists; numbers stay."""
    if isinstance(value, list | tuple):
        return type(value)(on(device, v) for v in value)
    return value.to(device) if isinstance(value, Tensor | Graph) else value


def gradients(case: OpCase, namespace: Any, args: Args, cotangents: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of all that is differentiable in args, given the gradients that come in at the floating outputs."""
    args = map_tensors(args, lambda t: t.detach().clone().requires_grad_())
    outputs = [o for o in case.call(namespace, args) if o.is_floating_point()]
    total = torch.stack([(o * c.to(o)).sum() for o, c in zip(outputs, cotangents, strict=True)]).sum()
    return torch.autograd.grad(total, differentiable_tensors(case, args))


def rand(generator: torch.Generator, dtype: torch.dtype, *shape: int) -> Tensor:
    """Normal values, the same in every dtype up to rounding."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def randint(generator: torch.Generator, high: int, *shape: int) -> Tensor:
    """int64 in 0..high-1."""
    return torch.randint(high, shape, generator=generator)


def random_graph(generator: torch.Generator, n_rows: int, n_cols: int, n_edges: int, wide: bool = False) -> Graph:
    """Directed graph with empty rows, isolated columns and one row much longer than the others; wide: int64 indices."""
    row = randint(generator, max(n_rows - n_rows // 4, 1), n_edges)
    row[: n_edges // 5] = 0
    col = randint(generator, max(n_cols - n_cols // 5, 1), n_edges)
    graph = Graph.from_edges(row, col, rand(generator, torch.float32, n_edges), (n_rows, n_cols))
    if wide:
        graph = Graph(graph.rowptr.long(), graph.col.long(), graph.weight, graph.shape)
    return graph


def bipartite_graph(generator: torch.Generator, n_users: int, n_items: int, n_edges: int, wide: bool = False) -> Graph:
    """`Graph.bipartite` with users and items that have no edge and one user who has many; it is its own transpose."""
    users, items = randint(generator, n_users, n_edges // 2), randint(generator, max(n_items - 1, 1), n_edges // 2)
    users[: n_edges // 10] = 0
    graph = Graph.bipartite(users, items, n_users, n_items)
    if wide:
        graph = Graph(graph.rowptr.long(), graph.col.long(), graph.weight, graph.shape)
    return graph
