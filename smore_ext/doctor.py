"""``python -m smore_ext.doctor``: what is installed, how it was built, and whether every op is right.

Exit code 1 if an op disagrees with the reference, fails, or has no self-test case.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from smore_ext import ops, reference, threads
from smore_ext._native import build_info
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.environment import versions
from smore_ext.testing import CASES, Args, OpCase, flatten, gradients, map_tensors, on

# Error of float32 ops against the float64 reference, relative to the largest value (at least 1). Wide: this
# finds broken builds; the tests hold the ops to the error of plain float32 PyTorch.
TOLERANCE = 1e-4
MOST_NUMBERS = 12_000  # in the arguments of a case that the self-test runs
PROG = "python -m smore_ext.doctor"


class Result(NamedTuple):
    """Outcome for one op: `problem` is empty if it passed, `max_error` None where nothing was compared."""

    op: str
    device: str
    max_error: float | None
    problem: str


def self_test_cases(op: str) -> list[tuple[OpCase, Args]]:
    """The cases of one op in the table that take no time, with their arguments: those of few numbers."""
    made = [(case, case.make(torch.float32, torch.Generator().manual_seed(0))) for case in CASES if case.op == op]
    return [(case, args) for case, args in made if 0 < _numbers(args) <= MOST_NUMBERS]


def _numbers(args: Args) -> int:
    """How many there are in the tensors among arguments; 0 if one of them is empty."""
    sizes = [t.numel() for t in flatten([a for a in args if isinstance(a, Tensor | list)])]
    return sum(sizes) if all(sizes) else 0


def _run(case: OpCase, namespace: Any, args: Args) -> list[Tensor]:
    """Outputs, then the gradients of a weighted sum of them."""
    outputs = case.call(namespace, args)
    if not case.differentiable:
        return list(outputs)
    weights = [torch.linspace(1, 2, o.numel()).view(o.shape) for o in outputs if o.is_floating_point()]
    return [*outputs, *gradients(case, namespace, args, weights)]


def _difference(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest value (at least 1); infinity for shapes, indices or NaN."""
    got, wanted = got.detach().cpu(), wanted.detach()
    if got.shape != wanted.shape:
        return float("inf")
    if not wanted.is_floating_point():
        return 0.0 if torch.equal(got, wanted) else float("inf")
    got = got.double()
    close = got == wanted  # infinities that agree
    error = torch.where(close, 0.0, (got - wanted).abs()).nan_to_num(nan=float("inf"))
    scale = wanted[wanted.isfinite()].abs().max().clamp(min=1.0) if wanted.isfinite().any() else 1.0
    return float(error.max() / scale) if error.numel() else 0.0


def _error(case: OpCase, args: Args, device: str) -> float:
    """The largest difference between float32 on the device and the reference in float64."""
    got = _run(case, ops, on(torch.device(device), args))
    wanted = _run(case, reference, map_tensors(args, torch.Tensor.double))
    if len(got) != len(wanted):
        raise ValueError(f"{len(wanted)} tensors expected, got {len(got)}")
    return max(_difference(g, w) for g, w in zip(got, wanted, strict=True))


def check_op(name: str, device: str = "cpu") -> Result:
    """Compare one op with its twin in `smore_ext.reference`: outputs, and gradients where it has some."""
    cases = self_test_cases(name)
    if not cases:
        return Result(name, device, None, "no case of few numbers in smore_ext.testing")
    try:
        error = max(_error(case, args, device) for case, args in cases)
    except Exception as failure:  # whatever an op raises is a finding here
        return Result(name, device, None, f"{type(failure).__name__}: {failure}")
    problem = "" if error <= TOLERANCE else f"differs from the reference by {error:.1e}"
    return Result(name, device, error, problem)


def devices() -> list[str]:
    """What this build can compute on here."""
    return ["cpu"] + (["cuda"] if build_info()["cuda"] and torch.cuda.is_available() else [])


