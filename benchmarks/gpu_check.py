"""One command for a machine with an NVIDIA GPU: builds, checks and measures, and writes one JSON.

    python -m benchmarks.gpu_check [--out FILE] [--only NAMES] [--skip NAMES] [--minutes M]

The stages (gpu_stages.py) run one after the other, each in a process of its own with a time limit; one that fails stops
no other, and what the time no longer suffices for is left out, which the table and the JSON say. The JSON is written
after each stage. NAMES: stages or groups, with commas (`--only build,sanitizer`). Exit code 1: a stage failed.
SMORE_BENCH_DEVICE=cpu runs the smoke form, which tries this program itself on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import summary
from benchmarks.gpu_stages import Stage, all_stages, compute_capability

ROOT = Path(__file__).resolve().parents[1]
MINUTES = 7.8
GRACE = 15.0  # seconds that an interrupted stage has to write what it has measured
LEAST = 10.0  # seconds: with less time left no stage is started
TAIL = 4000  # characters of a failed stage's output that are kept


def run(stage: Stage, folder: Path, seconds: float) -> dict[str, Any]:
    """Runs a stage for `seconds` at most, and reads its output."""
    if stage.skip is not None:
        return {"status": "skipped", "why": stage.skip}
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "output.log"
    begin = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **stage.environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it has started ends with it
        )
        try:
            rc: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            rc = None
        finally:
            end(process)
    output = log.read_text(errors="replace")
    result: dict[str, Any] = {"status": "passed" if rc == 0 else "failed" if rc is not None else "timed out"}
    result |= {"rc": rc, "seconds": round(time.monotonic() - begin, 1), "limit": round(seconds, 1)}
    result["command"] = shlex.join(stage.command)
    try:
        result |= stage.read(output, folder)
    except (OSError, ValueError, KeyError, IndexError) as error:  # a stage that failed may have left no results
        result["problem"] = f"its results could not be read: {type(error).__name__}: {error}"
    if "problem" in result and rc == 0:
        result["status"] = "failed"
    if result["status"] != "passed":
        result["tail"] = output[-TAIL:]
    return result


def end(process: subprocess.Popen) -> None:
    """Interrupts a process that still runs, as Ctrl-C does, and ends its whole session."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def chosen(stages: Sequence[Stage], only: Sequence[str], left_out: Sequence[str]) -> list[Stage]:
    """The stages that these names of stages and groups leave; an unknown name ends the program."""
    known = {name for stage in stages for name in (stage.name, stage.group) if name}
    if unknown := [name for name in [*only, *left_out] if name not in known]:
        raise SystemExit(f"no such stage: {', '.join(unknown)}; there are {', '.join(sorted(known))}")

    def named(stage: Stage, names: Sequence[str]) -> bool:
        return stage.name in names or stage.group in names

    return [stage for stage in stages if (not only or named(stage, only)) and not named(stage, left_out)]


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line a stage, and the ratios of the benchmarks."""
    rows = []
    for name, result in results.items():
        said = [result[key] for key in ("headline", "problem", "why") if result.get(key)]
        rows.append(f"{name:<14} {result['status']:<10} {result.get('seconds', 0):>6.1f} s  {'; '.join(said)}")
    cases = [case for result in results.values() if "results" in result for case in result["results"]["cases"]]
    return "\n".join([*rows, "", summary.text(cases)] if cases else rows)


def check(stages: Sequence[Stage], folder: Path, out: Path, minutes: float, smoke: bool) -> dict[str, Any]:
    report: dict[str, Any] = {"date": date.today().isoformat(), "smoke": smoke, "stages": {}}
    deadline = time.monotonic() + 60 * minutes
    for stage in stages:
        left = deadline - time.monotonic()
        if left < LEAST:
            result = {"status": "skipped", "why": f"no time left: --only {stage.name} runs it"}
        else:
            print(f"{stage.name} ...", flush=True)
            result = run(stage, folder / stage.name, min(stage.limit, left))
        report["stages"][stage.name] = result
        if "tail" in result:
            print(result["tail"], flush=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    today = ROOT / "benchmarks" / "results" / f"gpu-{date.today().isoformat()}.json"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=today, metavar="FILE", help=f"default: {today.relative_to(ROOT)}")
    parser.add_argument("--only", type=names, default=[], metavar="NAMES", help="run only these")
    parser.add_argument("--skip", type=names, default=[], metavar="NAMES", help="do not run these")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="M", help=f"for all; default: {MINUTES}")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parsed(argv)
    smoke = os.environ.get("SMORE_BENCH_DEVICE") == "cpu"
    capability = None if smoke else compute_capability()
    if capability is None and not smoke:
        raise SystemExit("nvidia-smi shows no GPU here; SMORE_BENCH_DEVICE=cpu runs the smoke form")
    with tempfile.TemporaryDirectory() as folder:
        stages = chosen(all_stages(Path(folder), capability, smoke), options.only, options.skip)
        report = check(stages, Path(folder), options.out, options.minutes, smoke)
    print(f"\n{table(report['stages'])}\n\nwritten: {options.out}")
    return int(any(result["status"] in ("failed", "timed out") for result in report["stages"].values()))


if __name__ == "__main__":
    sys.exit(main())
