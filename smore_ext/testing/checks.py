"""What an op must hold, as functions of its case: call them one by one from a test, or all through `check_op`.

`ops` is what has the op under its name, `reference` what has its twin in plain PyTorch: modules, or anything with
attributes. Arguments are made on the CPU and moved to `device`; what they are compared with is always computed on the
CPU. A check that fails raises AssertionError with a message that says by how much; torch's own (gradcheck, opcheck,
compile) raise theirs. Nothing here needs pytest.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from smore_ext.testing.case import (
    Args,
    OpCase,
    OpError,
    differentiable_tensors,
    flatten,
    gradients,
    in_bfloat16,
    map_tensors,
    on,
    registered_call,
)

CPU = torch.device("cpu")
THREADS = (1, 2, 3, 2)


def _require(holds: bool, case: OpCase, message: str) -> None:
    if not holds:
        raise AssertionError(f"{case}: {message}")


def _arguments(case: OpCase, dtype: torch.dtype, device: torch.device = CPU) -> Args:
    args: Args = on(device, case.make(dtype, torch.Generator().manual_seed(11)))
    return args


def _with_gradients(case: OpCase, dtype: torch.dtype, device: torch.device) -> Args:
    args: Args = map_tensors(_arguments(case, dtype, device), lambda t: t.requires_grad_())
    return args


def _total(outputs: Iterable[Tensor]) -> Tensor:
    return torch.stack([output.sum() for output in outputs if output.requires_grad]).sum()


def _require_same_bits(ours: Sequence[Tensor], theirs: Sequence[Tensor], case: OpCase, what: str) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        same = a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan())
        same = same and torch.equal(*(t.masked_fill(t.isnan(), 0) for t in (a, b)))
        _require(same, case, f"{what} {i} must have the same bits, got others")


def assert_within(
    ours: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor], factor: float, what: str
) -> None:
    """The tolerance rule: error against float64 (`exact`) at most `factor` times that of plain float32 PyTorch.

    Where plain PyTorch happens to be (nearly) exact, one unit in the last place of the largest value is granted. Shapes
    and dtypes are those of plain PyTorch, infinities and NaN where float64 has them; integer outputs are not compared.
    """
    for i, (o, p, e) in enumerate(zip(on(CPU, tuple(ours)), plain, exact, strict=True)):
        came, wanted = (o.dtype, tuple(o.shape)), (p.dtype, tuple(e.shape))
        if came != wanted:
            raise AssertionError(f"{what} {i} must have dtype and shape {wanted}, got {came}")
        if not o.is_floating_point() or e.numel() == 0:
            continue
        finite = torch.isfinite(e)
        if not torch.equal(finite, torch.isfinite(o)):
            raise AssertionError(f"{what} {i} must be finite exactly where float64 is")
        if not finite.any():
            continue
        error, plain_error = ((t.double() - e)[finite].abs().max() for t in (o, p))
        limit = factor * plain_error + torch.finfo(p.dtype).eps * e[finite].abs().max()
        if not error <= limit:
            raise AssertionError(
                f"{what} {i}: error {error:.3e}, plain PyTorch {plain_error:.3e}; at most {limit:.3e} is granted"
            )


def check_forward(case: OpCase, ops: Any, reference: Any, device: torch.device = CPU) -> None:
    """float32 outputs keep the tolerance rule with factor 2."""
    args = _arguments(case, torch.float32)
    exact = case.call(reference, map_tensors(args, torch.Tensor.double))
    assert_within(case.call(ops, on(device, args)), case.call(reference, args), exact, 2, f"{case}: output")


def check_float64(case: OpCase, ops: Any, reference: Any, device: torch.device = CPU) -> None:
    """float64 outputs are those of the reference to 1e-12; integer ones are the same."""
    args = _arguments(case, torch.float64)
    for ours, exact in zip(case.call(ops, on(device, args)), case.call(reference, args), strict=True):
        torch.testing.assert_close(ours.cpu(), exact, rtol=1e-12, atol=1e-12)


def check_gradients(case: OpCase, ops: Any, reference: Any, device: torch.device = CPU) -> None:
    """float32 gradients, of random cotangents, keep the tolerance rule with factor 4."""
    args = _arguments(case, torch.float32)
    generator = torch.Generator().manual_seed(5)
    outputs = [o for o in case.call(reference, args) if o.is_floating_point()]
    cotangents = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
    exact = gradients(case, reference, map_tensors(args, torch.Tensor.double), cotangents)
    ours = gradients(case, ops, on(device, args), cotangents)
    assert_within(ours, gradients(case, reference, args, cotangents), exact, 4, f"{case}: gradient")


def check_gradcheck(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """float64 gradients are those of finite differences; of empty inputs, they run and have the shape."""
    args = _with_gradients(case, torch.float64, device)
    tensors = differentiable_tensors(case, args)
    if all(t.numel() for t in tensors):
        torch.autograd.gradcheck(lambda *_: tuple(o for o in case.call(ops, args) if o.requires_grad), tensors)
        return
    for grad, tensor in zip(torch.autograd.grad(_total(case.call(ops, args)), tensors), tensors, strict=True):
        _require(grad.shape == tensor.shape, case, f"a gradient must have shape {tensor.shape}, got {grad.shape}")


def check_gradgradcheck(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """Gradients of float64 gradients are those of finite differences."""
    args = _with_gradients(case, torch.float64, device)
    tensors = differentiable_tensors(case, args)
    if all(t.numel() for t in tensors):
        torch.autograd.gradgradcheck(lambda *_: tuple(o for o in case.call(ops, args) if o.requires_grad), tensors)


def check_saved(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """What backward reads is saved for it: a tensor that is changed in place before is an error, never another
    gradient. Every tensor that the registered op takes is tried, those of a graph too."""
    op, positional, named = registered_call(case, ops, _with_gradients(case, torch.float32, device))
    given: list[Tensor] = []  # copies of the tensors among the arguments

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            given.append(value.detach().clone().requires_grad_(value.requires_grad))
            return given[-1]
        return [copy(part) for part in value] if isinstance(value, list | tuple) else value

    def gradients_after(change: int | None) -> tuple[Tensor, ...]:
        given.clear()
        total = _total(flatten(op(*copy(positional), **{name: copy(value) for name, value in named.items()})))
        if change is not None:
            changed = given[change]
            with torch.no_grad():
                changed.mul_(-3) if changed.is_floating_point() else changed.copy_(changed.flip(0))
        leaves = [t for t in given if t.requires_grad]
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    wanted = gradients_after(None)
    for which in range(len(given)):
        try:
            ours = gradients_after(which)
        except RuntimeError as raised:
            refused = "modified by an inplace operation" in str(raised)
            _require(refused, case, f"tensor {which}, changed before backward, must be refused as such, got: {raised}")
        else:
            _require_same_bits(ours, wanted, case, f"with tensor {which} changed before backward, gradient")


def check_opcheck(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """The registered op passes torch.library.opcheck: schema, autograd registration, fake kernel, AOT dispatch."""
    make = _with_gradients if case.differentiable else _arguments
    torch.library.opcheck(*registered_call(case, ops, make(case, torch.float32, device)))


def check_compile(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """torch.compile(fullgraph=True) traces it, and outputs and gradients keep their bits."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: case.call(ops, list(a)), fullgraph=True, backend="aot_eager")
    args = _arguments(case, torch.float32, device)
    _require_same_bits(compiled(*args), case.call(ops, args), case, "compiled output")
    if case.differentiable:
        args = map_tensors(args, lambda t: t.requires_grad_())
        tensors = differentiable_tensors(case, args)
        ours = torch.autograd.grad(_total(compiled(*args)), tensors)
        _require_same_bits(ours, torch.autograd.grad(_total(case.call(ops, args)), tensors), case, "compiled gradient")


def _spread_out(t: Tensor) -> Tensor:
    """The same values as every second column of a wider tensor, one element off alignment."""
    if t.ndim == 0:
        return t
    wide = torch.zeros(t.numel() * 2 + 1, dtype=t.dtype, device=t.device)[1:].view(*t.shape, 2)
    wide[..., 0] = t
    return wide[..., 0]


def _transposed(t: Tensor) -> Tensor:
    """The same values, with the first of two or more dimensions dense in memory."""
    return t.transpose(0, -1).contiguous().transpose(0, -1) if t.ndim > 1 else t


def check_layouts(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """Strided, transposed and unaligned inputs give the bits of contiguous ones."""
    args = _arguments(case, torch.float32, device)
    for layout in (_spread_out, _transposed):
        _require_same_bits(
            case.call(ops, map_tensors(args, layout)), case.call(ops, args), case, f"output for {layout.__name__} input"
        )


def check_threads(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """Outputs and gradients have the same bits for any number of threads, and at every run."""
    args = _arguments(case, torch.float32, device)
    before, results = torch.get_num_threads(), []
    try:
        for threads in THREADS:
            torch.set_num_threads(threads)
            outputs = case.call(ops, args)
            if case.differentiable:
                outputs += gradients(case, ops, args, [torch.ones_like(o) for o in outputs if o.is_floating_point()])
            results.append(outputs)
    finally:
        torch.set_num_threads(before)
    for threads, outputs in zip(THREADS[1:], results[1:], strict=True):
        _require_same_bits(outputs, results[0], case, f"with {threads} threads instead of {THREADS[0]}, result")


def check_written(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """Every element of outputs and gradients is written: the same bits where memory is full of NaN before."""
    results = []
    for poison in (False, True):
        args = _arguments(case, torch.float32, device)  # anew: an op may change them
        with _poisoned(poison):
            outputs = case.call(ops, args)
            if case.differentiable:
                outputs += gradients(case, ops, args, [torch.ones_like(o) for o in outputs if o.is_floating_point()])
        results.append(outputs)
    _require_same_bits(results[1], results[0], case, "in memory full of NaN, result")


@contextmanager
def _poisoned(poison: bool) -> Iterator[None]:
    """torch fills memory that it hands out with NaN, or the largest integer, where its ops are to be deterministic."""
    switches: Any = torch.utils.deterministic
    mode, fill = torch.get_deterministic_debug_mode(), switches.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    switches.fill_uninitialized_memory = poison
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        switches.fill_uninitialized_memory = fill


def check_in_place(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """An op that changes its arguments in place returns the first of them."""
    args = _arguments(case, torch.float32, device)
    _require(getattr(ops, case.op)(*args) is args[0], case, "must return its first argument")


def check_autocast(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """The case's rule for autocast holds, and float64 stays."""
    args = _arguments(case, torch.float32, device)
    narrow, wide = in_bfloat16(case, args), map_tensors(args, torch.Tensor.double)
    if case.autocast == "float32":
        given, wanted = narrow, case.call(ops, map_tensors(narrow, torch.Tensor.float))
    else:
        given, wanted = args, case.call(ops, narrow)
    exact = case.call(ops, wide)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        _require_same_bits(case.call(ops, given), wanted, case, "under autocast to bfloat16, output")
        _require_same_bits(case.call(ops, wide), exact, case, "under autocast, float64 output")
    plain = case.call(ops, args)
    with torch.autocast(device.type, dtype=torch.float16):
        _require_same_bits(case.call(ops, args), plain, case, "under autocast to float16, output")


def check_storage(case: OpCase, ops: Any, reference: Any, device: torch.device = CPU) -> None:
    """bfloat16 is storage only: the tolerance rule, against plain PyTorch that rounds what it writes, nothing else."""
    args = in_bfloat16(case, _arguments(case, torch.float32))
    exact_args = map_tensors(args, torch.Tensor.double)
    exact = case.call(reference, exact_args)
    assert_within(case.call(ops, on(device, args)), case.call(reference, args), exact, 2, f"{case}: bfloat16 output")
    generator = torch.Generator().manual_seed(11)
    cotangents = [torch.randn(o.shape, generator=generator, dtype=torch.float64).bfloat16() for o in exact]
    ours = gradients(case, ops, on(device, args), on(device, cotangents))
    plain = gradients(case, reference, args, cotangents)
    exact = gradients(case, reference, exact_args, cotangents)
    assert_within(ours, plain, exact, 4, f"{case}: bfloat16 gradient")


def check_errors(case: OpCase, ops: Any, device: torch.device = CPU) -> None:
    """A floating input of an integer dtype is a TypeError, one without dimensions or on a device of its own (meta) a
    ValueError; all name the op and what came. A tensor without dimensions may be on another device."""
    args = _arguments(case, torch.float32, device)
    alone = sum(isinstance(part, Tensor) or hasattr(part, "to") for a in args for part in _leaves(a)) == 1
    wrong: list[tuple[type[Exception], str, Callable[[Tensor], Tensor | None]]] = [
        (TypeError, "of dtype int64", torch.Tensor.long),
        (ValueError, "without dimensions", lambda t: t.new_zeros(()) if t.ndim else t.new_zeros(2, 3)),
        (ValueError, "on another device", lambda t: None if alone or t.ndim == 0 else t.to("meta")),
    ]
    for error, what, f in wrong:
        for which, t in enumerate([t for a in args for t in _leaves(a) if _is_floating(t)]):
            if (replacement := f(t)) is not None:
                changed = _replaced(args, which, replacement)
                _check_refused(case, ops, changed, error, f"floating input {which} {what}")


def _replaced(args: Args, which: int, replacement: Tensor) -> Args:
    """The arguments with another tensor for number `which` of the floating ones."""
    number = itertools.count()
    changed: Args = map_tensors(args, lambda t: replacement if next(number) == which else t)
    return changed


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _check_refused(case: OpCase, ops: Any, args: Args, error: type[Exception], what: str) -> None:
    try:
        getattr(ops, case.op)(*args)
    except error as raised:
        named = case.op in str(raised) and "got" in str(raised)
        _require(named, case, f"the error for {what} must name the op and what it got: {raised}")
    except Exception as raised:
        name = type(raised).__name__
        raise AssertionError(f"{case}: {what} must be a {error.__name__}, got {name}: {raised}") from raised
    else:
        raise AssertionError(f"{case}: {what} must be a {error.__name__}, and passed")


def check_error(error: OpError, ops: Any, device: torch.device = CPU) -> None:
    """The call is refused as the entry says."""
    args = on(device, error.make())
    try:
        getattr(ops, error.op)(*args)
    except error.error as raised:
        if not re.search(error.match, str(raised)):
            raise AssertionError(f"{error}: the message must match {error.match!r}, got: {raised}") from raised
    else:
        raise AssertionError(f"{error}: must raise {error.error.__name__}, and passed")


def check_op(case: OpCase, ops: Any, reference: Any, device: torch.device = CPU) -> None:
    """Every check that applies to the case."""
    check_forward(case, ops, reference, device)
    check_float64(case, ops, reference, device)
    check_opcheck(case, ops, device)
    check_compile(case, ops, device)
    check_threads(case, ops, device)
    check_written(case, ops, device)
    check_errors(case, ops, device)
    if case.in_place:
        check_in_place(case, ops, device)
    else:
        check_layouts(case, ops, device)
    if case.differentiable:
        check_gradients(case, ops, reference, device)
        check_saved(case, ops, device)
        if case.small:
            check_gradcheck(case, ops, device)
        if case.small and case.twice:
            check_gradgradcheck(case, ops, device)
    if case.autocast != "none":
        check_autocast(case, ops, device)
    if case.autocast == "storage":
        check_storage(case, ops, reference, device)


def check_table(cases: Sequence[OpCase], names: Iterable[str], reference: Any) -> None:
    """The table covers exactly these ops: each with a twin, a case with an empty tensor and, if differentiable, a small
    case that has none."""
    by_op: dict[str, list[OpCase]] = {name: [] for name in names}
    faults = [f"{case}: a case of an op that is not there" for case in cases if case.op not in by_op]
    for case in cases:
        by_op.setdefault(case.op, []).append(case)
    for name, own in by_op.items():
        if not own:
            faults.append(f"{name}: no case")
            continue
        if not callable(getattr(reference, name, None)):
            faults.append(f"{name}: no twin in the reference")
        empty = {case.name for case in own if is_empty(case)}
        if not empty:
            faults.append(f"{name}: no case with an empty tensor")
        if any(case.differentiable for case in own) and not any(case.small and case.name not in empty for case in own):
            faults.append(f"{name}: no case that is small enough for gradcheck")
    if faults:
        raise AssertionError("; ".join(faults))


def is_empty(case: OpCase) -> bool:
    """Whether a tensor among the arguments has no elements."""
    dense = [part for part in _arguments(case, torch.float32) if isinstance(part, Tensor | list)]
    return any(t.numel() == 0 for t in flatten(dense))
