"""Seeds side by side: the numbers of one after the other, what is gone on with, what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from smore_ext import runs
from smore_ext.experiments import jobs, side_by_side
from smore_ext.experiments.jobs import available_memory, taken_of
from smore_ext.runs.lock import locked
from smore_ext.train import main
from smore_ext.training.checkpoint import load_metadata

pytestmark = pytest.mark.usefixtures("command_surroundings")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), features=True)


def train(data: Path, out: Path, *more: str) -> int:
    flags = ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "--epochs", "2", "--batch-size", "16"]
    return main([*flags, "--threads", "1", "--seeds", "1,2", "-o", str(out), *more])


def test_the_numbers_are_those_of_one_after_the_other(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path / "one", "-q") == train(data, tmp_path / "both", "--jobs", "2") == 0
    said = capsys.readouterr().out
    assert all(f"seed {seed}: best epoch" in said for seed in (1, 2)) and f"results in {tmp_path / 'both'}" in said
    one, both = (runs.read_result(tmp_path / name / "result.json") for name in ("one", "both"))
    for key in ("seeds", "validation", "test", "model", "protocol"):
        assert one[key] == both[key]
    for seed in (1, 2):  # what other commands read
        weights = [runs.load_run(tmp_path / name / f"seed-{seed}").model.state_dict() for name in ("one", "both")]
        assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
    files = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("one", "both")]
    assert files[0] == files[1]
    configs = [(tmp_path / name / "config.yaml").read_text().replace(name, "") for name in ("one", "both")]
    assert configs[0] == configs[1]


def test_finished_seeds_are_kept_and_the_others_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--jobs", "2") == 0
    whole = runs.read_result(out / "result.json")
    (out / "result.json").unlink()
    shutil.rmtree(out / "seed-2")
    began = (out / "seed-1" / "best.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["--resume", str(out), "--jobs", "2"]) == 0
    said = capsys.readouterr().out
    assert "seed 2: best epoch" in said and "seed 1: best" not in said
    assert (out / "seed-1" / "best.safetensors").stat().st_mtime_ns == began
    assert runs.read_result(out / "result.json")["test"] == whole["test"]


def test_a_seed_that_fails_is_named_and_the_others_are_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "seed-2").touch()  # a file where a folder is needed
    assert train(data, tmp_path / "run", "--jobs", "2") == 1
    said = capsys.readouterr().out
    assert "not finished, seed 2: " in said and f"--resume {tmp_path / 'run'} --jobs 2" in said
    assert [(tmp_path / "run" / f"seed-{seed}" / "result.json").is_file() for seed in (1, 2)] == [True, False]
    (tmp_path / "run" / "seed-2").unlink()
    assert main(["--resume", str(tmp_path / "run"), "--jobs", "2"]) == 0


def test_a_folder_in_use_or_with_a_run_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "run"):
        assert train(data, tmp_path / "run", "--jobs", "2") == 2
    assert train(data, tmp_path / "run", "--jobs", "2") == 0
    before = sorted(os.stat(path).st_mtime_ns for path in (tmp_path / "run").rglob("*"))
    assert train(data, tmp_path / "run", "--jobs", "2") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert sorted(os.stat(path).st_mtime_ns for path in (tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize(
    ("flags", "message"), [(["--overwrite"], "--jobs: expected no --overwrite"), (["--seeds", ""], "--seeds")]
)
def test_what_does_not_go_together(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert train(data, tmp_path / "run", "--jobs", "2", *flags) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main(["-m", "LightGCN", "--jobs", "2", "-o", str(tmp_path / "run")]) == 2
    assert "--jobs: expected --seeds" in capsys.readouterr().err


def test_what_no_seed_can_do_is_one_error(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, tmp_path / "run", "--jobs", "2", "--device", "cuda:99") == 2
    assert "device: 'cuda:99' cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_data_are_refused_before_anything_runs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "data"
    shutil.copytree(data, mine)
    assert train(mine, tmp_path / "run", "--jobs", "2") == 0
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "seed-2")
    (table,) = mine.rglob("*.inter")
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    assert main(["--resume", str(tmp_path / "run"), "--jobs", "2"]) == 2
    assert "fingerprint" in capsys.readouterr().err or not (tmp_path / "run" / "seed-2").exists()
    assert not (tmp_path / "run" / "seed-2").exists()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_seeds_keep_every_epoch(data: Path, tmp_path: Path, stop: signal.Signals) -> None:
    flags = ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "--epochs", "100000", "--patience", "100000"]
    flags += ["--threads", "1", "--checkpoint-seconds", "1000", "--seeds", "1,2", "--jobs", "2"]
    flags += ["-o", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "smore_ext.train", *flags],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored, if the tests run in the background
    )
    logs = [tmp_path / "run" / f"seed-{seed}" / "metrics.jsonl" for seed in (1, 2)]
    begun = time.monotonic()
    while not all(log.is_file() and len(log.read_text().splitlines()) > 3 for log in logs):
        assert time.monotonic() - begun < 120 and process.poll() is None
        time.sleep(0.05)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # Ctrl-C reaches all processes of a terminal
    else:
        process.send_signal(stop)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and f"--resume {tmp_path / 'run'} --jobs 2" in said
    for log in logs:
        done = load_metadata(log.parent / "last.safetensors")["progress"]["next_epoch"]
        assert len(log.read_text().splitlines()) - done in (0, 1)  # stopped between the log and the state
        assert not (log.parent / ".lock").exists()


def test_a_console_that_is_gone_stops_no_seed(data: Path, tmp_path: Path) -> None:
    flags = ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "--epochs", "2", "--seeds", "1,2", "--jobs", "2"]
    command = [sys.executable, "-m", "smore_ext.train", *flags, "-o", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(120) == 0
    assert runs.read_result(tmp_path / "run" / "result.json")["seeds"] == [1, 2]


def test_cores_are_shared_and_memory_is_asked_for(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def none(work: list, at_once: int, need: object, free: object, alone: bool) -> list:
        assert not alone
        seen.extend((job.arguments[4], at_once, free()) for job in work)  # type: ignore[operator]
        return []

    monkeypatch.setattr(side_by_side, "run_jobs", none)
    monkeypatch.setattr(jobs, "usable_cores", lambda: 8)
    config = runs.resolve({"model": "LightGCN", "dataset": "tiny", "data_path": str(data), "seeds": "1,2", "epochs": 1})
    monkeypatch.setattr(side_by_side.runs, "train", lambda *_, **__: {})
    side_by_side.train_seeds(config, runs.open_dataset(config), tmp_path / "run", jobs=3)
    assert [entry[:2] for entry in seen] == [(2, 3), (2, 3)]
    assert seen[0][2] == pytest.approx(available_memory("cpu"), rel=0.2)
    assert available_memory("cuda:99") is None
    assert taken_of("cpu", 5) == 5 and taken_of("cuda:0", 5) > 1 << 29
