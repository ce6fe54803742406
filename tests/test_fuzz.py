"""The fuzzer: a planted fault is found, with the exact call, and what comes after it still runs."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from smore_ext import ops
from smore_ext.backends import guard_pages
from smore_ext.testing import fuzz
from smore_ext.testing.fuzz.draws import DRAWS
from smore_ext.testing.fuzz.ops import draw
from smore_ext.testing.fuzz.target import generator_of
from smore_ext.testing.fuzz.worker import attempt

CALLS, SEED = 8, 1
PLANTED = [n for n in range(CALLS) if generator_of(SEED, n).random() < 1 / 6]


def found(name: str, **options: float) -> fuzz.Report:
    return fuzz.run(f"tests.fuzz_targets:{name}", CALLS, SEED, **options)


@pytest.mark.parametrize(
    ("name", "outcome", "detail"),
    [
        ("differs", "fault", "2 is not 3"),
        ("crashes", "died", "SIGSEGV"),
        ("reads_behind", "died", "SIGSEGV"),
        ("asks_for_much", "fault", "refused: .*can't allocate memory"),  # and the machine's memory is not used up
        ("asks_for_much_guarded", "fault", "refused: no guarded memory for 8589934592 bytes"),
    ],
)
def test_a_planted_fault_is_found_with_its_call(name: str, outcome: str, detail: str) -> None:
    report = found(name)
    assert PLANTED and [f.number for f in report.findings] == PLANTED
    assert report.calls == CALLS and report.outcomes["planted"]["same"] == CALLS - len(PLANTED)
    for finding in report.findings:
        assert finding.outcome == outcome and re.search(detail, finding.detail) and finding.kind == "planted"
        assert finding.call == f"call({generator_of(SEED, finding.number).random():.3f})"


def test_ops_hold_random_calls() -> None:
    assert sorted(DRAWS) == sorted(ops.__all__)
    report = fuzz.run("ops", 150, 3)
    assert not report.findings, report.findings
    assert report.calls == 150 and len(report.outcomes) > 10


def test_a_wrong_op_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: a bit of a result that is another one."""
    real = ops.spmm
    monkeypatch.setattr(ops, "spmm", lambda *args: real(*args) * 1.001)
    outcomes = Counter(attempt(draw, 9, number)["outcome"] for number in range(200))
    assert outcomes["fault"] >= 1 and outcomes["error"] == 0


def test_guard_pages_are_off_or_on_a_side() -> None:
    with pytest.raises(ValueError, match="guard pages must be off, behind or before, got beside"):
        guard_pages("beside")
    for side in ("behind", "before"):
        guard_pages(side)
        try:
            x = torch.arange(1001.0)
            assert (x.data_ptr() + 4 * 1001 * (side == "behind")) % mmap.PAGESIZE == 0
            assert ops.spectral_filter(x[None], torch.ones(501, 2)).shape == (1, 1001)
        finally:
            guard_pages("off")


def test_a_call_that_hangs_is_ended() -> None:
    report = found("hangs", limit_s=8, most=1)
    assert [(f.number, f.outcome) for f in report.findings] == [(PLANTED[0], "hangs")]


def test_a_target_that_fails_is_found() -> None:
    report = found("error", most=2)
    assert [f.outcome for f in report.findings] == ["error", "error"]
    assert "a target that fails" in report.findings[0].detail


def test_an_unknown_target_is_named() -> None:
    report = found("nothing", most=1)
    assert "nothing" in report.findings[0].detail
    with pytest.raises(ValueError, match="target must be one of ops"):
        fuzz.target.load_target("opps")


def test_the_command_prints_and_writes_what_was_found(tmp_path: Path) -> None:
    target, file = "tests.fuzz_targets:differs", tmp_path / "found.json"
    command = [sys.executable, "-m", "smore_ext.testing.fuzz", target, "--seed", str(SEED)]
    ran = subprocess.run([*command, "--calls", str(CALLS), "--json", file], capture_output=True, text=True)
    assert ran.returncode == 1 and f"again: python -m smore_ext.testing.fuzz {target}" in ran.stdout
    written = json.loads(file.read_text())
    assert [f["number"] for f in written["findings"]] == PLANTED
    again = subprocess.run([*command, "--only", str(PLANTED[0])], capture_output=True, text=True)
    assert again.returncode == 1 and "2 is not 3" in again.stdout


@pytest.mark.parametrize("flag", ["--calls", "--jobs", "--most"])
@pytest.mark.parametrize("number", ["0", "-5"])
def test_none_is_no_number_of_calls(
    flag: str, number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from smore_ext.testing.fuzz.__main__ import main

    monkeypatch.setattr(sys, "argv", ["fuzz", flag, number])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"argument {flag}: expected at least 1, got {number}" in capsys.readouterr().err
