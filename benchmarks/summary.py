"""Turns a pytest-benchmark JSON file into tables: python -m benchmarks.summary IN.json OUT_STEM.

Writes OUT_STEM.md and OUT_STEM.json: targets met or not, then every case with native's and each peer's median and
interquartile range, ratios (above 1: ours is faster) and the floor; and machine, versions, threads and ceilings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple


class Target(NamedTuple):
    row: str
    peer: str
    geomean: float
    minimum: float | None = None


TARGETS = (
    Target("spectrum_fusion, forward", "torch.fft", 6, 4),
    Target("spectrum_fusion, forward + backward", "torch.fft", 5, 3.5),
    Target("spectrum_fusion, forward", "scipy.fft", 3, 2),
    Target("spectral_filter, forward", "torch.fft", 4, 1),
    Target("spectral_filter, forward + backward", "torch.fft", 4, 1),
    Target("spmm, forward", "torch COO", 15, 10),
    Target("spmm, forward", "torch CSR", 4, 2.2),
    Target("spmm, forward", "torch_sparse", 6, 3),
    Target("spmm, forward + backward", "torch COO", 15, 10),
    Target("spmm, forward + backward", "torch CSR", 4, 2.2),
    Target("propagate, forward + backward", "own spmm", 1.25, 1),
    Target("spmm with edge weights, forward + backward", "embedding_bag", 2.6, 2),
    Target("knn", "faiss", 1.6, 1.4),
    Target("knn", "torch mm + topk", 1.8, 1.5),
    Target("Graph.knn", "published", 15, 10),
    Target("masked_topk", "torch matmul + mask + topk", 4, 3),
    Target("sample_negatives", "Python loop", 100, 50),
    Target("sample_negatives", "vectorised torch", 3, 2),
    Target("info_nce, forward + backward", "eager torch", 2.8, 2),
    Target("bpr_loss, forward + backward", "eager torch", 2, 1.5),
    Target("feature table step", "fused Adam", 1.3, 1.2),
    Target("feature table step", "default Adam", 2, 1.8),
    Target("training step", "published", 5, 4),
    Target("training step", "csr-fused", 1.7, 1.4),
    Target("training step of a model", "plain", 3),
    Target("epoch", "published", 6),
    Target("before the first step", "published", 10),
)
FLOOR = "the floor"  # a target against it: the share of the device's measured rates that is reached
CUDA_TARGETS = (
    Target("CUDA spectrum_fusion large, forward", "torch.fft", 6),
    Target("CUDA spectrum_fusion large, forward", FLOOR, 0.75),
    Target("CUDA spectrum_fusion large, forward + backward", "torch.fft", 6),
    Target("CUDA spectrum_fusion large, forward + backward", FLOOR, 0.75),
    Target("CUDA spectrum_fusion small, forward", "torch.fft", 8),
    Target("CUDA spectrum_fusion small, forward + backward", "torch.fft", 8),
    Target("CUDA spectral_filter, forward", "torch.fft", 1, 1),
    Target("CUDA spectral_filter, forward", "own cuFFT path", 1.5),
    Target("CUDA spmm, forward", "torch CSR", 1.4, 1),
    Target("CUDA spmm, forward", "torch COO", 3),
    Target("CUDA knn", "torch mm + topk", 1.5),
    Target("CUDA knn", "torch mm alone", round(1 / 1.3, 3)),  # at most 1.3 times its time
    Target("CUDA feature table step", "fused Adam", 1.4),
    Target("CUDA feature table step", "default Adam", 2.2),
    Target("CUDA training step, baby", "published", 8),
    Target("CUDA training step, baby", "compiled, fused Adam", 2.5),
    Target("CUDA training step, clothing", "published", 3),
    Target("CUDA training step, clothing", "compiled, fused Adam", 1.5),
)
ROWS = list(dict.fromkeys(target.row for target in TARGETS + CUDA_TARGETS))


def case_result(info: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
    """One case in milliseconds. info: a benchmark's extra_info (interleave.py); native: its statistics in seconds."""
    calls = info.get("calls", 1)  # a measurement
    seconds, iqr = native["median"] / calls, native["iqr"] / calls
    median = seconds * 1e3
    peers = {
        name: {
            "median_ms": peer["median_s"] * 1e3,
            "iqr_ms": peer["iqr_s"] * 1e3,
            "rounds": peer["rounds"],
            "ratio": peer["median_s"] / seconds,
        }
        for name, peer in info["peers"].items()
    }
    return {
        "row": info["row"],
        "case": info["case"],
        "native": {"median_ms": median, "iqr_ms": iqr * 1e3, "rounds": native["rounds"]},
        "floor": {**info["floor"], "times": median / info["floor"]["ms"]},
        "peers": peers,
        "skipped": info["skipped"],
        **{key: info[key] for key in ("peak_mb", "notes") if key in info},
    }