def self_test() -> list[Result]:
    """Every op of `smore_ext.ops` on every device."""
    return [check_op(name, device) for device in devices() for name in sorted(ops.__all__)]


def openmp_runtimes() -> list[str] | None:
    """Files of the OpenMP runtimes in this process, sorted; None where the system does not tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    found = re.findall(r"(/\S*/lib(?:gomp|iomp\d*|omp)\b[^/\s]*\.so\S*)", maps.read_text())
    return sorted({os.path.realpath(path) for path in found})


def examine() -> dict[str, Any]:
    """Everything the doctor knows, as JSON-ready values."""
    about = versions()
    busy = threads.busy_elsewhere()
    results = self_test()
    about |= {
        "cpus": os.cpu_count(),
        "openmp_settings": [f"{n}={v}" for n, v in sorted(os.environ.items()) if re.match("(OMP|GOMP|KMP)_", n)],
        "usable_cores": threads.usable_cores(),
        "cores_busy_elsewhere": None if busy is None else round(busy, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "openmp": openmp_runtimes(),
    }
    return {
        **about,
        "warnings": crowding(about),
        "self_test": [result._asdict() for result in results],
        "passed": not any(result.problem for result in results),
    }


def crowding(findings: dict[str, Any]) -> list[str]:
    """What is to be said where threads have no core of their own."""
    warnings = []
    cores, used, busy = (findings[name] for name in ("usable_cores", "threads", "cores_busy_elsewhere"))
    if used > cores:
        warnings.append(
            f"torch uses {used} threads, but this process may use {cores} of the cores (affinity, or the quota of its "
            f"container): set OMP_NUM_THREADS={cores}"
        )
    if busy is not None and busy > max(0.5, findings["cpus"] - min(used, cores) + 0.5):
        warnings.append(
            f"other processes keep {busy:.1f} of {findings['cpus']} cores busy: a training run takes longer, and fewer "
            "threads (--threads) may be as fast"
        )
    return warnings


def _print(console: Console, findings: dict[str, Any]) -> None:
    """The findings as two tables, and a warning if OpenMP runtimes compete."""
    about = Table(title="smore_ext", show_header=False, title_justify="left")
    about.add_column()
    about.add_column(overflow="fold")
    for key, value in findings.items():
        if key == "build":
            for name, entry in value.items():
                about.add_row(f"built: {name}", "none" if entry is None else str(entry))
        elif key not in ("self_test", "passed", "warnings"):
            shown = "\n".join(map(str, value)) if isinstance(value, list) else value
            about.add_row(key, "unknown" if shown is None else str(shown) or "none")
    tests = Table("op", "device", "largest error", "", title="self-test", title_justify="left")
    for result in (Result(**entry) for entry in findings["self_test"]):
        error = "" if result.max_error is None else f"{result.max_error:.1e}"
        mark = Text.assemble(("FAILED", "red"), f" {result.problem}") if result.problem else Text("ok", "green")
        tests.add_row(result.op, result.device, error, mark)
    console.print(about, tests)
    if len(findings["openmp"] or []) > 1:
        console.print(
            "warning: more than one OpenMP runtime is loaded; their threads compete for the cores. "
            "Usually another package brought the second one.",
            style="yellow",
        )
    for warning in findings["warnings"]:
        console.print(f"warning: {warning}", style="yellow")
    failed = sum(bool(result["problem"]) for result in findings["self_test"])
    console.print(f"{len(findings['self_test']) - failed} ops passed, {failed} failed")


@click.command()
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write all as JSON.")
def command(json_file: Path | None) -> int:
    """Show versions and the build, and compare every op with the reference (exit code 1 if one differs)."""
    if json_file is not None and not os.access(json_file.parent, os.W_OK):
        raise click.UsageError(f"--json {json_file}: cannot write into folder {json_file.parent}")
    findings = examine()
    if json_file is not None:
        json_file.write_text(json.dumps(findings, indent=2) + "\n")
    _print(make_console(), findings)
    return 0 if findings["passed"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
