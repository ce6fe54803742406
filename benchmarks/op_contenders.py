"""Makes comparisons from the tests' op cases: forward, or forward and backward with a fixed incoming gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.ceilings import Floor
from benchmarks.device import CPU
from benchmarks.interleave import Comparison, Contender
from smore_ext import ops
from smore_ext.testing.cases import Args, OpCase, differentiable_tensors, map_tensors, on


def arguments(case: OpCase, backward: bool, device: torch.device = CPU) -> Args:
    args = on(device, case.make(torch.float32, torch.Generator().manual_seed(0)))
    return map_tensors(args, torch.Tensor.requires_grad_) if backward else args


def op_comparison(
    case: OpCase,
    peers: Mapping[str, Any | None],
    floor: Callable[[Args], Floor],
    backward: bool,
    device: torch.device = CPU,
) -> Comparison:
    """peers: what has a function of the op's name, or None; floor: from the arguments."""
    args = arguments(case, backward, device)
    runner = both if backward else forward
    contenders = {
        name: None if module is None else Contender(runner(case, module, args)) for name, module in peers.items()
    }
    return Comparison(Contender(runner(case, ops, args)), contenders, floor(args))


def forward(case: OpCase, module: Any, args: Args) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return case.call(module, args)

    return run


def both(case: OpCase, module: Any, args: Args) -> Callable[[], Any]:
    tensors = differentiable_tensors(case, args)
    incoming = [torch.rand_like(output) for output in case.call(ops, args)]

    def run() -> Any:
        outputs = case.call(module, args)
        return outputs, torch.autograd.grad(outputs, tensors, incoming)

    return run
