"""Threads of a command's process: as many as it has cores, and none that spins for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smore_ext import doctor, threads

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        ("python -m smore_ext.train -d baby", True),
        ("python -P -m smore_ext", True),
        ("python -W ignore -X dev -m smore_ext.train", True),
        ("python -I /env/bin/smore train", True),
        ("python /env/bin/smore train", True),
        ("python -m smore_extra", False),
        ("python -m pytest -m smore_ext.train", False),
        ("python -c pass smore_ext.train", False),
        ("python train.py -m smore_ext.train", False),
        ("python train.py smore", False),
        ("python", False),
    ],
)
def test_commands_are_told_from_programs(words: str, is_one: bool) -> None:
    assert threads.is_command(words.split()) is is_one


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "what\n"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, files: dict[str, str], cores: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.quota(tmp_path) == cores
    usable = CORES if cores is None else max(1, min(CORES, int(cores)))
    assert threads.usable_cores(tmp_path) == usable
    environment: dict[str, str] = {}
    threads.prepare(environment, tmp_path)
    waiting = {"GOMP_SPINCOUNT": str(threads.SPINS)}
    assert environment == (waiting if cores is None else waiting | {"OMP_NUM_THREADS": str(usable)})


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_has_set_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    environment = {name: "7", "OMP_NUM_THREADS": "3"}
    threads.prepare(environment, tmp_path)
    assert environment == {name: "7", "OMP_NUM_THREADS": "3"}


def test_only_commands_prepare_their_process(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    code = "import os, smore_ext; print([n for n in os.environ if n.startswith('GOMP_')])"
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    command = [sys.executable, "-m", "smore_ext.doctor", "--json", str(tmp_path / "found.json")]
    subprocess.run(command, env=bare, capture_output=True, check=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert f"GOMP_SPINCOUNT={threads.SPINS}" in found["openmp_settings"]
    assert found["usable_cores"] == threads.usable_cores()


def test_other_processes_are_seen() -> None:
    code = "import time\nend = time.time() + 20\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        try:
            busiest = max(threads.busy_elsewhere(0.5) or 0 for _ in range(6))
        finally:
            other.kill()
    assert busiest > 0.2


def test_the_doctor_warns_of_a_quota_and_of_a_crowded_machine() -> None:
    alone = {"usable_cores": 8, "threads": 8, "cores_busy_elsewhere": 0.1, "cpus": 8}
    assert doctor.crowding(alone) == []
    assert doctor.crowding(alone | {"cores_busy_elsewhere": None}) == []
    (quota,) = doctor.crowding(alone | {"usable_cores": 2, "cpus": 8})
    assert "uses 8 threads" in quota and "OMP_NUM_THREADS=2" in quota
    (crowd,) = doctor.crowding(alone | {"cores_busy_elsewhere": 2.0})
    assert "2.0 of 8 cores busy" in crowd
    assert doctor.crowding({"usable_cores": 2, "threads": 2, "cores_busy_elsewhere": 5.0, "cpus": 8}) == []
