"""What every op family registers from Python: the fake (shape) kernel and the autocast rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from smore_ext import _native  # noqa: F401  (loading it defines the ops)

Kernel = Callable[..., Any]


def fake(name: str) -> Callable[[Kernel], Kernel]:
    """Registers the decorated function as the shape kernel of smore_ext::name."""

    def register(kernel: Kernel) -> Kernel:
        torch.library.register_fake(f"smore_ext::{name}")(kernel)
        return kernel

    return register


def autocast_float32(*names: str) -> None:
    """Under autocast these ops take half-precision inputs as float32 and return float32; float64 stays."""
    for name in names:
        for device in ("cpu", "cuda"):
            torch.library.register_autocast(f"smore_ext::{name}", device, torch.float32)
