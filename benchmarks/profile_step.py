"""Where a native training step's time goes: python -m benchmarks.profile_step [SIZE ...] (baby clothing).

Prints markdown: for each size the named parts of a step and its longest ops, self time on the calling thread. The
profiler costs time itself, most for short ops: the wall time of a step is measured without it.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.inputs import SIZES, dataset, published_config
from benchmarks.training import as_trained, make_step

WARM_UP, STEPS, LONGEST = 4, 10, 12

# The first pattern that fits an op's name decides.
PARTS = (
    ("feature tables: projection, forward", r"smore_ext::table_linear$"),
    ("feature tables: projection's gradients", r"smore_ext::table_linear_backward"),
    ("feature tables: Adam", r"smore_ext::factored_adam"),
    ("sparse products", r"smore_ext::(spmm|propagate|gated_product)|aten::_sparse"),
    ("spectral fusion", r"smore_ext::(spectr|spectral)|aten::_?fft"),
    ("losses", r"smore_ext::(bpr|info_nce)"),
    ("other ops of ours", r"smore_ext::"),
    ("Adam of the other parameters", r"_fused_adam|Optimizer"),
    ("dense products", r"aten::(addmm|mm|bmm|linear|matmul)"),
    (
        "rows: unique, gather, scatter",
        r"aten::(_?unique|embedding|index|gather|scatter|sort|searchsorted|repeat_inter)",
    ),
    (
        "copies and memory",
        r"aten::(copy_|clone|cat|empty|zero|fill|zeros|new_|contiguous|to$|_to_copy|narrow|slice|split)",
    ),
    ("elementwise and sums", r"aten::"),
    ("autograd and Python between ops", r""),
)


class Op(NamedTuple):
    name: str
    milliseconds: float  # a step
    calls: float  # a step


def part_of(name: str) -> str:
    return next(part for part, pattern in PARTS if re.search(pattern, name))


def wall_ms(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begin) / STEPS * 1e3


def profiled(step: Callable[[], None]) -> list[Op]:
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(STEPS):
            step()
    events = recorded.key_averages()
    ops = [Op(e.key, e.self_cpu_time_total / STEPS / 1e3, e.count / STEPS) for e in events]
    return sorted(ops, key=lambda op: -op.milliseconds)


def report(name: str, wall: float, ops: list[Op]) -> str:
    parts: dict[str, float] = defaultdict(float)
    for op in ops:
        parts[part_of(op.name)] += op.milliseconds
    total = sum(parts.values())
    lines = [
        f"## {name}: {wall:.1f} ms a step; {total:.1f} ms under the profiler, {torch.get_num_threads()} threads",
        "",
        "| part | ms | share |",
        "|---|---|---|",
        *(f"| {part} | {ms:.2f} | {ms / total:.1%} |" for part, ms in sorted(parts.items(), key=lambda p: -p[1])),
        "",
        "| op | ms | calls a step | part |",
        "|---|---|---|---|",
        *(f"| {op.name} | {op.milliseconds:.2f} | {op.calls:g} | {part_of(op.name)} |" for op in ops[:LONGEST]),
        "",
    ]
    return "\n".join(lines)


def main(names: list[str]) -> None:
    torch.set_num_threads(int(os.environ.get("SMORE_BENCH_THREADS", "2")))
    for name in names:
        config = published_config(name)
        data = dataset(SIZES[name], config.knn_k)
        with as_trained():
            _, _, step = make_step(data, config, "native", True)
            for _ in range(WARM_UP):
                step()
            print(report(name, wall_ms(step), profiled(step)), flush=True)


if __name__ == "__main__":
    if not set(sys.argv[1:]) <= {"baby", "sports", "clothing"}:
        raise SystemExit(__doc__)
    main(sys.argv[1:] or ["baby", "clothing"])
