"""Two versions in one table: python -m benchmarks.before_after BEFORE.json AFTER.json [BEFORE.json AFTER.json ...]

Each pair are runs of the same cases on one machine, one soon after the other, as pytest-benchmark wrote them. For every
case that both have: ours before / ours after (above 1: faster now), and the same of the peers that both have and
whose code is not ours: what they differ by is the machine's doing. "corrected" is the first divided by the peers'
geometric mean; a case is named as slower if that is below 1 - SLACK.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import summary

SLACK = 0.1
# Peers that are of this package, or run models of it on other backends, change with it: they correct nothing.
OWN = ("own ", "published", "csr-fused", "plain")


class Change(NamedTuple):
    row: str
    case: str
    before_ms: float
    after_ms: float
    peers: float | None  # before / after, geometric mean

    @property
    def raw(self) -> float:
        return self.before_ms / self.after_ms

    @property
    def corrected(self) -> float:
        return self.raw / (self.peers or 1.0)


def cases_of(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    results = summary.summarise(json.loads(path.read_text(encoding="utf-8")))
    return {(case["row"], case["case"]): case for case in results["cases"]}


def changes(before: Path, after: Path) -> list[Change]:
    old, new = cases_of(before), cases_of(after)
    found = []
    for key in (key for key in new if key in old):
        (was, its), (now, others) = ((case["native"]["median_ms"], case["peers"]) for case in (old[key], new[key]))
        same = [name for name in its if name in others and not name.startswith(OWN)]
        peers = [its[name]["median_ms"] / others[name]["median_ms"] for name in same]
        found.append(Change(*key, was, now, statistics.geometric_mean(peers) if peers else None))
    return found


def report(found: list[Change]) -> str:
    lines = ["| row | cases | before / after | corrected by the peers | least | most |", "|---|---|---|---|---|---|"]
    for row in dict.fromkeys(change.row for change in found):
        of = [change for change in found if change.row == row]
        raw, corrected = ([getattr(change, name) for change in of] for name in ("raw", "corrected"))
        means = " | ".join(f"{statistics.geometric_mean(values):.2f}" for values in (raw, corrected))
        lines.append(f"| {row} | {len(of)} | {means} | {min(corrected):.2f} | {max(corrected):.2f} |")
    slower = sorted((c for c in found if c.corrected < 1 - SLACK), key=lambda c: c.corrected)
    lines += ["", f"Slower by more than {SLACK:.0%} after correction: {len(slower)} of {len(found)} cases.", ""]
    lines += [f"- {c.row}, {c.case}: {c.before_ms:.3g} -> {c.after_ms:.3g} ms, {c.corrected:.2f}" for c in slower]
    return "\n".join(lines)


def main(paths: list[str]) -> None:
    if not paths or len(paths) % 2:
        sys.exit(f"expected pairs of files, before and after, got {len(paths)} files")
    files = [Path(path) for path in paths]
    print(report([change for pair in zip(files[::2], files[1::2], strict=True) for change in changes(*pair)]))


if __name__ == "__main__":
    main(sys.argv[1:])
