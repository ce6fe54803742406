"""Fuzz target: public ops against their twins in plain PyTorch, and registered ops with arguments that make no sense.

Ways of a call: `value` and `gradient` compare a valid one, on views, with the reference; `bad` changes an argument of a
valid one, `raw` those that a registered op (backward ones too) gets. What is refused must be refused by an error of a
fitting class, and what is accepted must be right where the reference has an answer. CPU tensors lie at guard pages.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smore_ext import ops, reference
from smore_ext.backends import guard_pages
from smore_ext.graph import Graph
from smore_ext.testing.case import Args, OpCase, differentiable_tensors, flatten, in_bfloat16, map_tensors
from smore_ext.testing.fuzz.draws import DRAWS, changed_values, conjugated, described, flag, viewed
from smore_ext.testing.fuzz.spoil import spoiled
from smore_ext.testing.fuzz.target import Call, Fault

REFUSALS = (TypeError, ValueError, IndexError, RuntimeError, OverflowError)
WAYS = {"value": 0.45, "gradient": 0.2, "bad": 0.2, "raw": 0.15}
INEXACT = ("spectral_filter", "spectrum_fusion", "bpr_loss")
DIVIDING = ("cosine_at", "info_nce", "knn")  # by the lengths of rows, which are not made small for gradients


def draw(rng: random.Random) -> Call:
    """A call of a random op."""
    case = DRAWS[rng.choice(sorted(DRAWS))](rng)
    way = rng.choices(list(WAYS), list(WAYS.values()))[0]
    side, threads = rng.choice(("behind", "behind", "before")), rng.choice((1,) * 8 + (2, 3))
    args, dtype = _arguments(rng, case, way)
    if way == "gradient" and (not case.differentiable or any(t.is_complex() for t in _tensors(args))):
        way = "value"
    what = ""
    if way == "bad":
        args, what = spoiled(rng, args)
        args = _little_work(case.op, args)
    if way == "raw":
        name, call, given, what = _raw(rng, case, args, dtype)
        text = f"torch.ops.{name}{described(given)}"
    else:
        text = f"ops.{case.op}{described(args)}"
        call = {"value": _value, "gradient": _gradient, "bad": _bad}[way](rng, case, args)
    note = f"  # {way}{f': {what}' * bool(what)}, guard pages {side}, {threads} threads"

    def run() -> str:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return call()
        finally:
            torch.set_num_threads(before)
            guard_pages("off")

    return Call(case.op, text + note, run)


def _arguments(rng: random.Random, case: OpCase, way: str) -> tuple[Args, torch.dtype]:
    """Of a valid call, at guard pages."""
    guard_pages(rng.choice(("behind", "behind", "before")))
    dtype = rng.choice((torch.float32, torch.float64))
    args = case.make(dtype, torch.Generator().manual_seed(rng.getrandbits(32)))
    if not case.in_place and not (way == "gradient" and case.op in DIVIDING):
        args = map_tensors(args, lambda t: changed_values(rng, t))
    if case.autocast == "storage" and dtype == torch.float32 and flag(rng, 0.3):
        args = in_bfloat16(case, args)
    kept = args[: case.in_place]
    args = [*map_tensors(kept, torch.Tensor.clone), *viewed(rng, args[case.in_place :])]
    if case.op.startswith("spect") and flag(rng, 0.2):
        filters = (1,) if case.op == "spectral_filter" else (1, 2)
        args = [conjugated(a) if i in filters else a for i, a in enumerate(args)]
    return args, dtype


def _little_work(op: str, args: Args) -> Args:
    """As many products are made as there are layers, and draws as are asked for: such a number is kept small."""
    layers, draws = "propagate" in op or "gated" in op, 6 if op == "sample_negatives" else None
    return [7 if isinstance(a, int) and a > 100 and (layers or i == draws) else a for i, a in enumerate(args)]


def _exact(args: Args) -> Args:
    return map_tensors(args, torch.Tensor.double)


def _value(rng: random.Random, case: OpCase, args: Args) -> Callable[[], str]:
    def call() -> str:
        try:
            plain, exact = case.call(reference, args), case.call(reference, _exact(args))
        except ValueError:  # a user who has seen everything
            return _refused(case, args)
        ours = case.call(ops, args)
        _compare(case, args, ours, plain, exact)
        return "same"

    return call


def _refused(case: OpCase, args: Args) -> str:
    try:
        case.call(ops, args)
    except REFUSALS:
        return "refused"
    raise Fault("accepted what the reference refuses")


def _leaf(t: Tensor) -> Tensor:
    return t.detach().requires_grad_() if t.layout == torch.strided else t


def _gradient(rng: random.Random, case: OpCase, args: Args) -> Callable[[], str]:
    seed = rng.getrandbits(32)

    def gradients(namespace: Any, given: Args) -> tuple[Tensor, ...]:
        given = map_tensors(given, _leaf)
        tensors = differentiable_tensors(case, given)
        outputs = [o for o in case.call(namespace, given) if o.requires_grad]
        generator = torch.Generator().manual_seed(seed)
        cotangents = [torch.randn(o.shape, generator=generator).bfloat16().to(o.dtype) for o in outputs]
        if seed % 3 == 0:  # as backward of a sum gives it
            cotangents = [torch.ones((), dtype=o.dtype).expand(o.shape) for o in outputs]
        return torch.autograd.grad(outputs, tensors, cotangents, allow_unused=True, materialize_grads=True)

    def call() -> str:
        plain, exact = gradients(reference, args), gradients(reference, _exact(args))
        term = _largest_term(case, args)
        if case.op == "row_logsumexp":  # a softmax of products is off by as much as they are, times the rows
            term *= term
        _compare_values("gradient", gradients(ops, args), plain, exact, term, _unit(case, args))
        return "same"

    return call


def _bad(rng: random.Random, case: OpCase, args: Args) -> Callable[[], str]:
    devices = {t.device.type for t in _tensors(args)}

    def call() -> str:
        try:
            ours = getattr(ops, case.op)(*args)
        except REFUSALS:
            return "refused"
        except Exception as error:
            raise Fault(f"an error of an odd class: {type(error).__name__}: {error}") from error
        if len(devices) > 1 and not all(t.ndim == 0 for t in _tensors(args) if t.is_meta):
            raise Fault("tensors on two devices were accepted")
        nothing = case.op == "knn" and args[0].shape[0] == 0  # any k is right
        special = nothing or any(map(_special, _tensors(args)))
        if case.in_place or special:
            return "accepted"
        try:
            plain, exact = case.call(reference, args), case.call(reference, _exact(args))
        except Exception:
            return "accepted"
        _compare(case, args, flatten(ours), plain, exact)
        return "same"

    return call


def _special(t: Tensor) -> bool:
    """Whether the reference cannot be asked. torch's own indexing reads beyond a tensor of zeros without memory."""
    return t.is_complex() or t.is_meta or t.layout != torch.strided or t._is_zerotensor()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Graph):
        return [value.rowptr, value.col]
    return [t for part in value for t in _tensors(part)] if isinstance(value, list | tuple) else []


