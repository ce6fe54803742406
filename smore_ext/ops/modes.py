"""Tensors that outlive the call that makes them: made as if none of torch's modes were on, or not remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.utils._python_dispatch import _disable_current_modes

Made = TypeVar("Made")


def outside_modes(make: Callable[[], Made], *of: Tensor | None) -> tuple[Made, bool]:
    """What `make` makes of the tensors `of`, and whether it may be remembered for later calls.

    A mode (inference, fake tensors of `torch.export`, transforms of `torch.func`) would leave its mark on the result,
    which is of no use without it: inference tensors cannot be saved for backward, fake ones hold no values. So modes
    are off meanwhile. They cannot be where one of `of` bears such a mark itself, or requires grad; then the result is
    the caller's alone. Nor can they in what `torch.compile` traces: that is made by the compiled code, in whatever mode
    runs it, so it is remembered only where grad mode is on, which inference mode turns off.
    """
    if torch.compiler.is_dynamo_compiling():
        constant = not any(t is not None and t.requires_grad for t in of)
        return make(), constant and torch.is_grad_enabled()
    if not all(t is None or (is_plain(t) and not t.requires_grad) for t in of):
        return make(), False
    # The first is for export, which would write the changes of modes themselves into its graph.
    with (
        torch._C.DisableTorchFunction(),
        _disable_current_modes(),
        torch._C._DisableFuncTorch(),
        torch.inference_mode(False),
        torch.no_grad(),
    ):
        return make(), True


def is_plain(tensor: Tensor) -> bool:
    """Whether the tensor holds values itself: it is neither fake nor wrapped by a transform."""
    return not (
        isinstance(tensor, FakeTensor | FunctionalTensor)
        or torch._is_functional_tensor(tensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or of one that was made in inference mode a copy that can be saved for backward."""
    if torch.compiler.is_dynamo_compiling() or not tensor.is_inference():
        return tensor
    with torch.inference_mode(False), torch.no_grad():
        return tensor.clone()
