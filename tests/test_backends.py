"""The public switches that are not of the host cache (test_host_cache.py): SIMD level, cuFFT plans, spectral path."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from smore_ext import backends, build_info

no_cuda = build_info()["cuda"] is None


def test_the_simd_level_is_that_of_the_build_info() -> None:
    assert backends.simd_level() == build_info()["simd"]


@pytest.mark.skipif(no_cuda, reason="this build has no CUDA kernels")
def test_cufft_plans_can_be_bounded() -> None:
    plans = backends.cufft_plan_cache
    most = plans.max_size
    assert most == 64 and plans.size == 0
    plans.max_size = 3
    assert plans.max_size == 3
    plans.max_size = most
    plans.clear()
    with pytest.raises(ValueError, match="max_size must be at least 0, got -1"):
        plans.max_size = -1


@pytest.mark.skipif(no_cuda, reason="this build has no CUDA kernels")
def test_the_spectral_path_can_be_set() -> None:
    for path in ("auto", "fused", "cufft"):
        with backends.spectral_path(path):
            pass
    with pytest.raises(ValueError, match="wrong"), backends.spectral_path("wrong"):  # type: ignore[arg-type]
        pass


@pytest.mark.skipif(no_cuda, reason="this build has no CUDA kernels")
def test_the_products_of_knn_can_be_set() -> None:
    for which in ("float32", "int8"):
        with backends.knn_products(which):
            pass
    with pytest.raises(ValueError, match="wrong"), backends.knn_products("wrong"):  # type: ignore[arg-type]
        pass


@pytest.mark.skipif(not no_cuda, reason="this build has CUDA kernels")
@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("cufft_plan_cache", lambda: backends.cufft_plan_cache.size),
        ("cufft_plan_cache", lambda: backends.cufft_plan_cache.max_size),
        ("cufft_plan_cache", lambda: setattr(backends.cufft_plan_cache, "max_size", 3)),
        ("cufft_plan_cache", lambda: backends.cufft_plan_cache.clear()),
        ("spectral_path", lambda: backends.spectral_path("cufft").__enter__()),
        ("knn_products", lambda: backends.knn_products("int8").__enter__()),
    ],
)
def test_switches_of_cuda_kernels_say_so_where_there_are_none(name: str, use: Callable[[], object]) -> None:
    with pytest.raises(RuntimeError, match=f"{name}: this build of smore_ext has no CUDA kernels"):
        use()
