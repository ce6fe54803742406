"""Seeds side by side: the numbers of one after the other, what is gone on with, what goes wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tiny

from smore_ext import runs
from smore_ext.experiments import side_by_side
from smore_ext.experiments.jobs import available_memory
from smore_ext.runs.lock import locked
from smore_ext.train import main

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
    assert not [path for path in (tmp_path / "both").rglob("*") if path.name.startswith(".")]


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


def test_cores_are_shared_and_memory_is_asked_for(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def none(work: list, at_once: int, need: object, free: object) -> list:
        seen.extend((job.arguments[0]["train"]["threads"], at_once, free()) for job in work)  # type: ignore[operator]
        return []

    monkeypatch.setattr(side_by_side, "run_jobs", none)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    config = runs.resolve({"model": "LightGCN", "dataset": "tiny", "data_path": str(data), "seeds": "1,2", "epochs": 1})
    side_by_side.train_seeds(config, runs.open_dataset(config), tmp_path / "run", jobs=3)
    assert [entry[:2] for entry in seen] == [(2, 3), (2, 3)]
    assert all(entry[2] is None or entry[2] > 0 for entry in seen)
    assert available_memory("cuda") is None or available_memory("cuda") > 0
