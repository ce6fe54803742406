"""python -m smore_ext.testing.fuzz [TARGET] --calls N --seed S: random calls; exit code 1 if something was found."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from smore_ext.testing.fuzz.runner import Report, run
from smore_ext.testing.fuzz.target import TARGETS


class _Line:
    """A line on a terminal that shows how far the run is; elsewhere one every ten seconds."""

    def __init__(self, calls: int) -> None:
        self.calls, self.begun, self.shown, self.told = calls, time.monotonic(), 0.0, 0

    def __call__(self, report: Report) -> None:
        for finding in report.findings[self.told :]:
            print(f"\n{finding.outcome} in {finding.kind}: {finding.again}", file=sys.stderr, flush=True)
        self.told = len(report.findings)
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if now - self.shown < (0.2 if terminal else 10) and report.calls < self.calls:
            return
        self.shown = now
        speed = report.calls / max(now - self.begun, 1e-9)
        found = f"{len(report.findings)} findings"
        text = f"{report.target}: {report.calls:,} of {self.calls:,} calls, {found}, {speed:,.0f} calls a second"
        print(("\r" + text + " " * 8) if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m smore_ext.testing.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", default="ops", help=f"{', '.join(TARGETS)}, or package.module:function")
    parser.add_argument("--calls", type=_count, default=20_000, help="number of calls")
    parser.add_argument("--seed", type=int, default=0, help="of the run")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this call of the run alone")
    parser.add_argument("--jobs", type=_count, default=2, help="processes side by side")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a call hangs")
    parser.add_argument("--most", type=_count, default=20, help="findings after which the run stops")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where outcomes and findings are written")
    options = parser.parse_args()
    first, calls = (0, options.calls) if options.only is None else (options.only, 1)
    begun = time.monotonic()
    report = run(
        options.target,
        calls,
        options.seed,
        first=first,
        jobs=min(options.jobs, calls),
        limit_s=options.limit,
        most=options.most,
        progress=_Line(calls),
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(report.table())
    for finding in report.findings:
        print(f"\n{finding.outcome}: {finding.call}\n{finding.detail.strip()}\nagain: {finding.again}")
    print(f"\n{report.calls:,} calls in {time.monotonic() - begun:.0f} s, {len(report.findings)} findings")
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
