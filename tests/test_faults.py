"""Runs that are killed, or lose their disk, at each call that changes a file: going on gives the bits of a run that was
left alone, and nothing is left over. `--deep` strikes more commands, with more epochs, seeds and errors."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ALWAYS = ["run:kill", "run:ENOSPC:4 writer:kill:9 resume:kill:7 run:EROFS:9"]  # several in one process
DEEP = [
    *("epochs:kill", "writer:kill", "writer:ENOSPC"),
    *("resume:kill", "overwrite:kill", "seeds:kill", "run:ENOSPC", "run:EROFS", "run:EIO"),
    *("resume:ENOSPC", "overwrite:ENOSPC", "seeds:ENOSPC"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "file_calls.so"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*compiler, *flags, "-o", path, TESTS / "faults" / "file_calls.c", "-ldl"], check=True)
    return path


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "scenario" in metafunc.fixturenames:
        metafunc.parametrize("scenario", ALWAYS + DEEP * metafunc.config.getoption("--deep"))


def test_a_run_survives_what_happens_at_any_of_its_calls(library: Path, tmp_path: Path, scenario: str) -> None:
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    places = {"LD_PRELOAD": str(library), "PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "faults.strike", str(tmp_path), *scenario.split()]
    environment = {**os.environ, **places, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["wrong"], "\n".join(found["wrong"])
    assert min(found["calls"].values()) > 40, "the library does not see the calls"
