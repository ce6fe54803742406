"""``python -m smore_ext.doctor``: what is installed, how it was built, and whether every op is right.

Exit code 1 if an op disagrees with the reference, fails, or has no self-test case.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from smore_ext import ops, reference
from smore_ext.cli import run_command
from smore_ext.environment import versions
from smore_ext.graph import Graph

# Error of float32 ops against the float64 reference, relative to the largest value (at least 1). Wide: this
# finds broken builds; the tests hold the ops to the error of plain float32 PyTorch.
TOLERANCE = 1e-4
PROG = "python -m smore_ext.doctor"


class Case(NamedTuple):
    """Arguments of one op, float32 on the CPU, and whether gradients of the float ones are compared."""

    args: tuple[Any, ...]
    differentiable: bool = True


class Result(NamedTuple):
    """Outcome for one op: `problem` is empty if it passed, `max_error` None where nothing was compared."""

    op: str
    device: str
    max_error: float | None
    problem: str


def self_test_cases() -> dict[str, Case]:
    """One small, reproducible case per op of `smore_ext.ops`: the one place to extend with a new op."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    n_users, n_items, dim, batch = 40, 30, 19, 64
    pairs = torch.randperm(n_users * n_items, generator=generator)[:200]
    users, items = pairs // n_items, pairs % n_items
    seen = Graph.from_edges(users, items, None, (n_users, n_items))
    interactions = Graph.bipartite(users, items, n_users, n_items)
    nodes = randn(n_users + n_items, dim)
    spectra = [randn(dim // 2 + 1, 2) for _ in range(3)]
    user_rows, item_rows = nodes[:n_users], nodes[n_users:]
    drawn = [torch.randint(n, (batch,), generator=generator) for n in (n_users, n_items, n_items)]
    return {
        "spectral_filter": Case((nodes, spectra[0])),
        "spectrum_fusion": Case(([nodes, randn(*nodes.shape)], spectra[:2], spectra[2])),
        "spmm": Case((seen, item_rows, randn(*item_rows.shape))),
        "propagate": Case((interactions, nodes, 3)),
        "knn": Case((randn(n_items, 2 * dim), 5), differentiable=False),
        "cosine_at": Case((item_rows, torch.randint(n_items, (n_items, 5), generator=generator))),
        "masked_topk": Case((user_rows, item_rows, 7, seen), differentiable=False),
        "sample_negatives": Case((drawn[0], seen, torch.arange(n_items), 3), differentiable=False),
        "bpr_loss": Case((user_rows, item_rows, *drawn)),
        "factored_adam_": Case(
            (nodes, randn(*nodes.shape), nodes.square(), randn(len(nodes), 5), randn(5, dim), torch.tensor(3.0), 0.01),
            differentiable=False,
        ),
        "table_linear": Case((nodes, randn(5, dim), randn(5))),
        "info_nce": Case((user_rows, randn(*user_rows.shape), 0.2)),
    }


def _map(value: Any, change: Callable[[Tensor | Graph], Any]) -> Any:
    """`value` with `change` applied to every tensor and graph in it."""
    if isinstance(value, Tensor | Graph):
        return change(value)
    return type(value)(_map(v, change) for v in value) if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists and tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _tensors(v)


def _run(function: Callable, case: Case, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Outputs of `function` in the given precision, then the gradients of a weighted sum of them."""

    def prepare(value: Tensor | Graph) -> Tensor | Graph:
        value = value.to(device)
        if isinstance(value, Graph):
            return value.to(dtype)
        if not value.is_floating_point():
            return value
        return value.detach().to(dtype, copy=True).requires_grad_(case.differentiable)

    args = _map(case.args, prepare)
    outputs = list(_tensors(function(*args)))
    if not case.differentiable:
        return outputs
    total = sum((out * torch.linspace(1, 2, out.numel()).to(out).view_as(out)).sum() for out in outputs)
    return outputs + list(torch.autograd.grad(total, [arg for arg in _tensors(args) if arg.requires_grad]))


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


def check_op(name: str, case: Case | None, device: str = "cpu") -> Result:
    """Compare one op with its twin in `smore_ext.reference`: outputs, and gradients where it has some."""
    if case is None:
        return Result(name, device, None, "no self-test case in smore_ext/doctor.py")
    try:
        got = _run(getattr(ops, name), case, torch.float32, device)
        wanted = _run(getattr(reference, name), case, torch.float64, "cpu")
        if len(got) != len(wanted):
            return Result(name, device, None, f"{len(wanted)} tensors expected, got {len(got)}")
        error = max(_difference(g, w) for g, w in zip(got, wanted, strict=True))
    except Exception as failure:  # whatever an op raises is a finding here
        return Result(name, device, None, f"{type(failure).__name__}: {failure}")
    problem = "" if error <= TOLERANCE else f"differs from the reference by {error:.1e}"
    return Result(name, device, error, problem)


def self_test(devices: list[str]) -> list[Result]:
    """Every op of `smore_ext.ops` on every device."""
    cases = self_test_cases()
    return [check_op(name, cases.get(name), device) for device in devices for name in ops.__all__]


def openmp_runtimes() -> list[str] | None:
    """Files of the OpenMP runtimes in this process, sorted; None where the system does not tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    found = re.findall(r"(/\S*/lib(?:gomp|iomp\d*|omp)\b[^/\s]*\.so\S*)", maps.read_text())
    return sorted({os.path.realpath(path) for path in found})


def examine() -> dict[str, Any]:
    """Everything the doctor knows, as JSON-ready values."""
    info = versions()
    devices = ["cpu"] + (["cuda"] if info["build"]["cuda"] and torch.cuda.is_available() else [])
    results = self_test(devices)
    return {
        **info,
        "cpus": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "openmp": openmp_runtimes(),
        "self_test": [result._asdict() for result in results],
        "passed": not any(result.problem for result in results),
    }


def _print(console: Console, findings: dict[str, Any]) -> None:
    """The findings as two tables, and a warning if OpenMP runtimes compete."""
    about = Table(title="smore_ext", show_header=False, title_justify="left")
    about.add_column()
    about.add_column(overflow="fold")
    for key, value in findings.items():
        if key == "build":
            for name, entry in value.items():
                about.add_row(f"built: {name}", "none" if entry is None else str(entry))
        elif key not in ("self_test", "passed"):
            shown = "\n".join(map(str, value)) if isinstance(value, list) else value
            about.add_row(key, "unknown" if shown is None else str(shown) or "none")
    tests = Table("op", "device", "largest error", "", title="self-test", title_justify="left")
    for result in findings["self_test"]:
        error = "" if result["max_error"] is None else f"{result['max_error']:.1e}"
        mark = f"[red]FAILED[/red] {result['problem']}" if result["problem"] else "[green]ok[/green]"
        tests.add_row(result["op"], result["device"], error, mark)
    console.print(about, tests)
    if len(findings["openmp"] or []) > 1:
        console.print(
            "warning: more than one OpenMP runtime is loaded; their threads compete for the cores. "
            "Usually another package brought the second one.",
            style="yellow",
        )
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
    _print(Console(), findings)
    return 0 if findings["passed"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
