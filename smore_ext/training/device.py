"""The process that a run computes in: its device, whether torch's ops are deterministic, how memory is reused."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from smore_ext import backends

HOST_CACHE_BYTES = 1 << 30


def usable_device(name: str) -> torch.device:
    """The torch device of that name; `ValueError` when there is none on this machine."""
    # cuBLAS gives the same bits every time only with a workspace of fixed size, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def begin(name: str) -> threading.Thread | None:
    """Begins to make a GPU's context, on a thread that it returns: data can be read meanwhile. A CPU needs nothing.

    What goes wrong there is said where the device is used, by `usable_device`.
    """
    if not name.startswith("cuda"):
        return None

    def use() -> None:
        with suppress(Exception):
            torch.zeros(1, device=usable_device(name)).add_(1)

    thread = threading.Thread(target=use, name="device", daemon=True)
    thread.start()
    return thread


@contextmanager
def reuse_memory() -> Iterator[None]:
    """Large CPU tensors of a step reuse the memory of the step before; what is kept is given back at the end."""
    cache = backends.host_cache
    before = cache.max_bytes, cache.every_tensor
    cache.max_bytes, cache.every_tensor = HOST_CACHE_BYTES, True
    try:
        yield
    finally:
        cache.max_bytes, cache.every_tensor = before


@contextmanager
def matrix_products(tf32: bool) -> Iterator[None]:
    """torch's float32 matrix products in TF32 on GPUs that have it, or in full float32, whatever was set before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """torch's own ops deterministic where they can be: by default, indexing's backward adds atomically."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would write every output twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill
