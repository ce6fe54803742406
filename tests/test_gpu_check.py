"""benchmarks/gpu_check.py: reads what its tools print, ends what runs too long, and writes what it has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import before_after, gpu_check, gpu_reports, summary
from benchmarks.gpu_stages import Stage, all_stages

ROOT = Path(__file__).resolve().parents[1]
CLEAN = """\
========= COMPUTE-SANITIZER
....                                                                     [100%]
4 passed, 558 deselected in 31.20s
========= ERROR SUMMARY: 0 errors
"""
MEMCHECK = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at void smore::cuda::rows<float>(const float *, float *, long)+0x160
=========     by thread (3,0,0) in block (2,0,0)
=========
========= Program hit cudaErrorLaunchFailure (error 719) due to "unspecified launch failure"
=========     Saved host backtrace up to driver entry point at error
=========
F.
=================================== FAILURES ===================================
FAILED tests/test_ops.py::test_forward_matches_reference[spmm-90x70x64] - AcceleratorError: CUDA error
==================== 1 failed, 1 passed, 560 deselected in 12.05s ====================
========= Target application returned an error
========= ERROR SUMMARY: 2 errors
"""
RACECHECK = """\
========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at smore::cuda::sum(float *)+0x70
=========     and Read access at smore::cuda::sum(float *)+0x90 [36 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)
"""
KNN = "63001 x 4096, k = 40: 41.5 MB beyond inputs (984 MB) and outputs (29 MB), 0.412 s on NVIDIA H100 80GB HBM3\n"


@pytest.mark.parametrize(
    "line, counts",
    [
        (
            "====== 2 failed, 30 passed, 1 warning in 93.41s (0:01:33) ======",
            {"failed": 2, "passed": 30, "warnings": 1},
        ),
        ("1145 passed, 1 skipped in 213.38s (0:03:33)", {"passed": 1145, "skipped": 1}),
        ("=== 3 passed, 2 errors in 0.41s ===", {"passed": 3, "errors": 2}),
        ("!!!!! KeyboardInterrupt !!!!!\n7 passed in 3.00s", {"passed": 7}),
        ("no tests ran in 0.01s", {}),
        ("Segmentation fault (core dumped)", {}),
    ],
)
def test_pytest_summary_line(line: str, counts: dict[str, int]) -> None:
    assert gpu_reports.pytest_counts(f"....\n{line}\n") == counts


def test_failed_tests_are_named(tmp_path: Path) -> None:
    reading = gpu_reports.pytest_run(MEMCHECK, tmp_path)
    name = "tests/test_ops.py::test_forward_matches_reference[spmm-90x70x64] - AcceleratorError: CUDA error"
    assert reading["failed"] == [name]


def test_sanitizer_summary(tmp_path: Path) -> None:
    assert "problem" not in gpu_reports.sanitizer_run(CLEAN, tmp_path)
    assert [gpu_reports.sanitizer_errors(text) for text in (CLEAN, MEMCHECK, RACECHECK, "killed")] == [0, 2, 1, None]
    reading = gpu_reports.sanitizer_run(MEMCHECK, tmp_path)
    assert reading["counts"] == {"failed": 1, "passed": 1, "deselected": 560}
    assert reading["problem"] == "2 errors"
    assert reading["reports"][0].lstrip().startswith("Invalid __global__ write") and len(reading["reports"]) == 3
    assert gpu_reports.sanitizer_run("killed", tmp_path)["problem"] == "no summary of compute-sanitizer"


def test_what_the_new_stages_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"baby": {"kernels": 250.0, "step_ms": 1.8, "amp_ms": 1.9, "longest": []}}')
    reading = gpu_reports.step_profile("", tmp_path)
    assert reading["headline"] == "baby 250 kernels, 1.8 ms (1.9 --amp)" and reading["sizes"]["baby"]["kernels"] == 250
    (tmp_path / "seeds.json").write_text('{"jobs": 16, "throughput": 4.25}')
    assert gpu_reports.seeds_side_by_side("", tmp_path)["headline"].startswith("16 runs side by side: 4.25 times")


def test_two_versions_are_corrected_by_what_did_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(ours: float, **peers: float) -> dict:
        both = {"native": ours} | {name.replace("_", " "): ms for name, ms in peers.items()}
        native, *others = ({"median_ms": ms} for ms in both.values())
        return {("row", "one"): {"native": native, "peers": dict(zip(list(both)[1:], others, strict=True))}}

    files = {"old": timed(10.0, torch=20.0, own_spmm=1.0, published=1.0), "new": timed(12.0, torch=30.0, own_spmm=9.0)}
    monkeypatch.setattr(before_after, "cases_of", lambda path: files[path.name])
    (change,) = before_after.changes(Path("old"), Path("new"))
    assert change.raw == pytest.approx(10 / 12) and change.peers == pytest.approx(2 / 3)
    assert change.corrected == pytest.approx(1.25)  # the machine was half as slow again
    assert "0 of 1 cases" in before_after.report([change])
    assert "- row, one: 10 -> 12 ms, 0.83" in before_after.report([change._replace(peers=None)])


def test_memory_beyond_the_limit_is_a_problem(tmp_path: Path) -> None:
    reading = gpu_reports.knn_memory(KNN, tmp_path)
    assert reading["extra_mb"] == 41.5 and reading["seconds_of_knn"] == 0.412 and "problem" not in reading
    assert "problem" in gpu_reports.knn_memory(KNN.replace("41.5", "64.1"), tmp_path)
    assert "problem" in gpu_reports.knn_memory("out of memory", tmp_path)


def case(row: str, ratios: dict[str, float], times_floor: float = 2.0) -> dict:
    peers = {name: {"median_s": 2e-3 * ratio, "iqr_s": 0.0, "rounds": 5} for name, ratio in ratios.items()}
    floor = {"bytes": 1.0, "gathered": 0.0, "flops": 0.0, "ms": 2.0 / times_floor, "bound": "bytes"}
    info = {"row": row, "case": "one", "floor": floor, "peers": peers, "skipped": [], "calls": 10}
    return summary.case_result(info, {"median": 2e-2, "iqr": 0.0, "rounds": 5})


def test_targets_are_those_of_what_was_measured() -> None:
    """Ours takes 2 ms: ten calls in 20 ms."""
    row = "CUDA spectrum_fusion large, forward"
    on_gpu, on_cpu = case(row, {"torch.fft": 7.0}), case("knn", {"faiss": 1.7})
    lines = [line for line in summary.against_targets([on_gpu]) if line["row"] == row]
    assert [line["met"] for line in lines] == [True, False]  # seven times torch.fft, half of the copy rate
    assert [line["minimum"] for line in lines] == pytest.approx([7.0, 0.5])
    assert [line["row"] for line in summary.against_targets([on_cpu])] == [target.row for target in summary.TARGETS]
    assert summary.targets_for([on_gpu]) == list(summary.CUDA_TARGETS)
    assert summary.targets_for([]) == list(summary.TARGETS)


def stage(name: str, script: str, limit: float = 60, **options) -> Stage:
    return Stage(name, [sys.executable, "-c", script], limit, gpu_reports.lines, **options)


def test_a_failed_stage_stops_no_other(tmp_path: Path) -> None:
    stages = [
        stage("broken", "print('gpu: none'); raise SystemExit(3)"),
        stage("late", "import time; print('begun', flush=True); time.sleep(60)", limit=1.5),
        stage("absent", "", skip="not here"),
        stage("fine", "import os; print('gpu:', os.environ['NAME'])", environment={"NAME": "some"}),
    ]
    out = tmp_path / "out.json"
    gpu_check.check(stages, tmp_path, out, minutes=5, smoke=True)
    found = json.loads(out.read_text())["stages"]
    assert {name: result["status"] for name, result in found.items()} == {
        "broken": "failed",
        "late": "timed out",
        "absent": "skipped",
        "fine": "passed",
    }
    assert found["broken"]["rc"] == 3 and "begun" in found["late"]["tail"] and found["fine"]["gpu"] == "some"
    assert "not here" in gpu_check.table(found)


def test_without_time_left_nothing_is_started(tmp_path: Path) -> None:
    report = gpu_check.check([stage("fine", "")], tmp_path, tmp_path / "out.json", minutes=0, smoke=True)
    assert report["stages"]["fine"] == {"status": "skipped", "why": "no time left: --only fine runs it"}


def test_stages_are_chosen_by_name_and_group(tmp_path: Path) -> None:
    stages = all_stages(tmp_path, "9.0", smoke=False)
    assert [s.name for s in gpu_check.chosen(stages, ["sanitizer", "build"], ["racecheck"])] == [
        "build",
        "memcheck",
        "initcheck",
        "synccheck",
    ]
    with pytest.raises(SystemExit, match="no such stage: bild"):
        gpu_check.chosen(stages, ["bild"], [])


def test_the_smoke_form_runs(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--only", "versions,build", "--out", str(out)]
    env = {**os.environ, "SMORE_BENCH_DEVICE": "cpu"}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stages = json.loads(out.read_text())["stages"]
    assert stages["versions"]["python"].startswith("Python 3") and stages["build"]["why"] == "smoke form"
    assert "versions" in done.stdout
