"""Two processes never write into one run's folder, and a run that lost its files says so."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from smore_ext import runs, train
from smore_ext.models import MODELS
from smore_ext.runs import folder, lock
from smore_ext.training.checkpoint import CheckpointError
from smore_ext.training.events import EpochDone, Event, RunStarted, StepsDone

pytestmark = pytest.mark.usefixtures("command_surroundings")
FILES = {"config.yaml", "last.safetensors", "best.safetensors", "metrics.jsonl", "result.json"}


@pytest.fixture(autouse=True)
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)
    yield


def run(path: Path, listener: Any = None, resume: bool = False, overwrite: bool = False, **settings: Any) -> Any:
    config = tiny.tiny_config(**{"epochs": 2, **settings})
    return runs.train(config, tiny.tiny_dataset(), path, [listener] if listener else [], resume, overwrite)


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# The lock


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[multiprocessing.Process]:
    """Another process that holds the folder `run` until it is killed."""
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()

    def hold() -> None:
        with lock.locked(tmp_path / "run"):
            ready.set()
            signal.pause()

    process = fork.Process(target=hold)
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_the_second_run_is_refused(tmp_path: Path, holder: multiprocessing.Process, how: dict[str, bool]) -> None:
    with pytest.raises(runs.RunInUse, match=f"run is in use by process {holder.pid} on .*, since 20"):
        run(tmp_path / "run", **how)
    assert names(tmp_path / "run") == {lock.LOCK}


def test_a_killed_holder_blocks_nobody(tmp_path: Path, holder: multiprocessing.Process) -> None:
    holder.kill()
    holder.join()
    assert names(tmp_path / "run") == {lock.LOCK}
    run(tmp_path / "run")
    assert names(tmp_path / "run") == FILES


def test_a_second_resume_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, path = tiny.write_dataset(tmp_path / "data"), tmp_path / "run"
    small = ["--epochs", "1", "--embedding-dim", "4", "-q"]
    assert train.main(["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "-o", str(path), *small]) == 0
    before = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    with lock.locked(path):
        capsys.readouterr()
        assert train.main(["--resume", str(path), "--epochs", "2"]) == 2
        err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and f"{path} is in use by process {os.getpid()} on " in err
    assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before


def test_seeds_are_locked_too(tmp_path: Path) -> None:
    path = tmp_path / "run"

    def resume_the_seed(event: Event) -> None:
        if isinstance(event, RunStarted):
            with pytest.raises(runs.RunInUse, match="seed-1 is in use"):
                run(path / "seed-1", resume=True, seed=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, resume_the_seed, seeds=(1, 2))
    with lock.locked(path / "seed-1"), pytest.raises(runs.RunInUse, match="seed-1 is in use"):
        run(path, overwrite=True, seeds=(1, 2))
    run(path, overwrite=True)
    assert names(path) == FILES


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no model")

    monkeypatch.setattr(tiny.Tiny, "__init__", fail)
    (tmp_path / "mine").mkdir()
    for name in ("made", "mine"):
        with pytest.raises(ValueError, match="no model"):
            run(tmp_path / name)
    assert names(tmp_path) == {"mine"} and not names(tmp_path / "mine")


def test_the_lock_file_may_go_between_opening_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    flock = fcntl.flock

    def late(handle: int, how: int) -> None:
        if not opened:  # its holder is done, and another has made the next one
            (tmp_path / lock.LOCK).unlink()
        opened.append(handle)
        flock(handle, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with lock.locked(tmp_path):
        assert len(opened) == 2
        assert os.path.samestat(os.fstat(opened[-1]), (tmp_path / lock.LOCK).stat())
    assert not names(tmp_path)


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "run")
    assert "cannot be locked (No locks available)" in caplog.text
    assert names(tmp_path / "run") == FILES


def test_runs_of_one_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder.time, "strftime", lambda _: "now")
    data, chosen = tiny.write_dataset(tmp_path / "data"), runs.new_run_dir
    first = ["-m", "Popularity", "-d", "tiny", "--data-path", str(data), "-q"]

    def overtaken(*args: Any) -> Path:
        """The folder is chosen, and then another run is quicker."""
        path = chosen(*args)
        monkeypatch.setattr(runs, "new_run_dir", chosen)
        assert train.main(first) == 0
        return path

    monkeypatch.setattr(runs, "new_run_dir", overtaken)
    assert train.main(first) == 0
    assert names(tmp_path / "runs") == {"Popularity-tiny-now", "Popularity-tiny-now-2"}


def test_a_run_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    result = run(tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(tmp_path / "run", seed=7)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result


# What is gone, and what is left


@pytest.mark.parametrize("left", [{"best.safetensors"}, {"metrics.jsonl"}, {"best.safetensors", "metrics.jsonl"}])
def test_a_lost_last_checkpoint_is_said(tmp_path: Path, left: set[str]) -> None:
    run(tmp_path)
    for name in FILES - left - {"config.yaml"}:
        (tmp_path / name).unlink()
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    told = ", ".join(sorted(left))
    with pytest.raises(CheckpointError, match=rf"last.safetensors is gone, .* still there: {told}\. .*--overwrite"):
        run(tmp_path, resume=True, epochs=3)
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before
    run(tmp_path, overwrite=True)


def test_a_lost_checkpoint_of_a_seed_is_said(tmp_path: Path) -> None:
    run(tmp_path, seeds=(1, 2))
    (tmp_path / "result.json").unlink()
    for name in ("last.safetensors", "result.json"):
        (tmp_path / "seed-2" / name).unlink()
    with pytest.raises(CheckpointError, match=r"is gone, .* or delete .*seed-2 to have this seed trained again"):
        run(tmp_path, resume=True, seeds=(1, 2))
    shutil.rmtree(tmp_path / "seed-2")
    assert run(tmp_path, resume=True, seeds=(1, 2))["seeds"] == [1, 2]


def test_a_lost_best_checkpoint_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint at .*best.safetensors"):
        run(tmp_path, lambda event: pytest.fail(f"{event}") if isinstance(event, StepsDone) else None, True, epochs=3)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, RunStarted):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop)
    assert names(tmp_path) == {"config.yaml", "metrics.jsonl"}
    assert run(tmp_path, resume=True)["epochs_run"] == 2


@pytest.mark.parametrize("how", [{"resume": True}, {"overwrite": True}])
def test_temporary_files_of_a_killed_process_are_cleared(tmp_path: Path, how: dict[str, bool]) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop)
    for name in FILES | {folder.IDS}:
        (tmp_path / f".{name}.tmp").mkdir()
        (tmp_path / f".{name}.tmp" / ".tmpAbCdEf").write_bytes(b"half")
    run(tmp_path, **how)
    assert names(tmp_path) == FILES
    (tmp_path / ".best.safetensors.tmp").write_bytes(b"half")
    run(tmp_path, resume=True)  # nothing is left to do
    assert names(tmp_path) == FILES


def test_overwriting_deletes_the_settings_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed on the way, it must not leave settings with which --resume would repeat what was to be deleted."""
    run(tmp_path)
    unlink, deleted = Path.unlink, []
    monkeypatch.setattr(Path, "unlink", lambda self, **kw: (deleted.append(self.name), unlink(self, **kw)))
    runs.RunFolder(tmp_path).delete()
    assert deleted[0] == "config.yaml"
