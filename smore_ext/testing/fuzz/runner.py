"""Runs calls of a target in processes that may die, and gathers what was found."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

BAD = ("fault", "error", "died", "hangs")


@dataclass(frozen=True)
class Finding:
    """A call that killed the process, hung, or did something else than it must."""

    target: str
    seed: int
    number: int
    kind: str
    outcome: str
    call: str
    detail: str

    @property
    def again(self) -> str:
        return f"python -m smore_ext.testing.fuzz {self.target} --seed {self.seed} --only {self.number}"


@dataclass
class Report:
    """Outcomes by kind, and the findings."""

    target: str
    seed: int
    calls: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, outcome: str) -> None:
        self.calls += 1
        self.outcomes.setdefault(kind, Counter())[outcome] += 1

    def table(self) -> str:
        """Kinds down, outcomes across."""
        columns = sorted({outcome for row in self.outcomes.values() for outcome in row})
        head = ["", *columns]
        rows = [[kind, *(f"{row[c]:,}" for c in columns)] for kind, row in sorted(self.outcomes.items())]
        rows.append(["all", *(f"{sum(row[c] for row in self.outcomes.values()):,}" for c in columns)])
        widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]
        lines = []
        for kind, *counts in [head, *rows]:
            figures = [count.rjust(width) for count, width in zip(counts, widths[1:], strict=True)]
            lines.append("  ".join([kind.ljust(widths[0]), *figures]))
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        findings = [{**asdict(f), "again": f.again} for f in self.findings]
        outcomes = {kind: dict(row) for kind, row in sorted(self.outcomes.items())}
        return {"target": self.target, "seed": self.seed, "calls": self.calls, "outcomes": outcomes} | {
            "findings": findings
        }


def run(
    target: str,
    calls: int,
    seed: int,
    *,
    first: int = 0,
    jobs: int = 1,
    limit_s: float = 60.0,
    most: int = 20,
    progress: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Makes calls first..first+calls-1 of a target.

    Args:
        target: a name in `TARGETS`, or "package.module:function".
        seed: of the run; a call follows from it and its number alone.
        jobs: processes side by side.
        limit_s: a call that takes longer hangs.
        most: findings after which the run stops.
        progress: called after each call.
    """
    report, lock = Report(target, seed), threading.Lock()

    def note(entry: dict[str, Any]) -> bool:
        with lock:
            report.add(entry["kind"], entry["outcome"])
            if entry["outcome"] in BAD:
                report.findings.append(
                    Finding(target, seed, *(entry[k] for k in ("number", "kind", "outcome", "call", "detail")))
                )
            progress(report)
            return len(report.findings) < most

    bounds = [first + calls * job // jobs for job in range(jobs + 1)]
    threads = [
        threading.Thread(target=_span, args=(target, seed, begin, end, limit_s, note))
        for begin, end in zip(bounds, bounds[1:], strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.findings.sort(key=lambda finding: finding.number)
    return report


def _span(target: str, seed: int, first: int, end: int, limit_s: float, note: Callable[[dict[str, Any]], bool]) -> None:
    """Calls first..end-1, with a new process after each one that died."""
    while first < end:
        with tempfile.TemporaryFile() as announced, tempfile.TemporaryFile() as errors:
            reading, writing = os.pipe()
            numbers = map(str, (seed, first, end, writing, announced.fileno()))
            process = subprocess.Popen(
                [sys.executable, "-m", "smore_ext.testing.fuzz.worker", target, *numbers],
                pass_fds=(writing, announced.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
            os.close(writing)
            end_of = "hangs"
            try:
                first, end_of = _results(reading, first, limit_s, note)
            finally:
                os.close(reading)
                if end_of != "died":
                    process.kill()
                code = process.wait()
            if first >= end or end_of == "enough":
                return
            announced.seek(0), errors.seek(0)
            kind, call = json.loads(announced.read() or b'["?", "before the first call"]')
            text = errors.read().decode(errors="replace")[-3000:]
            how = f"no answer for {limit_s:g} s" if end_of == "hangs" else _ending(code)
            entry = {"number": first, "kind": kind, "outcome": end_of, "call": call, "detail": f"{how}\n{text}"}
            if not note(entry) or kind == "?":
                return
            first += 1


def _results(reading: int, first: int, limit_s: float, note: Callable[[dict[str, Any]], bool]) -> tuple[int, str]:
    """Reads results until they end: (number of the first call without one, "died", "hangs" or "enough")."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while True:
            if not selector.select(limit_s):
                return first, "hangs"
            block = os.read(reading, 1 << 16)
            if not block:
                return first, "died"
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                entry = json.loads(line)
                first = entry["number"] + 1
                if not note(entry):
                    return first, "enough"


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process ended with code {code}"
    return f"the process was killed by {signal.Signals(-code).name}"
