"""A run's folder holds the files of one run: those of another are refused, and nothing else is written over them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny

from smore_ext import audit, compare, evaluate, export, recommend, runs, search, train
from smore_ext.runs.folder import check_output
from smore_ext.settings.config import FLAGS, Layer, merge
from smore_ext.settings.fields import ConfigError

pytestmark = pytest.mark.usefixtures("command_surroundings")
LAST, BEST, LOG = "last.safetensors", "best.safetensors", "metrics.jsonl"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that no test changes: of LightGCN with two seeds, and of another model, in one folder with their data."""
    place = tmp_path_factory.mktemp("made")
    data = tiny.write_dataset(place / "data", features=True)
    for name, more in {
        "one": ["-m", "LightGCN", "--seed", "1"],
        "two": ["-m", "LightGCN", "--seed", "2"],
        "other": ["-m", "BM3"],
    }.items():
        flags = ["-d", "tiny", "--data-path", str(data), "--epochs", "2", "--batch-size", "16", "--threads", "1", "-q"]
        assert train.main([*flags, *more, "-o", str(place / name)]) == 0
    return place


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "one", tmp_path / "run")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("whose", "message"), [("two", "seed was 2, is 1"), ("other", "model was 'BM3', is 'LightGCN'")]
)
def test_the_best_weights_of_another_run(
    made: Path, run: Path, whose: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(made / whose / BEST, run / BEST)
    (run / "result.json").unlink()
    before = contents(run)
    for command, call in (
        (evaluate, [str(run)]),
        (train, ["--resume", str(run), "--epochs", "3"]),
        (train, ["--resume", str(run)]),
    ):
        assert command.main(call) == 2
        err = capsys.readouterr().err
        assert message in err and str(run / BEST) in err and len(err.splitlines()) == 1
    assert contents(run) == before


def test_the_best_weights_of_another_run_of_the_same_settings(made: Path, run: Path, tmp_path: Path) -> None:
    """Its value at that epoch tells, as another version of torch may have made it."""
    from smore_ext.training import checkpoint

    tensors, metadata = checkpoint.load(run / BEST)
    metadata["progress"]["best_value"] += 0.25
    checkpoint.save(run / BEST, tensors, metadata)
    with pytest.raises(checkpoint.CheckpointError, match=r"last.safetensors are of different runs: epoch \d has a"):
        runs.load_run(run)


def test_tensors_that_do_not_fit_are_of_a_file_that_is_named(run: Path) -> None:
    from smore_ext.training import checkpoint

    tensors, metadata = checkpoint.load(run / BEST)
    name = next(iter(tensors))
    checkpoint.save(run / BEST, tensors | {name: tensors[name][:-1]}, metadata)
    with pytest.raises(checkpoint.CheckpointError, match=rf"{run / BEST} does not fit the model: {name} is \("):
        runs.load_run(run)


@pytest.mark.parametrize("left", [None, 0, 1])
def test_a_log_that_is_gone_is_said(run: Path, left: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / LOG
    lines = path.read_text().splitlines(keepends=True)
    path.unlink() if left is None else path.write_text("".join(lines[:left]))
    assert train.main(["--resume", str(run), "--epochs", "3"]) == 0
    said = f"metrics.jsonl was changed or deleted: it holds {left or 0} of the 2 epochs before"
    assert said in " ".join(capsys.readouterr().out.split())
    result = runs.read_result(run / "result.json")
    assert any(said in warning for warning in result["warnings"]) and result["epochs_run"] == 3


def test_a_log_that_is_whole_is_not_mentioned(run: Path) -> None:
    assert train.main(["--resume", str(run), "--epochs", "3", "-q"]) == 0
    assert not [w for w in runs.read_result(run / "result.json")["warnings"] if LOG in w]


@pytest.mark.parametrize("name", [BEST, LAST, LOG, "result.json", "config.yaml"])
@pytest.mark.parametrize("command", [audit, evaluate])
def test_no_command_writes_over_a_runs_files(
    run: Path, name: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert command.main([str(run), "--json", str(run / name)]) == 2
    assert f"{run / name} is a file of the run in {run}: write to another one" in capsys.readouterr().err
    assert contents(run) == before
    check_output(run / "another.json")  # beside them is as good a place as any


@pytest.mark.parametrize("name", [BEST, LAST, "ids.json"])
def test_nothing_is_exported_over_a_runs_files(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    assert export.main([str(run), "-o", str(run / name)]) == 2
    assert export.main([str(run), "-o", str(run)]) == 2
    for flag in ("--all", "--json"):
        more = ["--user", "1"] if flag == "--json" else []
        assert recommend.main([str(run), flag, str(run / LOG), *more]) == 2
    err = capsys.readouterr().err
    assert f"{run} holds a run: write to another folder" in err and f"{run / LOG} is a file of the run in {run}" in err
    assert contents(run) == before


def test_folders_of_runs_hold_nothing_else(run: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(run)
    flags = ["-d", "tiny", "--data-path", str(made / "data"), "--epochs", "1", "-o", str(run)]
    assert compare.main([*flags, "--models", "Popularity", "--seeds", "1"]) == 2
    assert search.main([*flags, "-m", "LightGCN", "--space", "lr=0.1,0.2", "--trials", "1"]) == 2
    assert capsys.readouterr().err.count(f"{run} holds a run: write to another folder") == 2
    assert contents(run) == before and not [path for path in run.iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    "values",
    [
        {"lr": "0.1", "train": {"lr": "0.2"}},
        {"batch-size": "3", "batch_size": "5"},
        {"train": {"batch-size": "3", "batch_size": "5"}},
        {"knn_k": "3", "model": {"knn-k": "4"}},
    ],
)
@pytest.mark.parametrize("source", ["c.yaml", FLAGS])
def test_a_setting_is_given_once_in_a_file(values: dict[str, Any], source: str) -> None:
    with pytest.raises(ConfigError, match=r"expected once, got (train.lr|train.batch_size|model.knn_k) as '"):
        merge([Layer(source, values)])


def test_a_section_of_a_model_may_say_more_than_the_general_one() -> None:
    config = merge([Layer("c.yaml", {"lr": "0.1", "SMORE": {"lr": "0.2"}}), Layer(FLAGS, {"train.batch_size": "5"})])
    assert (config.train.lr, config.train.batch_size) == (0.2, 5)
