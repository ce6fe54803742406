"""Checks that every CUDA kernel was run by the C++ tests: python tests/cuda_kernels.py LOG.

LOG is what the emulation wrote (SMORE_EMULATION_LOG): a line for each kernel that a test program launched.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "csrc"
KERNEL = re.compile(r"__global__\s+(?:void\s+)?(?:__launch_bounds__\([^;{]*?\)\s+)?(?:void\s+)?(\w+)\s*\(")


def kernels_of(text: str) -> set[str]:
    """Names of the kernels that a source defines. Raises ValueError where one is written in a way not known here."""
    names = KERNEL.findall(text)
    if len(names) != len(re.findall(r"\b__global__\b", text)):
        raise ValueError(f"expected a name for every __global__, got {names}")
    return set(names)


def never_run(kernels: Iterable[str], log: str) -> list[str]:
    """Those of `kernels` that no line of the log names; a line may be `(name<float, 64>)`."""
    run = set(re.findall(r"\w+", log))
    return sorted(set(kernels) - run)


def all_kernels() -> set[str]:
    """Names of the kernels of all sources."""
    return {name for path in sorted(SOURCES.rglob("*.cu*")) for name in kernels_of(path.read_text())}


def main() -> None:
    kernels = all_kernels()
    left = never_run(kernels, Path(sys.argv[1]).read_text())
    if left:
        sys.exit(f"CUDA kernels that no C++ test runs: {', '.join(left)}")
    print(f"all {len(kernels)} CUDA kernels were run by the C++ tests")


if __name__ == "__main__":
    main()
