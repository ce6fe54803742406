"""The gates on the CUDA kernels read what they are given as it is meant: captured text, so that no nvcc is needed."""

from __future__ import annotations

import cuda_resources
import pytest
from cuda_kernels import kernels_of, never_run
from cuda_resources import Kernel, complaints, not_in, nvcc_flags, parse, short_name

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4goodIfEvPT_' for 'sm_80'
ptxas info    : Function properties for _Z4goodIfEvPT_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 4224 bytes smem, 504 bytes cmem[0]
ptxas info    : Compile time = 38.261 ms
ptxas info    : Function properties for __internal_accurate_pow
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function '_Z8spillingPf' for 'sm_90'
ptxas info    : Function properties for _Z8spillingPf
    144 bytes stack frame, 228 bytes spill stores, 244 bytes spill loads
ptxas info    : Used 80 registers, used 0 barriers, 144 bytes cumulative stack size
ptxas info    : Compiling entry function '_Z6framedPf' for 'sm_120'
ptxas info    : Function properties for _Z6framedPf
    40 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 40 bytes cumulative stack size
ptxas info    : Compiling entry function '_Z7callingPf' for 'sm_120'
ptxas info    : Function properties for _Z7callingPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 129 registers, used 0 barriers
ptxas info    : Function properties for _Z6calledPf
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
"""


def test_the_report_is_read() -> None:
    assert parse(REPORT) == [
        Kernel("_Z4goodIfEvPT_", "sm_80", registers=80, shared=4224),
        Kernel("_Z8spillingPf", "sm_90", registers=80, stack=144, spills=472),
        Kernel("_Z6framedPf", "sm_120", registers=30, stack=40),
        Kernel("_Z7callingPf", "sm_120", registers=129, stack=8, spills=8),
    ]
    assert parse("error: no such thing") == []


def test_every_fault_is_named() -> None:
    assert complaints(parse(REPORT)) == [
        "_Z8spillingPf on sm_90 spills 472 bytes and has a stack frame of 144 bytes",
        "_Z6framedPf on sm_120 has a stack frame of 40 bytes",
        "_Z7callingPf on sm_120 spills 8 bytes and has a stack frame of 8 bytes and uses 129 registers, more than 128",
    ]


def test_a_report_that_lacks_a_kernel_is_noticed() -> None:
    assert not_in(parse(REPORT), ["spilling", "framed"]) == [
        "framed on sm_80",
        "spilling on sm_80",
        "framed on sm_90",
        "spilling on sm_120",
    ]


def test_an_exception_raises_the_bound(monkeypatch) -> None:
    monkeypatch.setitem(cuda_resources.EXCEPTIONS, r"wide<.*", (160, "needs them"))
    assert complaints([Kernel("wide<float>", "sm_90", registers=160)]) == []
    assert complaints([Kernel("wide<float>", "sm_90", registers=168)]) != []


def test_names_are_short() -> None:
    long = "void smore::cuda::(anonymous namespace)::f<smore::Pack<float, 4>, (smore::Mode)1>(float const*, int)"
    assert short_name(long) == "f<Pack<float, 4>, (Mode)1>"
    assert short_name("plain(int)") == "plain"


def test_flags_are_those_of_the_build() -> None:
    assert "-std=c++20" in nvcc_flags()


def test_kernels_that_no_test_ran_are_named() -> None:
    source = (
        "__global__ void plain(int* x) {\n"
        "__global__ void __launch_bounds__(kThreads, S::kBlocks)\n    bounded(const Job<T> job) {\n"
        "__global__ __launch_bounds__(kWarps* kWarp, 5) void first(Lists<T> lists) {\n"
    )
    assert kernels_of(source) == {"plain", "bounded", "first"}
    assert never_run(kernels_of(source), "plain\n(bounded<float, 64>)\n") == ["first"]
    with pytest.raises(ValueError, match="a name for every __global__"):
        kernels_of("__global__ auto strange() -> void {}")
