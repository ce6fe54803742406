"""The scripts of examples/: they run, say what they promise, are short, and use public names only."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest
from tiny import one_thread, write_dataset

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a script writes goes into a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(script: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with one_thread():
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    return capsys.readouterr().out


def test_lightgcn_loop(capsys, monkeypatch) -> None:
    out = run("lightgcn_loop.py", capsys, monkeypatch)
    recall = [float(value) for value in re.findall(r"Recall@20 (\S+)", out)]
    assert len(recall) == 6 and recall[-1] > recall[0] > 0.1


def test_denoise_features(capsys, monkeypatch) -> None:
    out = run("denoise_features.py", capsys, monkeypatch)
    shares = re.findall(r"(\w+): (\S+) of the true neighbours before the filter, (\S+) after", out)
    assert [name for name, *_ in shares] == ["image", "text"]
    assert all(float(after) > 0.9 > 5 * float(before) for _, before, after in shares)
    assert "neighbours of item 0: [" in out


@pytest.mark.parametrize("folder", [False, True])
def test_train_smore(folder: bool, capsys, monkeypatch, tmp_path: Path) -> None:
    arguments = [str(write_dataset(tmp_path / "data", features=True) / "tiny")] if folder else []
    out = run("train_smore.py", capsys, monkeypatch, *arguments)
    assert len(re.findall(r"^epoch \d: loss", out, re.MULTILINE)) == 3
    assert len(re.findall(r"^user 5: item \d+, score", out, re.MULTILINE)) == 5
    assert "test Recall@20" in out and "protocol mmrec" in out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_short_and_public(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"def test_{script.stem}(" in Path(__file__).read_text(encoding="utf-8"), "has no test"
    for node in ast.walk(ast.parse(text)):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.ImportFrom):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
        assert not [name for name in names if name.startswith("_") and name != "__future__"], ast.unparse(node)
