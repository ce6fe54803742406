"""Switches of how the ops run. Threads and caches change no bit of a result.

- Threads are torch's own: `torch.set_num_threads`. The ops start none of their own.
- `host_cache`: memory of large CPU tensors that is used again.
- `cufft_plan_cache`: cuFFT plans that are kept, in builds with CUDA kernels.
- `simd_level()`: the vector instructions in use; the environment variable SMORE_SIMD=portable|avx2|avx512 forces one.
- `guard_pages(...)`: for fuzzers, CPU tensors beside a page that nobody may touch.
- `spectral_path(...)`: for tests and measurements, the way that spectral ops take on a GPU.
- `knn_products(...)`: on a GPU, what finds the candidates of `knn`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from smore_ext._native import _C, build_info

__all__ = ["cufft_plan_cache", "guard_pages", "host_cache", "knn_products", "simd_level", "spectral_path"]


class HostCache:
    """Freed CPU tensors of 1 MB and more lend their memory to the next tensor of about the same size.

    A training step asks for the same large tensors every time. From the system they come as fresh pages, and touching
    these for the first time can cost more than the arithmetic. The settings hold for the whole process and may be
    changed at any time, by any thread.

    At the start only what this package's own ops return is reused, up to 128 MB kept, and torch's allocator is left
    alone: `max_bytes` is 134,217,728 and `every_tensor` is False.
    """

    @property
    def max_bytes(self) -> int:
        """How much is kept at most; 0 gives back what is kept and stops the reuse."""
        return int(_C.host_cache()[0])

    @max_bytes.setter
    def max_bytes(self, value: int) -> None:
        if value < 0:
            raise ValueError(f"host_cache: max_bytes must be at least 0, got {value}")
        _C.set_host_cache(value, self.every_tensor)

    @property
    def every_tensor(self) -> bool:
        """Whether tensors that torch itself makes take part.

        True replaces torch's CPU allocator by one that looks here first. False makes it pass every request on to the
        one before; it stays in place, as memory that it handed out may live on.
        """
        return bool(_C.host_cache()[1])

    @every_tensor.setter
    def every_tensor(self, value: bool) -> None:
        _C.set_host_cache(self.max_bytes, value)

    @property
    def kept_bytes(self) -> int:
        """How much is kept now, for tensors to come."""
        return int(_C.host_cache()[2])

    def clear(self) -> None:
        """Gives back what is kept."""
        _C.clear_host_cache()


class CufftPlanCache:
    """The cuFFT plans last used, for spectral ops of widths that no fused kernel takes. 64 are kept at the start.

    Everything here is a RuntimeError in a build without CUDA kernels.
    """

    @property
    def size(self) -> int:
        """How many are kept now."""
        _need_cuda("cufft_plan_cache")
        return int(_C.cufft_plan_cache_size())

    @property
    def max_size(self) -> int:
        """How many are kept at most; with 0, one is made for each use."""
        _need_cuda("cufft_plan_cache")
        return int(_C.cufft_plan_cache_max_size())

    @max_size.setter
    def max_size(self, value: int) -> None:
        _need_cuda("cufft_plan_cache")
        if value < 0:
            raise ValueError(f"cufft_plan_cache: max_size must be at least 0, got {value}")
        _C.set_cufft_plan_cache_max_size(value)

    def clear(self) -> None:
        """Lets go of all plans but those that captured CUDA graphs run."""
        _need_cuda("cufft_plan_cache")
        _C.clear_cufft_plan_cache()


host_cache = HostCache()
cufft_plan_cache = CufftPlanCache()


def simd_level() -> str:
    """The level of vector instructions in use: "portable", "avx2" or "avx512"."""
    return str(build_info()["simd"])


def guard_pages(where: Literal["off", "behind", "before"]) -> None:
    """From now on memory of CPU tensors ends ("behind") or begins ("before") at a page that nobody may touch.

    A read or write beyond a tensor, or of one that was freed, then ends the process at once. For fuzzers: each tensor
    costs a system call or two, and is aligned to its elements only. It is meant for the start of a process: results of
    1 MB and more that were reused before (`host_cache`) are not guarded.

    Raises:
        ValueError: another word.
    """
    _C.set_guard_pages(where)


@contextmanager
def spectral_path(path: Literal["auto", "fused", "cufft"]) -> Iterator[None]:
    """Within the block, spectral ops on a GPU take this way; after it, "auto", the one that the shapes call for.

    "fused" is a fused kernel (an error for widths that have none), "cufft" goes by cuFFT.

    Raises:
        ValueError: an unknown path.
        RuntimeError: a build without CUDA kernels.
    """
    _need_cuda("spectral_path")
    _C.set_spectral_path(path)
    try:
        yield
    finally:
        _C.set_spectral_path("auto")


@contextmanager
def knn_products(which: Literal["float32", "int8"]) -> Iterator[None]:
    """Within the block, `knn` of float32 rows on a GPU finds its candidates by these products; after it, by float32.

    "int8" is three products of bytes on tensor cores, which add up without rounding, with a bound that is measured row
    by row (csrc/neighbours/cuda/int8_rows_kernel.h): the same graph. Rows whose bound is too wide for the lists, as
    one element is far larger than the others, go by float32 all the same. Not run on a GPU, so it is no default.

    Raises:
        ValueError: other products.
        RuntimeError: a build without CUDA kernels.
    """
    _need_cuda("knn_products")
    _C.set_knn_products(which)
    try:
        yield
    finally:
        _C.set_knn_products("float32")


def _need_cuda(name: str) -> None:
    if build_info()["cuda"] is None:
        raise RuntimeError(f"{name}: this build of smore_ext has no CUDA kernels (build_info()['cuda'] is None)")