class _Calls(TorchDispatchMode):
    """Registered ops of this package as they are called below autograd, backward ops among them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Args]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func.namespace == "smore_ext":
            schema = [argument.name for argument in func._schema.arguments[len(args) :]]
            named = kwargs or {}
            defaults = {a.name: a.default_value for a in func._schema.arguments}
            self.calls.append((func, [*args, *(named.get(name, defaults[name]) for name in schema)]))
        return func(*args, **(kwargs or {}))


def _raw(rng: random.Random, case: OpCase, args: Args, dtype: torch.dtype) -> tuple[str, Callable[[], str], Args, str]:
    """A registered op that the case calls, with some of its arguments changed."""
    if case.differentiable:
        args = map_tensors(args, _leaf)
    with _Calls() as recorder:
        try:
            outputs = [o for o in case.call(ops, args) if o.requires_grad]
            if outputs:
                torch.autograd.grad(outputs, differentiable_tensors(case, args), list(map(torch.ones_like, outputs)))
        except REFUSALS:
            pass
    if not recorder.calls:
        return case.op, lambda: "refused", args, "nothing was called"
    func, given = recorder.calls[rng.randrange(len(recorder.calls))]
    given = [g.detach() if isinstance(g, Tensor) else g for g in given]
    given, what = spoiled(rng, given)
    given = _little_work(func.name(), given)

    def call() -> str:
        try:
            with torch.no_grad():
                func(*given)
        except (*REFUSALS, AssertionError):
            return "refused"
        return "accepted"

    return func.name().replace("::", "."), call, given, what


def _compare(
    case: OpCase, args: Args, ours: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor]
) -> None:
    if case.op in DIVIDING and _squares_overflow(args):
        return  # of float64 rows: their length is infinite here, and in torch too but for rows of one element
    if case.op in ("knn", "masked_topk"):
        _compare_values("score", ours[:1], plain[:1], exact[:1], _largest_term(case, args))
        _check_index(case, args, ours[0], ours[1], plain[0], exact[0])
    else:
        _compare_values("output", ours, plain, exact, _largest_term(case, args))


def _squares_overflow(args: Args) -> bool:
    floats = [t for t in _tensors(args) if t.dtype == torch.float64 and t.layout == torch.strided and t.numel()]
    return any(not bool(t.detach().square().sum().isfinite()) and bool(t.isfinite().all()) for t in floats)


def _largest_term(case: OpCase, args: Args) -> float:
    """What a sum that cancels may be made of: rounding is relative to that. Ops are linear in each argument, or divide
    by the lengths of rows."""
    if case.op in DIVIDING:
        temperature = args[2] if case.op == "info_nce" else 1.0
        return 1e4 / min(1.0, max(float(temperature), 1e-300))
    size = 1.0
    for t in _tensors(args):
        if t.is_floating_point() and t.layout == torch.strided and t.numel():
            size *= max(1.0, float(t.detach().nan_to_num(0, 0, 0).abs().max()))
    return min(size * _powers(case, args), 1e30)


def _powers(case: OpCase, args: Args) -> float:
    """How much greater terms are as a graph is taken several times."""
    if case.op not in ("poly_filter", "propagate"):
        return 1.0
    times = args[2] if case.op == "propagate" else torch.as_tensor(args[2]).numel() - 1
    graph = args[0] if isinstance(args[0], Graph) else Graph.from_sparse(args[0].detach())
    explicit = [t for t in args[3:] if isinstance(t, Tensor) and t.is_floating_point() and t.ndim == 1]
    most = max(
        (float(t.detach().abs().nan_to_num().max()) for t in (graph.weight, *explicit) if t.numel()), default=1.0
    )
    return 10.0 ** min(30.0, max(int(times) - 1, 0) * math.log10(max(most, 1.0)))


def _unit(case: OpCase, args: Args) -> float:
    """Of the last place of what is computed: rows in bfloat16 are rounded to it between layers, whatever the gradient
    that is made of them. In float64 the reference is no more exact than ours: torch's FFT errs by up to 150 units in
    the gradient at widths of twice a prime (ours by 3: tests/test_spectral_accuracy.py), and a row that hundreds of
    pairs of a batch name is a sum in another order."""
    unit = max((torch.finfo(t.dtype).eps for t in _tensors(args) if t.is_floating_point()), default=0.0)
    return 64 * unit if case.op in INEXACT and unit < 1e-12 else unit


def _compare_values(
    what: str,
    ours: Sequence[Tensor],
    plain: Sequence[Tensor],
    exact: Sequence[Tensor],
    term: float = 1.0,
    unit: float = 0.0,
) -> None:
    """Error at most a few times plain PyTorch's, or a few units in the last place of the largest value or term, be it
    that of the dtype or `unit`."""
    if len(ours) != len(plain):
        raise Fault(f"{len(ours)} of {what}, the reference has {len(plain)}")
    for i, (o, p, e) in enumerate(zip(ours, plain, exact, strict=True)):
        if (o.dtype, o.shape) != (p.dtype, p.shape):
            raise Fault(f"{what} {i}: {described(o)}, the reference has {described(p)}")
        if not o.is_floating_point():
            if not torch.equal(o, p):
                raise Fault(f"{what} {i}: {o.tolist()}, the reference has {p.tolist()}")
            continue
        sure = e.isfinite() & p.isfinite()  # elsewhere the reference overflows, or has no answer
        if (o.isfinite() < sure).any():
            raise Fault(f"{what} {i} is not finite where the reference is: {described(o)}")
        o, p, e = (t.double()[sure] for t in (o, p, e))
        if o.numel() == 0:
            continue
        error, other = (o - e).abs().max(), (p - e).abs().max()
        if error > 8 * other + max(64 * torch.finfo(ours[i].dtype).eps, 4 * unit) * max(float(e.abs().max()), term):
            raise Fault(f"{what} {i}: error {error:.3e}, plain PyTorch {other:.3e}, largest {e.abs().max():.3e}")


def _check_index(case: OpCase, args: Args, score: Tensor, index: Tensor, plain: Tensor, exact: Tensor) -> None:
    """Rows that are named must differ and have the score that stands beside them; ties leave a choice."""
    named = index >= 0
    if not torch.equal(named, score > -torch.inf):
        raise Fault(f"index and score disagree about what is there: {index.tolist()}, {score.tolist()}")
    first = args[0].double()
    second = next((a for a in args[1:] if isinstance(a, Tensor) and a.layout == torch.strided), args[0]).double()
    if index.numel() and int(index.max()) >= second.shape[0]:
        raise Fault(f"index {int(index.max())} of {second.shape[0]} rows")
    for row in torch.where(named, index, -1 - torch.arange(index.shape[1])):
        if row.unique().numel() != row.numel():
            raise Fault(f"a row is named twice: {row.tolist()}")
    if case.op == "knn":
        value = reference.cosine_at(first, index, second)
    else:
        value = (first[:, None] * second[index.clamp(min=0)]).sum(dim=2)
    mine = [torch.where(named, t, 0) for t in (score, value.to(plain.dtype), value)]
    _compare_values("score of the index", [mine[0]], [mine[1]], [mine[2]], _largest_term(case, args))
