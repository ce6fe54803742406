"""What people do to a torch sparse tensor, for a graph: products by `@` and `torch.mm`, sums, names of parts.

What has one clear meaning for a matrix that is never changed in place is here; anything else that a tensor has is an
error that names the way out. The ops themselves take a graph's tensors and never come by.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, NoReturn, Self

import torch
from torch import Tensor

from smore_ext.ops.csr import CsrMatrix
from smore_ext.ops.modes import outside_modes
from smore_ext.ops.sparse import spmm

Number = int | float  # the methods of that name hide the type


_SPARSE = "graph.to_sparse() is a torch sparse tensor"
_WAYS_OUT = {
    "add_ sub_ mul_ div_ fill_ zero_ clamp_ data": "a Graph is not changed in place: graph.with_weight(weight) "
    "has the same edges with other weights",
    "requires_grad_": "give weights that do: graph.with_weight(weight.requires_grad_())",
    "grad backward": "the weights that were given have gradients",
    "clone": "it is never changed in place, so it serves as it is; copy.deepcopy(graph) copies it",
    "numpy": "graph.to_scipy() is a scipy matrix",
    "sum mean": "ops.spmm(graph, ones) has the sums over rows, ops.spmm(graph.t, ones) those over columns",
    "abs pow sqrt exp": "graph.with_weight(f(graph.weight)) has other weights",
    "index_select gather narrow": "graph.rows(index) takes rows, graph.block(rows, cols) consecutive rows and columns",
    "numel": "graph.n_edges counts edges, graph.shape is the shape",
    "layout": "graph.is_sparse is True; graph.to_sparse() has a layout",
    "mT H": "graph.t is the transpose",
    "is_leaf retain_grad register_hook": "graph.weight is the tensor of the weights",
    "to_sparse_csr to_sparse_coo to_sparse_csc softmax": _SPARSE,
}


class _Missing:
    """An attribute that a tensor has and a graph has not. (`__getattr__` would slow the access to all others.)"""

    def __init__(self, name: str, way_out: str) -> None:
        self.name, self.way_out = name, way_out

    def __get__(self, graph: object, owner: type) -> NoReturn:
        raise AttributeError(f"a Graph has no {self.name}, unlike a tensor: {self.way_out}")


class TensorLike(CsrMatrix):
    """A base of `Graph`: its ways of a torch sparse tensor. It is a COO tensor that is coalesced."""

    __array_ufunc__ = None  # numpy leaves `array @ graph` to the graph, which says what it takes
    is_sparse: ClassVar[bool] = True

    # Products, and other weights.

    def __matmul__(self, x: Tensor) -> Tensor:
        """graph @ x for dense x [C, d] or [C]: `ops.spmm`."""
        x = _dense("graph @ x", x)
        return spmm(self, x[:, None])[:, 0] if x.ndim == 1 else spmm(self, x)

    def __rmatmul__(self, x: Tensor) -> Tensor:
        """x @ graph for dense x [d, R] or [R]: the product of the transposes."""
        x = _dense("x @ graph", x)
        return spmm(self.t, x[:, None])[:, 0] if x.ndim == 1 else spmm(self.t, x.T).T

    mm = matmul = __matmul__

    def __mul__(self, factor: Number | Tensor) -> Self:
        """All weights times a number, or a tensor of one element, which may be learned."""
        return self._reweighted(self.weight * _number("graph * x", factor))

    __rmul__ = mul = multiply = __mul__

    def __truediv__(self, divisor: Number | Tensor) -> Self:
        return self._reweighted(self.weight / _number("graph / x", divisor))

    div = divide = __truediv__

    def __pow__(self, exponent: Any) -> NoReturn:
        raise TypeError("a Graph has no power: graph.with_weight(graph.weight ** p), or graph @ (graph @ x)")

    def __getitem__(self, index: Any) -> NoReturn:
        raise TypeError(f"a Graph takes no [...]: {_WAYS_OUT['index_select gather narrow']}; {_SPARSE}")

    def __neg__(self) -> Self:
        return self._reweighted(-self.weight)

    def contiguous(self) -> Self:
        return self

    def copy_(self, other: Self, non_blocking: bool = False) -> Self:
        """Takes the weights of a graph with the same edges, as `load_state_dict` asks of a module's buffers."""
        same = isinstance(other, CsrMatrix) and self.shape == other.shape and self.n_edges == other.n_edges
        if not same or not all(
            torch.equal(own.cpu().long(), their.cpu().long())
            for own, their in ((self.rowptr, other.rowptr), (self.col, other.col))
        ):
            raise ValueError("copy_: expected a Graph with the same edges; load_state_dict(..., assign=True) takes any")
        with torch.no_grad():
            self.weight.copy_(other.weight)
        return self

    def detach(self) -> Self:
        """The graph with weights that do not require grad; itself, if these do not."""
        if not self.requires_grad:
            return self
        return self.t.detach().t if self.is_live_transpose else self._reweighted(self.weight.detach())

    def _reweighted(self, weight: Tensor) -> Self:
        """`with_weight` of weights that follow from these one by one: what is symmetric stays so."""
        matrix = self._of(self.structure, weight.contiguous())
        return matrix.paired(matrix) if self.is_own_transpose else matrix

    # The transpose. `graph.t` is a property, and a call gives the graph itself, so that `graph.t()` is it as well.

    def __call__(self) -> Self:
        return self

    @property
    def T(self) -> Self:
        return self.t

    def transpose(self, dim0: int, dim1: int) -> Self:
        return self if _dimension(dim0) == _dimension(dim1) else self.t

    # Other devices and dtypes.

    def to(
        self,
        *target: torch.device | str | int | torch.dtype | Tensor | None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        non_blocking: bool = False,
        copy: bool = False,
    ) -> Self:
        """On another device, or with weights of another floating dtype, or both. The graph itself if nothing changes.

        Args:
            target: devices and dtypes, as `Tensor.to` takes them, or a tensor (or graph) that has both.
            device, dtype: the same by name.
            non_blocking, copy: taken for their names' sake: the host waits, and what is never changed is shared.
        """
        graph = self
        for one in (*target, device, dtype):
            if isinstance(one, Tensor | CsrMatrix):
                graph = graph.to(one.device, one.dtype)
            elif one is not None and not isinstance(one, bool):
                graph = graph._on(one)
        return graph

    def _on(self, target: torch.device | str | int | torch.dtype) -> Self:
        if isinstance(target, torch.dtype):
            if target not in (torch.float32, torch.float64):
                raise TypeError(
                    f"weights of a graph must be float32 or float64, got {target}: they serve rows of bfloat16 as they "
                    f"are"
                )
            if target == self.dtype:
                return self
        elif torch.empty(0, device=target).device == self.device:
            return self
        return outside_modes(lambda: self._moved(target), *self._made_of())[0]

    def _moved(self, target: torch.device | str | int | torch.dtype) -> Self:
        if isinstance(target, torch.dtype):
            moved = self._of(self.structure, self.weight.to(target), self.scale)
        else:
            scale = None if self.scale is None else self.scale.to(target)
            moved = self._of(self.structure.to(target), self.weight.to(target), scale)
        return moved.paired(moved) if self.is_own_transpose else moved

    def cpu(self) -> Self:
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None, non_blocking: bool = False) -> Self:
        return self.to("cuda" if device is None else device)

    def float(self) -> Self:
        return self.to(torch.float32)

    def double(self) -> Self:
        return self.to(torch.float64)

    def half(self) -> Self:
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        return self.to(torch.bfloat16)

    @property
    def device(self) -> torch.device:
        return self.col.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        weight = self._made_of()[2]
        assert weight is not None
        return weight.dtype

    @property
    def is_cuda(self) -> bool:
        return self.col.is_cuda

    @property
    def is_meta(self) -> bool:
        return self.col.is_meta

    def is_floating_point(self) -> bool:
        return True

    def is_complex(self) -> bool:
        return False

    # Shape and parts.

    @property
    def ndim(self) -> int:
        return 2

    def dim(self) -> int:
        return 2

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one of its sizes."""
        return torch.Size(self.shape) if dim is None else self.shape[_dimension(dim)]

    @property
    def nnz(self) -> int:
        """Number of edges, those of weight 0 too."""
        return self.n_edges

    def _nnz(self) -> int:
        return self.n_edges

    def coalesce(self) -> Self:
        """Itself: rows and columns ascend, and each edge is there once."""
        return self

    def is_coalesced(self) -> bool:
        return True

    def indices(self) -> Tensor:
        """Row and column of each edge, [2, E] int64."""
        return torch.stack([self.row.long(), self.col.long()])

    def values(self) -> Tensor:
        """The weights, [E]."""
        return self.weight

    _indices, _values = indices, values

    def crow_indices(self) -> Tensor:
        return self.rowptr

    def col_indices(self) -> Tensor:
        return self.col

    def to_dense(self) -> Tensor:
        """[R, C]; differentiable in weights that require grad."""
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        return dense.index_put((self.row.long(), self.col.long()), self.weight)

    # torch's own functions.

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        ours = _FUNCTIONS.get(func)
        if func is _MATMUL_OF_TENSORS and torch.compiler.is_dynamo_compiling():
            # torch 2.13 says the same of graph @ x and x @ graph.
            raise TypeError(
                "in torch.compile give ops.spmm(graph, x) for graph @ x, ops.spmm(graph.t, x.T).T for x @ graph"
            )
        if ours is None or kwargs:
            name = getattr(func, "__name__", str(func)) + (f" with {', '.join(kwargs)}" if kwargs else "")
            raise TypeError(
                f"torch's {name} does not take a Graph: {_SPARSE}, graph.weight its "
                f"weights, and smore_ext.ops has what graphs are for"
            )
        return ours(*args)


for _names, _way_out in _WAYS_OUT.items():
    for _name in _names.split():
        setattr(TensorLike, _name, _Missing(_name, _way_out))


def _dense(place: str, x: Any) -> Tensor:
    if isinstance(x, CsrMatrix) or (isinstance(x, Tensor) and x.layout != torch.strided):
        raise TypeError(
            f"{place}: x must be dense, got a sparse matrix: multiply one after the other, a @ (b @ x), or give "
            f"Graph.from_scipy(a.to_scipy() @ b.to_scipy())"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{place}: x must be a torch.Tensor, got {type(x).__name__}")
    return x


def _number(place: str, factor: Any) -> Any:
    if isinstance(factor, Tensor) and factor.layout == torch.strided and factor.numel() == 1:
        return factor.reshape(())
    if isinstance(factor, Real) and not isinstance(factor, bool):  # numpy's too
        return float(factor)
    got = f"a tensor of shape {tuple(factor.shape)}" if isinstance(factor, Tensor) else type(factor).__name__
    raise TypeError(
        f"{place}: x must be a number, got {got}: for factors of edges [E] give graph.with_weight(graph.weight * "
        f"factors), where graph.row and graph.col say whose they are"
    )


def _dimension(dim: int) -> int:
    if dim not in (-2, -1, 0, 1):
        raise IndexError(f"a Graph has dimensions 0 and 1, got {dim}")
    return dim % 2


def _of_either(own: str, reflected: str) -> Callable[[Any, Any], Any]:
    """A function of two, one of which is a graph, by the graph's methods of these names."""

    def call(a: Any, b: Any) -> Any:
        return getattr(a, own)(b) if isinstance(a, TensorLike) else getattr(b, reflected)(a)

    return call


_MATMUL, _MUL = _of_either("__matmul__", "__rmatmul__"), _of_either("__mul__", "__rmul__")
_ADD, _SUB = _of_either("__add__", "__radd__"), _of_either("__sub__", "__rsub__")
_MATMUL_OF_TENSORS = Tensor.matmul
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.mm, torch.mv, torch.matmul, torch.sparse.mm, Tensor.mm, Tensor.mv, Tensor.matmul), _MATMUL),
    **dict.fromkeys((torch.mul, torch.multiply, Tensor.mul), _MUL),
    **dict.fromkeys((torch.div, torch.divide, torch.true_divide, Tensor.div), lambda graph, x: graph / x),
    **dict.fromkeys((torch.add, Tensor.add), _ADD),
    **dict.fromkeys((torch.sub, Tensor.sub), _SUB),
    torch.t: lambda graph: graph.t,
    torch.transpose: lambda graph, dim0, dim1: graph.transpose(dim0, dim1),
}
