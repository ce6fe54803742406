"""Checks what CUDA kernels take of a multiprocessor, without a GPU: python tests/cuda_resources.py [LOG] [--archs 90].

Compiles every .cu file of csrc with the flags of setup.py, prints ptxas's report as a table, and fails if a kernel
spills, has a stack frame or uses too many registers. MAX_JOBS files are compiled at a time (2 if unset). LOG is what a
build of the extension printed under NVCC_APPEND_FLAGS="-Xptxas -v": it is read in place of compiling. `--archs` names
the architectures, all that training runs on if it is left out.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cuda_kernels import all_kernels

ROOT = Path(__file__).resolve().parents[1]
ARCHS = (80, 90, 120)
MAX_REGISTERS = 128  # a thread; with 128, blocks of 256 threads still come two to a multiprocessor
# Kernels that may use more: pattern of the name -> (registers, reason). Fewer would mean spills or other algorithms.
EXCEPTIONS: dict[str, tuple[int, str]] = {
    r"(nce|lse)_gradient_kernel<.*": (
        168,
        "two 8 x 8 accumulators a thread; shared memory limits its blocks, not registers",
    ),
    r"spectral_rows_backward_kernel<float, \d+, 3>": (168, "spectra and gradients of three modalities at a time"),
    r"spectral_rows_(forward|backward)_kernel<double, .*": (168, "a row's spectra in double take two registers each"),
    r"spectral_dft_backward_kernel<double, \d+, true>": (168, "shared memory limits its blocks, not registers"),
}


@dataclass
class Kernel:
    """What ptxas says of one kernel on one architecture; sizes in bytes, shared memory without its dynamic part."""

    name: str
    arch: str
    registers: int = 0
    shared: int = 0
    stack: int = 0
    spills: int = 0


def parse(report: str) -> list[Kernel]:
    """The kernels in what `ptxas -v` wrote. Functions that a kernel calls are counted to it."""
    kernels: list[Kernel] = []
    for line in report.splitlines():
        if found := re.search(r"Compiling entry function '(.+)' for '(\w+)'", line):
            kernels.append(Kernel(found[1], found[2]))
        if not kernels:
            continue
        kernel = kernels[-1]
        if found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            kernel.stack = max(kernel.stack, int(found[1]))
            kernel.spills += int(found[2]) + int(found[3])
        if found := re.search(r"Used (\d+) registers", line):
            kernel.registers = int(found[1])
        if found := re.search(r"(\d+) bytes smem", line):
            kernel.shared = int(found[1])
        if found := re.search(r"(\d+) bytes cumulative stack size", line):
            kernel.stack = max(kernel.stack, int(found[1]))
    return kernels


def short_name(demangled: str) -> str:
    """`void a::(anonymous namespace)::f<float, 4>(float*)` -> `f<float, 4>`."""
    text = demangled.replace("(anonymous namespace)::", "")
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            text = text[:i]
            break
    return re.sub(r"\b\w+::", "", text).removeprefix("void ")


def complaints(kernels: Iterable[Kernel]) -> list[str]:
    """A line for each kernel that takes more than it may."""
    lines = []
    for kernel in kernels:
        bounds = [bound for name, (bound, _) in EXCEPTIONS.items() if re.fullmatch(name, kernel.name)]
        limit = max(bounds, default=MAX_REGISTERS)
        faults = []
        if kernel.spills:
            faults.append(f"spills {kernel.spills} bytes")
        if kernel.stack:
            faults.append(f"has a stack frame of {kernel.stack} bytes")
        if kernel.registers > limit:
            faults.append(f"uses {kernel.registers} registers, more than {limit}")
        if faults:
            lines.append(f"{kernel.name} on {kernel.arch} {' and '.join(faults)}")
    return lines


def not_in(kernels: Iterable[Kernel], names: Iterable[str], archs: Iterable[int] = ARCHS) -> list[str]:
    """`name on arch` of the kernels that a report lacks; it has mangled names."""
    reported = {arch: " ".join(k.name for k in kernels if k.arch == f"sm_{arch}") for arch in archs}
    return [f"{name} on sm_{arch}" for arch, text in reported.items() for name in sorted(names) if name not in text]


def find_nvcc() -> str:
    """That of CUDA_HOME, else the one on PATH."""
    home = os.environ.get("CUDA_HOME")
    nvcc = (shutil.which("nvcc", path=os.path.join(home, "bin")) if home else None) or shutil.which("nvcc")
    if nvcc is None:
        sys.exit("nvcc was not found, neither in CUDA_HOME/bin nor on PATH: the CUDA kernels were not checked")
    return nvcc


def nvcc_flags() -> list[str]:
    """NVCC_FLAGS of setup.py, read without running it."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "NVCC_FLAGS" for t in node.targets):
            return ast.literal_eval(node.value)
    sys.exit("setup.py has no NVCC_FLAGS")