def targets_for(results: Iterable[dict[str, Any]]) -> list[Target]:
    """The CPU's targets, those for a GPU, or both, as was measured."""
    rows = {result["row"] for result in results}
    lists = [targets for targets in (TARGETS, CUDA_TARGETS) if rows & {target.row for target in targets}]
    return [target for targets in lists or [TARGETS] for target in targets]


def ratio_to(target: Target, result: dict[str, Any]) -> float | None:
    if target.peer == FLOOR:
        return 1 / result["floor"]["times"]
    return result["peers"][target.peer]["ratio"] if target.peer in result["peers"] else None


def in_order(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the targets have them; in a row, the case where we lead least comes first."""

    def place(result: dict[str, Any]) -> tuple[int, float]:
        row = ROWS.index(result["row"]) if result["row"] in ROWS else len(ROWS)
        return row, min((peer["ratio"] for peer in result["peers"].values()), default=0.0)

    return sorted(results, key=place)


def against_targets(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each target with what was measured; `cases` is 0 and the rest None where nothing was."""
    lines = []
    for target in targets_for(results):
        found = [ratio_to(target, r) for r in results if r["row"] == target.row]
        ratios = [ratio for ratio in found if ratio is not None]
        line: dict[str, Any] = {"row": target.row, "peer": target.peer, "cases": len(ratios)}
        line |= {"target_geomean": target.geomean, "target_minimum": target.minimum}
        geomean = prod(ratios) ** (1 / len(ratios)) if ratios else None
        minimum = min(ratios, default=None)
        met = None if not ratios else geomean >= target.geomean and minimum >= (target.minimum or 0)
        line["installed"] = not any(r["row"] == target.row and target.peer in r["skipped"] for r in results)
        lines.append(line | {"geomean": geomean, "minimum": minimum, "met": met})
    return lines


def number(value: float | None) -> str:
    """Three digits, and all those before the point."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def with_spread(figures: dict[str, Any]) -> str:
    return f"{number(figures['median_ms'])} ({number(figures['iqr_ms'])}; {figures['rounds']})"


def target_rows(results: list[dict[str, Any]]) -> list[list[str]]:
    verdict = {True: "yes", False: "NO", None: "not measured"}
    return [
        [
            line["row"],
            line["peer"],
            str(line["cases"]),
            f"{number(line['geomean'])} / {number(line['target_geomean'])}",
            f"{number(line['minimum'])} / {number(line['target_minimum'])}",
            verdict[line["met"]] if line["installed"] else "peer not installed",
        ]
        for line in against_targets(results)
    ]


def slower(results: list[dict[str, Any]]) -> list[str]:
    found = [
        (peer["ratio"], f"{r['row']}, {r['case']}: {name} ({number(peer['ratio'])}x)")
        for r in results
        for name, peer in r["peers"].items()
        if peer["ratio"] < 1
    ]
    return [line for _, line in sorted(found)]


def markdown_table(head: str, rows: list[list[str]]) -> list[str]:
    columns = head.split(" | ")
    return [f"| {head} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows), ""]


def case_row(result: dict[str, Any]) -> list[str]:
    floor, notes, peaks = result["floor"], result.get("notes", {}), result.get("peak_mb", {})

    def timed(name: str, figures: dict[str, Any]) -> str:
        return with_spread(figures) + (f", {number(peaks[name])} MB" if name in peaks else "")

    peers = [
        f"{name} {timed(name, peer)}, **{number(peer['ratio'])}x**" + (f" ({notes[name]})" if name in notes else "")
        for name, peer in result["peers"].items()
    ]
    peers += [f"{name}: {notes.get(name, 'not installed')}" for name in result["skipped"]]
    limit = f"{number(floor['ms'])} ({floor['bound']})"
    return [
        result["row"],
        result["case"],
        timed("native", result["native"]),
        limit,
        number(floor["times"]),
        "; ".join(peers),
    ]


def text(results: list[dict[str, Any]]) -> str:
    """The end of a pytest run: measured targets, and each case's ratios."""
    lines = ["  ".join(row) for row in target_rows(results) if row[2] != "0"] + [""]
    for r in in_order(results):
        ratios = ", ".join(f"{name} {number(peer['ratio'])}x" for name, peer in r["peers"].items())
        native, floor = number(r["native"]["median_ms"]), number(r["floor"]["times"])
        lines.append(f"{r['row']}, {r['case']}: {native} ms, {floor} x floor; {ratios}")
    return "\n".join(lines)


def device_lines(summary: dict[str, Any]) -> list[str]:
    """What a GPU's cases, those named "CUDA", were measured on."""
    if "device" not in summary:
        return []
    ceilings = summary["device"]["ceilings"]
    return [
        "",
        f"Cases named CUDA: {summary['device']['name']}; copy {number(ceilings['copy_gb_s'])} GB/s (in cache "
        f"{number(ceilings['cached_copy_gb_s'])}), float32 products {number(ceilings['sgemm_gflop_s'])} GFLOP/s, TF32 "
        f"{number(ceilings['tf32_gflop_s'])}. MB: memory that one call takes at its peak, results included.",
    ]


def markdown(summary: dict[str, Any]) -> str:
    results, ceilings = summary["cases"], summary["ceilings"]
    behind = slower(results)
    lines = [
        f"{summary['date']}, {summary['cpu']}, {summary['cores']} cores, {summary['threads']} threads, SIMD "
        f"{summary['simd']}; {', '.join(f'{name} {v}' for name, v in summary['versions'].items())}",
        "",
        f"Command: `{summary['command']}`. Ceilings in this session: copy {number(ceilings['copy_gb_s'])} GB/s "
        f"(read and write counted; in cache {number(ceilings['cached_copy_gb_s'])}), reading in cache "
        f"{number(ceilings['cached_read_gb_s'])} GB/s, sgemm {number(ceilings['sgemm_gflop_s'])} GFLOP/s.",
        *device_lines(summary),
        "",
        "Ratios: median time of the peer / median time of ours, in turns in one process. Above 1, ours is faster.",
        "",
        "## Targets",
        "",
        *markdown_table("row | peer | cases | geometric mean / target | minimum / target | met", target_rows(results)),
        "## Where a peer is faster",
        "",
        *([f"- {line}" for line in behind] or ["Nowhere."]),
        "",
        "## Cases",
        "",
        "Milliseconds: median (interquartile range; rounds). Floor: what bytes, gathers from cache or flops take at "
        "the ceilings; in a row, the case where we lead least comes first.",
        "",
        *markdown_table("row | case | ours | floor | ours / floor | peers", [case_row(r) for r in results]),
    ]
    return "\n".join(lines)


def summarise(report: dict[str, Any]) -> dict[str, Any]:
    machine = report["machine_info"]
    cpu = machine.get("cpu", {})
    results = [case_result(benchmark["extra_info"], benchmark["stats"]) for benchmark in report["benchmarks"]]
    return {
        "date": report["datetime"][:10],
        "cpu": cpu.get("brand_raw", machine["processor"]),
        "cores": cpu.get("count"),
        "threads": machine["threads"],
        "simd": machine["smore_ext"]["simd"],
        "versions": machine["versions"],
        "command": machine["command"],
        "ceilings": machine["ceilings"],
        **{key: machine[key] for key in ("device",) if key in machine},
        "targets": against_targets(results),
        "cases": in_order(results),
    }


def main(source: Path, stem: Path) -> None:
    summary = summarise(json.loads(source.read_text()))
    stem.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(summary))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
