"""A gradient kept as its two factors: what `TableLinear` leaves in `table.grad`.

For X = T W^T + b the gradient of the table T [N, D] is dL/dX @ W: rank d, while T may have thousands of columns. A
`FactoredGrad` is a tensor of the table's shape that holds dL/dX [N, d] and W [d, D] and forms the product only when
something asks for its elements. So everything that works on `.grad` (clipping, GradScaler, other optimizers, hooks,
DistributedDataParallel, a penalty that adds to it) sees an ordinary gradient; scaling, adding another such gradient and
the 2-norm are computed on the factors; and `FactoredAdam` steps with the factors themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

aten = torch.ops.aten


class _Content:
    """The factors, or the product once it was formed; shared by the aliases of one gradient (`detach`)."""

    def __init__(self, rows: Tensor | None, factor: Tensor | None, dense: Tensor | None = None) -> None:
        self.rows, self.factor, self.dense = rows, factor, dense


class FactoredGrad(Tensor):
    """The product rows @ factor, not formed until its elements are needed.

    Args:
        rows: [N, d], float32 or float64.
        factor: [d, D], same dtype and device. Nobody may write to either tensor afterwards.
    """

    _content: _Content

    @staticmethod
    def __new__(cls, rows: Tensor, factor: Tensor) -> Self:
        return cls._made(_Content(rows, factor), (rows.shape[0], factor.shape[1]), rows)

    def __init__(self, rows: Tensor, factor: Tensor) -> None:
        pass

    @classmethod
    def _made(cls, content: _Content, shape: tuple[int, ...] | torch.Size, like: Tensor) -> Self:
        grad = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        grad._content = content
        return grad

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(rows, factor), or None once the product has been formed."""
        content = self._content
        return None if content.rows is None or content.factor is None else (content.rows, content.factor)

    def dense(self) -> Tensor:
        """The product as an ordinary tensor; from now on it is this gradient's content."""
        content = self._content
        if content.dense is None:
            if content.rows is None or content.factor is None:  # made by new_empty_strided: no elements yet
                content.dense = torch.empty(self.shape, dtype=self.dtype, device=self.device)
            else:
                content.dense = content.rows @ content.factor
            content.rows = content.factor = None
        return content.dense

    @property
    def data(self) -> Tensor:
        """The elements without history, as of any tensor: who writes to them writes to the gradient."""
        return self.dense().data

    @data.setter
    def data(self, elements: Tensor) -> None:
        if elements is self:  # `module.to` of where it is
            return
        if isinstance(elements, FactoredGrad):
            elements = elements.dense()
        if elements.shape != self.shape:
            raise ValueError(f"data of a gradient must have shape {tuple(self.shape)}, got {tuple(elements.shape)}")
        if elements.dtype != self.dtype or elements.device != self.device:  # `module.double()`: as torch does it
            Tensor.data.__set__(self, elements)  # type: ignore[attr-defined]
        content = self._content
        content.rows = content.factor = None
        content.dense = elements.detach()

    # What asks for the memory of a tensor gets that of the product: there is none before.

    def numpy(self, *, force: bool = False) -> Any:
        return self.dense().numpy(force=force)

    def tolist(self) -> Any:
        return self.dense().tolist()

    def data_ptr(self) -> int:
        return self.dense().data_ptr()

    def untyped_storage(self) -> Any:
        return self.dense().untyped_storage()

    def storage(self) -> Any:
        return self.dense().storage()

    def is_shared(self) -> bool:
        return self.dense().is_shared()

    def share_memory_(self) -> Self:
        self.dense().share_memory_()
        return self

    def apply_(self, function: Callable[..., Any]) -> Self:
        self.dense().apply_(function)
        return self

    def map_(self, other: Tensor, function: Callable[..., Any]) -> Self:
        self.dense().map_(_formed(other), function)
        return self

    def map2_(self, x: Tensor, y: Tensor, function: Callable[..., Any]) -> Self:
        self.dense().map2_(_formed(x), _formed(y), function)
        return self

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        return self.dense().__dlpack__(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:  # copies and pickles are ordinary tensors
        return self.dense().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return memo.setdefault(id(self), self.dense().clone())

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        factors = self.factors
        if factors is None:
            return f"FactoredGrad({self.dense()!r})"
        return f"FactoredGrad({list(self.shape)}, rank {factors[0].shape[1]}, {self.dtype}, {self.device})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # as torch says to do it
    _rules: ClassVar[dict[Any, Callable[..., Any]]] = {}

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it as a function without a class
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = cls._rules.get(func)
        if rule is not None and (result := rule(func, *args, **kwargs)) is not NotImplemented:
            return result
        return _on_products(func, args, kwargs)


def _formed(value: Tensor) -> Tensor:
    return value.dense() if isinstance(value, FactoredGrad) else value


def _on_products(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`func` on ordinary tensors; what it writes to a gradient is that gradient's content."""
    wrappers: dict[int, FactoredGrad] = {}

    def formed(value: Any) -> Any:
        if not isinstance(value, FactoredGrad):
            return value
        dense = value.dense()
        wrappers[id(dense)] = value
        return dense

    plain_args, plain_kwargs = torch.utils._pytree.tree_map(formed, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    return torch.utils._pytree.tree_map(lambda t: wrappers.get(id(t), t), result)


def _rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FactoredGrad._rules[function] = rule
        return rule

    return register


@_rule(aten.detach.default, aten.alias.default)
def _alias(func: Any, grad: FactoredGrad) -> FactoredGrad:
    return FactoredGrad._made(grad._content, grad.shape, grad)


@_rule(aten.clone.default)
def _clone(func: Any, grad: FactoredGrad, memory_format: Any = None) -> Any:
    factors = grad.factors
    return NotImplemented if factors is None else FactoredGrad(*factors)


@_rule(aten.new_empty_strided.default)
def _new_empty_strided(func: Any, grad: FactoredGrad, size: Any, stride: Any, **options: Any) -> Any:
    """What autograd makes before it copies a gradient into its place."""
    if (
        tuple(size) != tuple(grad.shape)
        or tuple(stride) != tuple(grad.stride())
        or any(value is not None for value in options.values())
    ):
        return torch.empty_strided(
            size,
            stride,
            dtype=options.get("dtype") or grad.dtype,
            device=options.get("device") or grad.device,
        )
    return FactoredGrad._made(_Content(None, None), grad.shape, grad)


@_rule(aten.copy_.default)
def _copy_(func: Any, target: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    if not isinstance(target, FactoredGrad) or target.shape != source.shape:
        return NotImplemented
    if not isinstance(source, FactoredGrad) or source.dtype != target.dtype or source.device != target.device:
        return NotImplemented
    factors = source.factors
    if factors is None:
        return NotImplemented
    target._content.rows, target._content.factor = factors
    target._content.dense = None
    return target


def _is_number(value: Any) -> bool:
    """A Python number, or a tensor of one element that broadcasting takes for a number."""
    return isinstance(value, int | float) or (
        isinstance(value, Tensor) and not isinstance(value, FactoredGrad) and value.ndim == 0
    )


@_rule(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
def _scaled(func: Any, grad: Tensor, number: Any) -> Any:
    if isinstance(number, FactoredGrad) and func is aten.mul.Tensor:
        grad, number = number, grad
    if not isinstance(grad, FactoredGrad) or grad.factors is None or not _is_number(number):
        return NotImplemented
    rows, factor = grad.factors
    scaled = func(rows, number)
    return FactoredGrad(scaled, factor) if scaled.dtype == rows.dtype else NotImplemented


@_rule(aten.mul_.Tensor, aten.mul_.Scalar, aten.div_.Tensor, aten.div_.Scalar)
def _scale_(func: Any, grad: Tensor, number: Any) -> Any:
    if not isinstance(grad, FactoredGrad) or grad.factors is None or not _is_number(number):
        return NotImplemented
    # Not in place: a clone may share the rows.
    grad._content.rows = func(grad.factors[0].clone(), number)
    return grad


@_rule(aten.neg.default)
def _neg(func: Any, grad: FactoredGrad) -> Any:
    factors = grad.factors
    return NotImplemented if factors is None else FactoredGrad(-factors[0], factors[1])


def _joined(a: Any, b: Any, alpha: float) -> tuple[Tensor, Tensor] | None:
    """Factors of a + alpha b; None where one is formed already, or forming them costs less than a larger rank."""
    if not (isinstance(a, FactoredGrad) and isinstance(b, FactoredGrad) and a.shape == b.shape):
        return None
    first, second = a.factors, b.factors
    if first is None or second is None or a.dtype != b.dtype or a.device != b.device:
        return None
    rank = first[0].shape[1] + second[0].shape[1]
    if 2 * rank > a.shape[1]:
        return None
    rows = second[0] if alpha == 1 else second[0] * alpha
    return torch.cat([first[0], rows], dim=1), torch.cat([first[1], second[1]])


@_rule(aten.add.Tensor)
def _add(func: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    factors = _joined(a, b, alpha)
    return NotImplemented if factors is None else FactoredGrad(*factors)


@_rule(aten.add_.Tensor)
def _add_(func: Any, a: Any, b: Any, alpha: float = 1) -> Any:
    factors = _joined(a, b, alpha)
    if factors is None:
        return NotImplemented
    a._content.rows, a._content.factor = factors
    return a


@_rule(aten.linalg_vector_norm.default)
def _vector_norm(
    func: Any, grad: FactoredGrad, order: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    """|R F| in the Frobenius norm: its square is the sum of (R^T R) * (F F^T), [d, d] both, taken in float64."""
    factors = grad.factors
    if factors is None or order != 2 or keepdim or not (dim is None or len(dim) in (0, grad.ndim)):
        return NotImplemented
    rows, factor = (t.double() for t in factors)
    square = ((rows.T @ rows) * (factor @ factor.T)).sum()
    return square.clamp_min(0).sqrt().to(dtype or grad.dtype)


@_rule(aten._amp_foreach_non_finite_check_and_unscale_.default)
def _unscale_(func: Any, grads: list[Tensor], found_inf: Tensor, inverse_scale: Tensor) -> Any:
    """GradScaler's own kernel for ordinary gradients; of factored ones the rows are scaled."""
    plain = []
    for grad in grads:
        factors = grad.factors if isinstance(grad, FactoredGrad) else None
        if factors is None or not isinstance(grad, FactoredGrad):
            plain.append(grad.dense() if isinstance(grad, FactoredGrad) else grad)
            continue
        rows, factor = factors
        # An element of the product is at most d * max|rows| * max|factor|; infinity and NaN come through.
        most = rows.abs().max().double() * factor.abs().max().double() * rows.shape[1] if grad.numel() else None
        if most is not None:
            found_inf.copy_(torch.where(most <= torch.finfo(grad.dtype).max, found_inf, torch.ones_like(found_inf)))
        grad._content.rows = rows * inverse_scale.to(rows.dtype)
    if plain:
        func(plain, found_inf, inverse_scale)
    return None
