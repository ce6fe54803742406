"""What every op family registers from Python: the fake (shape) kernel and the autocast rule."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from smore_ext import _native  # noqa: F401  (loading it defines the ops)

Kernel = Callable[..., Any]


def fake(name: str, *, anywhere: Sequence[str] = ()) -> Callable[[Kernel], Kernel]:
    """Registers the decorated function as the shape kernel of smore_ext::name.

    It runs wherever one argument is on the meta device, so it also checks that the others are: nothing else looks at
    the devices of an op that has no autograd kernel. Arguments named in `anywhere` are scalars that may be elsewhere,
    but not on the meta device alone, where they have no value.
    """

    def register(kernel: Kernel) -> Kernel:
        parameters = inspect.signature(kernel).parameters
        needed = [n for n, parameter in parameters.items() if parameter.annotation in ("Tensor", torch.Tensor)]

        @functools.wraps(kernel)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(parameters, args, strict=False)), **kwargs}
            for missing in (n for n in needed if given.get(n) is None):  # an undefined tensor, which schemas let pass
                raise TypeError(f"smore_ext::{name}: {missing} must be a tensor, got none")
            _check_devices(name, given, anywhere)
            return kernel(*args, **kwargs)

        torch.library.register_fake(f"smore_ext::{name}")(checked)
        return kernel

    return register


def _check_devices(op: str, arguments: dict[str, Any], anywhere: Sequence[str]) -> None:
    """All tensors among the arguments must be on the device of the first."""
    first: tuple[str, torch.device] | None = None
    for name, value in arguments.items():
        tensors = value if isinstance(value, list | tuple) else [value]
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor):
                continue
            if first is None:
                first = name, tensor.device
            elif tensor.device != first[1] and (name not in anywhere or tensor.is_meta):
                raise ValueError(
                    f"smore_ext::{op}: {name} must be on the device of {first[0]} ({first[1]}), got {tensor.device}"
                )


def autocast_float32(*names: str) -> None:
    """Under autocast these ops take half-precision inputs as float32 and return float32; float64 stays."""
    for name in names:
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(f"smore_ext::{name}", device, torch.float32)
