"""Turns a pytest-benchmark JSON file into a table: python benchmarks/summary.py IN.json OUT_STEM.

Writes OUT_STEM.md and OUT_STEM.json: for each group the median and interquartile range of every contender in ms
and the ratio of its median to that of "native" (above 1: native is faster), with machine, versions and threads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def contender(benchmark: dict[str, Any]) -> str:
    params = benchmark["params"] or {}
    return str(params.get("peer", params.get("name")))


def summarise(report: dict[str, Any]) -> dict[str, Any]:
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for benchmark in report["benchmarks"]:
        stats = benchmark["stats"]
        entry = {"median_ms": stats["median"] * 1e3, "iqr_ms": stats["iqr"] * 1e3, "rounds": stats["rounds"]}
        groups.setdefault(benchmark["group"], {})[contender(benchmark)] = entry
    for entries in groups.values():
        for entry in entries.values():
            entry["ratio"] = entry["median_ms"] / entries["native"]["median_ms"]
    machine = report["machine_info"]
    cpu = machine.get("cpu", {})
    return {
        "date": report["datetime"][:10],
        "cpu": cpu.get("brand_raw", machine["processor"]),
        "cores": cpu.get("count"),
        "threads": machine["threads"],
        "simd": machine["smore_ext"]["simd"],
        "versions": machine["versions"],
        "groups": groups,
    }


def table(summary: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    lines = [
        f"{summary['date']}, {summary['cpu']}, {summary['cores']} cores, {summary['threads']} threads, "
        f"SIMD {summary['simd']}; {versions}",
        "",
        "Median milliseconds (interquartile range); ratio to native: above 1, native is faster.",
        "",
        "| case | native | peers |",
        "|---|---|---|",
    ]
    for group, entries in summary["groups"].items():
        native = entries["native"]
        peers = "; ".join(
            f"{name} {entry['median_ms']:.2f} ({entry['iqr_ms']:.2f}), **{entry['ratio']:.2f}x**"
            for name, entry in entries.items()
            if name != "native"
        )
        lines.append(f"| {group} | {native['median_ms']:.2f} ({native['iqr_ms']:.2f}) | {peers} |")
    return "\n".join(lines) + "\n"


def main(source: Path, stem: Path) -> None:
    summary = summarise(json.loads(source.read_text()))
    stem.with_suffix(".json").write_text(json.dumps(summary, indent=1) + "\n")
    stem.with_suffix(".md").write_text(table(summary))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
