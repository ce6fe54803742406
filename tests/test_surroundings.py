"""Commands where little is given: an ASCII terminal, no home directory, names that mean something to a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from smore_ext import doctor, train
from smore_ext.models.modalities import default_cache_dir
from smore_ext.models.smore import SMOREConfig
from smore_ext.settings.config import RunConfig
from smore_ext.settings.fields import ConfigError

ODD = "[red] :smile: Größe ☃"  # markup, an emoji's name, letters beyond ASCII and beyond Latin
CLOSING = f"[/x] {ODD}"  # of a path: markup that ends what nothing has begun

# As in a container whose user is a number alone: no HOME, and nobody in the list of users.
NOBODY = """
import os, pwd
def nobody(*_): raise KeyError("getpwuid(): uid not found: 4321")
pwd.getpwuid = nobody
for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "USERNAME", "LNAME"):
    os.environ.pop(name, None)
"""
COMMANDS = """
import json, sys
from smore_ext.__main__ import main
print([main(arguments) for arguments in json.loads(sys.argv[1])])
"""


def call(*commands: list[str], before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The commands, one after the other in a process of their own, which prints their exit codes last."""
    program = [sys.executable, "-c", before + COMMANDS, json.dumps(commands)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment}
    how = {"capture_output": True, "text": True, "errors": "replace", "timeout": 120}
    return subprocess.run(program, env=surroundings, **how)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), name=ODD, features=True)


def small(data: Path, run: str, *more: str) -> list[str]:
    flags = ["train", "-m", "SMORE", "-d", ODD, "--data-path", str(data), "-o", run, "--epochs", "1"]
    return [*flags, "--embedding-dim", "4", "--knn-k", "3", "--batch-size", "64", *more]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_letters(data: Path, tmp_path: Path, encoding: str) -> None:
    run = str(tmp_path / CLOSING)
    later = (["train", "--resume", run], ["evaluate", run], ["recommend", f"{run}/seed-1", "--user", "1"])
    export = ["export", f"{run}/seed-1", "-o", f"{run}/vectors"]
    commands = (small(data, run, "--seeds", "1,2"), *later, export, ["doctor"], ["train", "--help"])
    done = call(*commands, PYTHONIOENCODING=encoding, XDG_CACHE_HOME=str(tmp_path))
    assert done.stderr == "" and done.stdout.endswith(f"{[0] * len(commands)}\n"), done
    assert f"{tmp_path}/[/x] [red] :smile: Gr" in done.stdout
    if encoding == "ascii":
        assert done.stdout.isascii() and "+-" in done.stdout


def test_a_user_without_a_home(data: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    commands = (small(data, run), ["evaluate", run], ["train", "--resume", run, "--epochs", "2"], ["train", "--help"])
    done = call(*commands, before=NOBODY)
    assert done.stderr == "" and done.stdout.endswith(f"{[0] * len(commands)}\n"), done
    assert json.loads((tmp_path / "run" / "result.json").read_text())["config"]["model"]["cache_dir"] is None
    stray = os.fsdecode(bytes(tmp_path) + b"/r\xff")  # no text in any encoding
    failed = call(small(data, "x", "--data-path", "~/data"), small(data, stray), before=NOBODY)
    assert "Traceback" not in failed.stderr and failed.stdout.startswith("[2, "), failed


def test_a_home_that_is_not_known_is_an_error_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(Path, "expanduser", unknown)
    assert default_cache_dir() is None
    with pytest.raises(ValueError, match="cache_dir must be a path, got ~no-such-user/x"):
        SMOREConfig(cache_dir="~no-such-user/x")
    with pytest.raises(ConfigError, match="data_path: expected a path, got '~/x', and no home directory is known"):
        RunConfig.from_dict({"train": {"data_path": "~/x"}})


def test_the_doctor_shows_problems_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = doctor.Result("knn", "cpu", None, "ValueError: expected [/x]")
    found = {"openmp": ["/opt/[/x]/libgomp.so"], "warnings": [], "self_test": [failed._asdict()], "passed": False}
    monkeypatch.setattr(doctor, "examine", lambda: found)
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED ValueError: expected [/x]" in out and "/opt/[/x]/libgomp.so" in out


def test_errors_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["-d", "tiny", "--data-path", "[/x] ☃"]) == 2
    assert capsys.readouterr().err == "error: --data-path [/x] ☃ does not exist\n"
