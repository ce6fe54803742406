"""Checkpoints and resuming: nothing is lost, and a resumed run gives the bits of one that was not stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from smore_ext import runs, train
from smore_ext.data import Dataset
from smore_ext.models import MODELS
from smore_ext.runs import folder
from smore_ext.settings.config import RunConfig
from smore_ext.settings.fields import ConfigError
from smore_ext.training import checkpoint
from smore_ext.training.checkpoint import CheckpointError
from smore_ext.training.events import EpochDone, Event, RunStarted, StepsDone

DROPOUT = tiny.TinyConfig(dropout=0.3)  # draws from torch's generator, whose state must come back too


@pytest.fixture(autouse=True)
def register(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tiny.one_thread():
        yield


# Files


def test_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.tensor(1.5)}
    checkpoint.save(tmp_path / "x", tensors, {"n": 1, "value": 0.1})
    loaded, metadata = checkpoint.load(tmp_path / "x")
    assert metadata == checkpoint.load_metadata(tmp_path / "x") == {"n": 1, "value": 0.1}
    assert set(loaded) == {"a", "b"} and all(torch.equal(loaded[name], tensors[name]) for name in loaded)
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    checkpoint.save(tmp_path / "x", {}, {})
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    path = tmp_path / "x"
    checkpoint.save(path, {"a": torch.ones(3)}, {"n": 1})

    def half_a_file(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise failure("disk full")

    monkeypatch.setattr(checkpoint, "save_file", half_a_file)
    with pytest.raises(failure):
        checkpoint.save(path, {"a": torch.zeros(3)}, {"n": 2})
    tensors, metadata = checkpoint.load(path)
    assert metadata == {"n": 1} and torch.equal(tensors["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [path]


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(CheckpointError, match=f"no checkpoint at {path}"):
        checkpoint.load(path)
    checkpoint.save(path, {"a": torch.ones(1000)}, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="x is damaged"):
        checkpoint.load(path)
    checkpoint.save_file({"a": torch.ones(3)}, path, metadata={"format": "other"})
    with pytest.raises(CheckpointError, match="expected format 'smore_ext checkpoint 1', got 'other'"):
        checkpoint.load(path)


def test_weights_of_another_model() -> None:
    model = torch.nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match=r"weight is \(4, 2\), expected \(3, 2\)"):
        checkpoint.load_weights(model, {"weight": torch.ones(4, 2), "bias": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"bias is None, expected \(3,\)"):
        checkpoint.load_weights(model, {"weight": torch.ones(3, 2)})


# Resuming


def start(run_dir: Path, stop: Any = None, resume: bool = False, **settings: Any) -> dict[str, Any]:
    """A run of the tiny model; `stop(event)` true stops it there as Ctrl-C would."""

    def listen(event: Event) -> None:
        if stop is not None and stop(event):
            raise KeyboardInterrupt

    config = tiny.tiny_config(DROPOUT, **{"epochs": 6, **settings})
    return runs.train(config, tiny.tiny_dataset(), run_dir, [listen], resume)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "Tiny", tiny.Tiny)
        start(run_dir)
    return tiny.comparable(run_dir)


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda event: isinstance(event, StepsDone) and event.epoch == 0, id="in the first epoch"),
        pytest.param(lambda event: isinstance(event, StepsDone) and event.epoch == 3, id="in the fourth epoch"),
        pytest.param(
            lambda event: isinstance(event, EpochDone) and event.record["epoch"] == 2,
            id="before the checkpoint",
        ),
        pytest.param(lambda event: isinstance(event, EpochDone) and event.record["epoch"] == 5, id="in the last epoch"),
    ],
)
@pytest.mark.parametrize(
    "policy",
    [
        pytest.param({}, id="by time"),
        pytest.param({"checkpoint_seconds": 0.0}, id="each epoch"),
        pytest.param({"checkpoint_seconds": 0.0, "checkpoint_every": 2}, id="each other epoch"),
        pytest.param({"checkpoint_seconds": 3600.0}, id="at the end"),
    ],
)
def test_a_resumed_run_gives_the_same_bits(
    tmp_path: Path, uninterrupted: tuple[Any, ...], stop: Any, policy: dict[str, Any]
) -> None:
    epochs: list[int] = []

    def watched(event: Event) -> bool:
        stopped = stop(event)
        if isinstance(event, EpochDone) and not stopped:
            epochs.append(event.record["epoch"])
        return stopped

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", watched, **policy)
    kept = checkpoint.load_metadata(tmp_path / "run" / folder.LAST)["progress"]["next_epoch"]
    assert kept == len(epochs), "an interrupted run keeps every epoch that is done"
    torch.manual_seed(12345)  # whatever the process did meanwhile
    torch.rand(17)
    start(tmp_path / "run", resume=True, **policy)
    assert tiny.comparable(tmp_path / "run") == uninterrupted


def test_optimizer_and_generator_are_in_the_checkpoint(tmp_path: Path) -> None:
    start(tmp_path)
    names = set(checkpoint.load(tmp_path / folder.LAST)[0])
    moments = {f"optimizer.{p}.{m}" for p in ("user", "item") for m in ("exp_avg", "exp_avg_sq", "step")}
    assert names >= moments | {"model.user", "model.item", "rng.cpu"}
    assert set(checkpoint.load(tmp_path / folder.BEST)[0]) == {"user", "item"}


def test_a_half_written_line_is_cut_off(tmp_path: Path, uninterrupted: tuple[Any, ...]) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        start(run_dir, lambda event: isinstance(event, StepsDone) and event.epoch == 3)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss"')
    start(run_dir, resume=True)
    assert tiny.comparable(run_dir) == uninterrupted


def test_early_stopping_goes_on_counting(tmp_path: Path) -> None:
    settings = {"lr": 1e-9, "epochs": 50, "patience": 3}  # nothing improves after the first epoch
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, lambda event: isinstance(event, StepsDone) and event.epoch == 3, **settings)
    result = start(tmp_path, resume=True, **settings)
    assert (result["best_epoch"], result["epochs_run"], result["stopped"]) == (0, 5, "patience")


def test_more_epochs_may_follow(tmp_path: Path, uninterrupted: tuple[Any, ...]) -> None:
    start(tmp_path / "run", epochs=3)
    result = start(tmp_path / "run", resume=True, epochs=6)
    assert result["epochs_run"] == 6
    assert tiny.comparable(tmp_path / "run") == uninterrupted


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    result = start(tmp_path)
    events: list[Event] = []
    config = tiny.tiny_config(DROPOUT, epochs=6)
    assert runs.finished(tmp_path, config) == result
    assert runs.train(config, tiny.tiny_dataset(), tmp_path, [events.append], resume=True) == result
    assert events == []
    assert runs.finished(tmp_path, config.replace(epochs=7)) is None


def other_data() -> Dataset:
    data = tiny.tiny_dataset()
    fewer = tiny.Pairs(data.train.users[:-1], data.train.items[:-1])
    return Dataset.from_pairs("tiny", 30, 40, fewer, data.valid, data.test, features={}, graphs={})


@pytest.mark.parametrize("finished", [False, True])
def test_other_data_is_an_error(tmp_path: Path, finished: bool) -> None:
    if finished:
        start(tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path, lambda event: isinstance(event, EpochDone))
    with pytest.raises(CheckpointError, match=r"not made on this data \(tiny\): expected fingerprint"):
        runs.train(tiny.tiny_config(DROPOUT, epochs=6), other_data(), tmp_path, resume=True)


def test_a_changed_setting_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, lambda event: isinstance(event, EpochDone))
    with pytest.raises(CheckpointError, match="settings changed since: lr was 0.05, is 0.1"):
        start(tmp_path, resume=True, lr=0.1)
    with pytest.raises(ConfigError, match="--lr cannot change .*0.05.*0.1"):
        runs.stored_config(tmp_path, {"lr": "0.1"})
    assert runs.stored_config(tmp_path, {"epochs": "9", "threads": "1"}).train.epochs == 9


def test_stored_settings_are_those_of_the_run(tmp_path: Path) -> None:
    start(tmp_path, seed=4)
    stored = runs.stored_config(tmp_path)
    assert (stored.train, stored.model) == (tiny.tiny_config(DROPOUT, epochs=6, seed=4).train, DROPOUT)
    with pytest.raises(FileNotFoundError, match="holds no run"):
        runs.stored_config(tmp_path / "elsewhere")


def test_seeds_resume_where_they_stopped(tmp_path: Path) -> None:
    settings = {"seeds": (1, 2, 3), "epochs": 3}
    whole = start(tmp_path / "whole", **settings)
    started: list[int] = []

    def second_seed(event: Event) -> bool:
        if isinstance(event, RunStarted):
            started.append(event.config["train"]["seed"])
        return len(started) == 2 and isinstance(event, EpochDone)

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", second_seed, **settings)
    assert not (tmp_path / "run" / "result.json").exists()
    started.clear()
    result = start(tmp_path / "run", lambda event: second_seed(event) and False, resume=True, **settings)
    assert started == [2, 3]
    assert (result["test"], result["runs"]) == (whole["test"], whole["runs"])
    assert result["config"]["train"]["seeds"] == [1, 2, 3]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result


# Where results go


def new_run_dir(run_dir: Path | None, overwrite: bool = False) -> Path:
    config: RunConfig = tiny.tiny_config(output_dir=run_dir)
    return runs.new_run_dir(config, overwrite)


def test_a_run_is_not_overwritten_silently(tmp_path: Path) -> None:
    start(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="already holds a run .*--resume .*--overwrite"):
        new_run_dir(tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()
    assert new_run_dir(tmp_path / "run", overwrite=True) == tmp_path / "run"
    assert (tmp_path / "run" / "result.json").exists()  # until the new run starts
    runs.RunFolder(tmp_path / "run").delete()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    start(tmp_path / "seeds", seeds=(1, 2), epochs=1)
    with pytest.raises(FileExistsError, match="result.json, seed-1, seed-2"):
        new_run_dir(tmp_path / "seeds")
    runs.RunFolder(tmp_path / "seeds").delete()
    assert list((tmp_path / "seeds").iterdir()) == []


def test_a_new_run_gets_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder.time, "strftime", lambda _: "now")
    assert new_run_dir(None) == Path("runs/Tiny-tiny-now")
    Path("runs/Tiny-tiny-now").mkdir(parents=True)
    assert new_run_dir(None) == Path("runs/Tiny-tiny-now-2")
    assert new_run_dir(tmp_path / "fresh") == tmp_path / "fresh"


# Processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), features=True)


def arguments(data: Path, run_dir: Path, epochs: int) -> list[str]:
    """SMORE with dropout on small data; the patience is out of reach."""
    settings = {"epochs": epochs, "patience": 10**6, "embedding-dim": 8, "batch-size": 16, "threads": 1}
    settings |= {"knn-k": 3, "dropout": 0.2, "lr": 0.01}
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return ["-m", "SMORE", "-d", "tiny", "--data-path", str(data), "-o", str(run_dir), "-q", *flags]


def stop_process(data: Path, run_dir: Path, epochs: int, how: signal.Signals, *more: str) -> tuple[int, str]:
    """Trains in a process of its own and sends it a signal in the middle of an epoch."""
    command = [sys.executable, "-m", "smore_ext.train", *arguments(data, run_dir, epochs), *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A background job of a shell inherits an ignored SIGINT, which Python leaves alone: start from the default.
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes) as process:
        metrics = run_dir / "metrics.jsonl"
        limit = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < limit:
            if metrics.exists() and metrics.read_text().count("\n") >= 3:
                break
            time.sleep(0.005)
        process.send_signal(how)
        try:
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()  # no effect on one that has ended; else leaving the block would wait for ever
    assert not (run_dir / "result.json").exists(), f"the run was over before the signal: {output}"
    return process.returncode, output


@pytest.mark.parametrize("more,least", [(["--checkpoint-seconds", "0"], 1), ([], 0)])
def test_kill_9_then_resume(tmp_path: Path, data: Path, more: list[str], least: int) -> None:
    epochs = 30
    code, _ = stop_process(data, tmp_path / "run", epochs, signal.SIGKILL, *more)
    assert code == -signal.SIGKILL
    done = checkpoint.load_metadata(tmp_path / "run" / folder.LAST)["progress"]["next_epoch"]
    assert least <= done < epochs
    assert train.main(["--resume", str(tmp_path / "run"), "-q"]) == 0
    assert train.main(arguments(data, tmp_path / "whole", epochs)) == 0
    assert tiny.comparable(tmp_path / "run") == tiny.comparable(tmp_path / "whole")


def test_frozen_features_are_not_written(tmp_path: Path, data: Path) -> None:
    assert train.main([*arguments(data, tmp_path / "run", 4), "--freeze-features"]) == 0
    for name in (folder.LAST, folder.BEST):
        tensors = checkpoint.load(tmp_path / "run" / name)[0]
        assert tensors and not [n for n in tensors if "features." in n]
    result = json.loads((tmp_path / "run" / folder.RESULT).read_text())
    again = runs.load_run(tmp_path / "run").evaluate("mmrec")
    assert (again["validation"], again["test"]) == (result["validation"], result["test"])
    assert train.main(["--resume", str(tmp_path / "run"), "--epochs", "6", "-q"]) == 0
    assert train.main([*arguments(data, tmp_path / "whole", 6), "--freeze-features"]) == 0
    assert tiny.comparable(tmp_path / "run") == tiny.comparable(tmp_path / "whole")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, data: Path, how: signal.Signals) -> None:
    run_dir = tmp_path / "run"
    code, output = stop_process(data, run_dir, 100_000, how)
    assert code == 130
    assert f"checkpoint: {run_dir / folder.LAST}" in output
    assert f"python -m smore_ext.train --resume {run_dir}" in output
    assert "Traceback" not in output
    checkpoint.load(run_dir / folder.LAST)


@pytest.mark.parametrize("target", ["pipe", "full"])
def test_a_lost_console_does_not_end_the_run(tmp_path: Path, data: Path, target: str) -> None:
    command = [sys.executable, "-m", "smore_ext.train", *arguments(data, tmp_path / "run", 3)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if target == "pipe":
        end, out = os.pipe()
        os.close(end)
    elif Path("/dev/full").exists():
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        pytest.skip("no /dev/full")
    try:
        process = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
    finally:
        os.close(out)
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["epochs_run"] == 3