def report_of(nvcc: str, source: Path, folder: str, archs: Iterable[int]) -> subprocess.CompletedProcess[str]:
    """nvcc's run over one source for some architectures."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    out = os.path.join(folder, f"{source.stem}.fatbin")
    command = [nvcc, *nvcc_flags(), *targets, "-Xptxas", "-v", f"-I{ROOT / 'csrc'}", "-fatbin", "-o", out, str(source)]
    return subprocess.run(command, capture_output=True, text=True)


def demangle(kernels: list[Kernel]) -> None:
    """Gives the kernels readable names, where there is a tool for it."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None or not kernels:
        return
    mangled = "\n".join(kernel.name for kernel in kernels)
    names = subprocess.run([tool], input=mangled, capture_output=True, text=True, check=True).stdout.splitlines()
    for kernel, name in zip(kernels, names, strict=True):
        kernel.name = short_name(name)


def show(kernels: list[Kernel]) -> None:
    """Prints the table."""
    rows = [("kernel", "arch", "registers", "shared", "stack", "spills")]
    rows += [(k.name, k.arch, *map(str, (k.registers, k.shared, k.stack, k.spills))) for k in kernels]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, arch, *numbers in rows:
        cells = [n.rjust(w) for n, w in zip(numbers, widths[2:], strict=True)]
        print("  ".join([name.ljust(widths[0]), arch.ljust(widths[1]), *cells]))


def compile_all(sources: list[Path], archs: Iterable[int]) -> str:
    """ptxas's report of all sources; exits if one does not compile."""
    nvcc = find_nvcc()
    reports, failed = [], False
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or 2)) as pool:
        for source, result in zip(sources, pool.map(lambda s: report_of(nvcc, s, folder, archs), sources), strict=True):
            if result.returncode != 0:
                failed = True
                print(f"{source.relative_to(ROOT)} does not compile:\n{result.stderr}", file=sys.stderr)
            reports.append(result.stderr + result.stdout)
    if failed:
        sys.exit(1)
    return "".join(reports)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", nargs="?", type=Path)
    parser.add_argument("--archs", nargs="+", type=int, default=ARCHS)
    options = parser.parse_args()
    sources = sorted((ROOT / "csrc").rglob("*.cu"))
    kernels = parse(options.log.read_text() if options.log else compile_all(sources, options.archs))
    if missing := not_in(kernels, all_kernels(), options.archs):
        sys.exit(f"ptxas reported nothing of {', '.join(missing)}; a log must be of a whole build for {options.archs}")
    demangle(kernels)
    kernels.sort(key=lambda kernel: (kernel.name, int(kernel.arch.removeprefix("sm_"))))
    show(kernels)
    faults = complaints(kernels)
    for line in faults:
        print(line, file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"{len(kernels)} kernels: no spills, no stack frames, at most {max(k.registers for k in kernels)} registers")


if __name__ == "__main__":
    main()
