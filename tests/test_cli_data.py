"""The commands: where they find the data, and what they say of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny

from smore_ext import evaluate, train

ERROR = 2
pytestmark = pytest.mark.usefixtures("command_surroundings")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"))


def small(run: Path, *more: str) -> list[str]:
    return ["-m", "LightGCN", "--epochs", "1", "--embedding-dim", "4", "-q", "-o", str(run), *more]


def test_the_named_table_is_read(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a"
    shutil.copytree(data / "tiny", folder)
    rows = (folder / "tiny.inter").read_text().splitlines()
    (folder / "a.inter").write_text("\n".join(rows[:-3]) + "\n")  # the folder's own name
    for name, dropped in (("tiny", 0), ("a", 3)):
        assert train.main(small(tmp_path / name / "run", "-d", name, "--data-path", str(folder))) == 0
        found = json.loads((tmp_path / name / "run" / "result.json").read_text())["data"]
        assert (found["name"], found["interactions"]["test"]) == (name, 30 - dropped)
    assert train.main(small(tmp_path / "no", "-d", "tinny", "--data-path", str(folder))) == ERROR
    err = capsys.readouterr().err
    assert "did you mean 'tiny'?" in err and err.endswith(f"{folder} holds a, tiny\n")


def test_inter_csv_in_the_data_path_itself(data: Path, tmp_path: Path) -> None:
    text = (data / "tiny" / "tiny.inter").read_text().replace("\t", ",")
    (tmp_path / "inter.csv").write_text(text)
    assert train.main(small(tmp_path / "run", "-d", "mine", "--data-path", str(tmp_path))) == 0
    assert json.loads((tmp_path / "run" / "result.json").read_text())["dataset"] == "mine"


def test_at_most_ten_data_sets_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        (tmp_path / f"set{number:02}.inter").touch()
    assert train.main(small(tmp_path / "run", "-d", "zzz", "--data-path", str(tmp_path))) == ERROR
    err = capsys.readouterr().err
    assert "set09 and 2 more" in err and "set10" not in err


def test_a_run_holds_from_any_directory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data.parent)
    assert train.main(small(tmp_path / "run", "-d", "tiny/", "--data-path", data.name)) == 0
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["run"]) == 0
    assert train.main(["--resume", "run", "--epochs", "2"]) == 0


def test_what_is_left_out_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "dup.inter"
    rows = (data / "tiny" / "tiny.inter").read_text().splitlines()
    table.write_text("\n".join([*rows, rows[1], "30\t0\t2"]) + "\n")
    assert train.main(small(tmp_path / "run", "--data-path", str(tmp_path))) == 0
    line = "not used or counted once: train duplicates 1, test pairs dropped 1, users without train 1"
    out = capsys.readouterr().out
    assert line in out and "valid duplicates" not in out
