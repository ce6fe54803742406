"""What gpu_check.py reads from a stage's output and files: figures for its JSON, a headline, a problem if there is one.

A reader takes the stage's output (stdout and stderr) and its own folder, and returns a dict; "headline" is shown in the
table, and "problem" makes the stage a failure whatever its exit code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks import summary

Reading = dict[str, Any]
MOST_NAMED, MOST_REPORTS = 50, 5
KNN_EXTRA_MB = 64.0  # what knn may take beyond inputs and outputs


def lines(output: str, folder: Path) -> Reading:
    """Lines `name: value`, as the versions stage prints them."""
    found = dict(re.findall(r"^(\w+): (.*)$", output, re.MULTILINE))
    return {**found, "headline": found.get("gpu", "")}


def nothing(output: str, folder: Path) -> Reading:
    return {}


def pytest_counts(output: str) -> dict[str, int]:
    """Of the last summary line, `== 2 failed, 30 passed in 1.2s ==` or the same without rules; empty: there is none."""
    ends = re.findall(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s\b", output, re.MULTILINE)
    if not ends:
        return {}
    plural = {"error": "errors", "warning": "warnings"}
    return {plural.get(word, word): int(count) for count, word in re.findall(r"(\d+) ([a-z]+)", ends[-1])}


def pytest_run(output: str, folder: Path) -> Reading:
    counts = pytest_counts(output)
    names = re.findall(r"^(?:FAILED|ERROR) (\S+(?: - .*)?)$", output, re.MULTILINE)
    reading: Reading = {"counts": counts, "failed": [name[:300] for name in names[:MOST_NAMED]]}
    reading["headline"] = ", ".join(f"{count} {word}" for word, count in counts.items()) or "no summary line"
    return reading


def sanitizer_errors(output: str) -> int | None:
    """Errors (and hazards) that compute-sanitizer counted; None: its summary is not there."""
    errors = re.findall(r"^=+ ERROR SUMMARY: (\d+) errors?\s*$", output, re.MULTILINE)
    hazards = re.findall(r"^=+ RACECHECK SUMMARY: (\d+) hazards? displayed", output, re.MULTILINE)
    found = [int(count) for count in [*errors, *hazards]]
    return sum(found) if found else None


def sanitizer_reports(output: str) -> list[str]:
    """What it says of each error: blocks of lines that begin with nine equals signs, with an empty one between them."""
    said = [line[9:].rstrip() for line in output.splitlines() if re.match("={9}( |$)", line)]
    said = [line for line in said if not re.match(r" (COMPUTE-SANITIZER|\w+ SUMMARY:)", line)]
    return [block.strip("\n") for block in re.split(r"\n\n+", "\n".join(said)) if block.strip()]


def sanitizer_run(output: str, folder: Path) -> Reading:
    errors = sanitizer_errors(output)
    reading = pytest_run(output, folder) | {"errors": errors}
    reading["reports"] = [report[:2000] for report in sanitizer_reports(output)[:MOST_REPORTS]]
    reading["headline"] = f"{'no summary' if errors is None else f'{errors} errors'}; {reading['headline']}"
    if errors != 0:
        reading["problem"] = "no summary of compute-sanitizer" if errors is None else f"{errors} errors"
    return reading


def doctor(output: str, folder: Path) -> Reading:
    findings = json.loads((folder / "doctor.json").read_text())
    tests = findings["self_test"]
    devices = sorted({test["device"] for test in tests})
    failed = [f"{test['op']} on {test['device']}: {test['problem']}" for test in tests if test["problem"]]
    return {
        "build": findings["build"],
        "devices": devices,
        "failed": failed,
        "largest_error": {f"{test['op']} {test['device']}": test["max_error"] for test in tests},
        "headline": f"{len(tests) - len(failed)} ops passed, {len(failed)} failed, on {' and '.join(devices)}",
    }


def agreement(output: str, folder: Path) -> Reading:
    findings = json.loads((folder / "agreement.json").read_text())
    not_as_on_cpu = [name for name, same in findings["as_on_cpu"].items() if not same]
    headline = (
        f"{len(findings['differing'])} cases differ between two runs; not as on the CPU: "
        f"{', '.join(not_as_on_cpu) or 'none'}; errors in {', '.join(findings['errors']) or 'none'}"
    )
    return {**findings, "headline": headline}


def benchmarks(output: str, folder: Path) -> Reading:
    """The run as summary.py has it; what was measured before a run was stopped counts."""
    results = summary.summarise(json.loads((folder / "bench.json").read_text()))
    measured = [target for target in results["targets"] if target["cases"]]
    met = sum(bool(target["met"]) for target in measured)
    reading = pytest_run(output, folder) | {"results": results}
    reading["headline"] = f"{reading['headline']}; {met} of {len(measured)} targets met"
    return reading


def training(output: str, folder: Path) -> Reading:
    result = json.loads((folder / "run" / "result.json").read_text())
    epochs = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    epoch_seconds = [epoch["seconds"]["training"] for epoch in epochs]
    spent = result["seconds"]
    spent_on = ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in spent.items())
    return {
        "test": result["test"],
        "loss": [epoch["loss"] for epoch in epochs],
        "epoch_seconds": epoch_seconds,
        "seconds_by_kind": spent,  # the run's time line
        "headline": f"test recall@20 {result['test']['recall@20']:.4f}, {len(epochs)} epochs, last "
        f"{epoch_seconds[-1]:.3g} s; {spent_on} s",
    }


def step_profile(output: str, folder: Path) -> Reading:
    """Kernels of a step by size, and the time of the step in float32 and with autocast."""
    found = json.loads((folder / "profile.json").read_text())
    shown = [f"{size} {one['kernels']:g} kernels, {one['step_ms']:.3g} ms ({one['amp_ms']:.3g} --amp)" for size, one in
             found.items()]  # fmt: skip
    return {"sizes": found, "headline": "; ".join(shown)}


def seeds_side_by_side(output: str, folder: Path) -> Reading:
    found = json.loads((folder / "seeds.json").read_text())
    return {**found, "headline": f"{found['jobs']} runs side by side: {found['throughput']:.2f} times one's throughput"}


def knn_memory(output: str, folder: Path) -> Reading:
    found = re.search(r"^(.*): (-?[\d.]+) MB beyond inputs .*, ([\d.e+-]+) s on (.*)$", output, re.MULTILINE)
    if found is None:
        return {"problem": "no figure in the output"}
    extra = float(found[2])
    reading: Reading = {"size": found[1], "extra_mb": extra, "seconds_of_knn": float(found[3]), "headline": found[0]}
    return reading if extra <= KNN_EXTRA_MB else reading | {"problem": f"{extra} MB, more than {KNN_EXTRA_MB:g}"}
