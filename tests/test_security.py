"""What SECURITY.md says: nothing that is read from the disk is executed."""

from __future__ import annotations

import ast
import io
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

import smore_ext
from smore_ext import evaluate, train
from smore_ext.runs.config_files import read_yaml

PACKAGE, ROOT = Path(smore_ext.__file__).parent, Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("command_surroundings")

# What is named by the user is imported in the registry; the others import parts of this package by fixed names.
IMPORTS = {"registry.py", "__init__.py", "__main__.py", "models/__init__.py", "_native.py"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess", "runpy", "code"}
SCRIPT = "compat/mmrec/__main__.py"  # a command that runs the program that it is given, as `python FILE` does
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "import_module", "unsafe_load", "full_load"}


def calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def test_the_package_calls_nothing_that_executes_what_it_reads() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        own = str(path.relative_to(PACKAGE))
        if own.startswith("testing"):  # of tests, not of runs: fuzzers start processes
            continue
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            allowed = {"runpy"} if own == SCRIPT else set()
            found += [f"{own}:{node.lineno}: {name}" for name in names if name.partition(".")[0] in MODULES - allowed]
        for line, name, call in calls(tree):
            given = {word.arg: ast.unparse(word.value) for word in call.keywords}
            last = name.rpartition(".")[2]
            wrong = name in CALLS - {"import_module"} or last in CALLS - {"compile", "eval", "import_module"}
            wrong |= name in ("torch.load", "torch.save", "torch.jit.load")
            wrong |= name == "yaml.load" and "_Loader" not in map(ast.unparse, call.args)  # one of plain texts
            wrong |= name in ("np.load", "numpy.load", "np.save") and given.get("allow_pickle") != "False"
            wrong |= last in ("read_pickle", "load_npz") or (last == "import_module" and own not in IMPORTS)
            if wrong:
                found.append(f"{own}:{line}: {name}")
    assert not found, found


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def array_of(bomb: Bomb) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([bomb], dtype=object), allow_pickle=True)
    return out.getvalue()


def archive_of(bomb: Bomb) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("row", "col", "weight", "shape"):
            archive.writestr(f"{name}.npy", array_of(bomb))
    return out.getvalue()


def saved_by_torch(bomb: Bomb) -> bytes:
    out = io.BytesIO()
    torch.save({"user": bomb}, out)
    return out.getvalue()


def lightgcn(data: Path, run: Path) -> list[str]:
    small = ["--epochs", "1", "--embedding-dim", "4", "--batch-size", "64", "-q"]
    return ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "-o", str(run), *small]


def smore(data: Path, run: Path, cache: Path) -> list[str]:
    features = ["--knn-k", "3", "--cache-dir", str(cache), "--table-cache", str(cache)]
    return ["-m", "SMORE", *lightgcn(data, run)[2:], *features]


def test_a_pickle_is_never_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bomb = Bomb(tmp_path / "exploded")
    pickle.loads(pickle.dumps(bomb))
    assert bomb.mark.exists()  # it would
    bomb.mark.unlink()
    data, cache = tiny.write_dataset(tmp_path / "data", features=True), tmp_path / "cache"
    run = tmp_path / "run"
    assert train.main(smore(data, run, cache)) == 0
    pickles = {"pickle": pickle.dumps(bomb), "torch": saved_by_torch(bomb), "npy": array_of(bomb)}

    for file in [*run.iterdir()]:
        whole = file.read_bytes()
        for content in pickles.values():
            file.write_bytes(content)
            for command, call in ((train, ["--resume", str(run), "--epochs", "2"]), (evaluate, [str(run)])):
                assert command.main(call) in (0, 2)  # 0: a command that does not read it
                assert not bomb.mark.exists(), file
            file.write_bytes(whole)
    for file in cache.iterdir():
        for content in pickles.values():
            file.write_bytes(content)
            assert train.main([*smore(data, run, cache), "--overwrite"]) == 0  # built anew
    for name, content in (("image_feat.npy", pickles), ("image_graph.npz", pickles | {"npz": archive_of(bomb)})):
        other = shutil.copytree(data, tmp_path / "other")
        for written in content.values():
            (other / "tiny" / name).write_bytes(written)
            assert train.main(smore(other, tmp_path / "none", cache)) == 2
            assert name in capsys.readouterr().err
        shutil.rmtree(other)
    assert not bomb.mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "epochs: !!python/object/apply:os.system ['touch {mark}']",
        "dataset: !!python/object/new:pathlib.Path [x]",
        "train: !!python/name:os.system",
        "model: !!python/module:this",
    ],
)
def test_tags_in_settings_are_texts(tmp_path: Path, text: str) -> None:
    mark, file = tmp_path / "exploded", tmp_path / "x.yaml"
    file.write_text(text.format(mark=mark))
    before = set(sys.modules)
    for value in read_yaml(file).values():
        assert isinstance(value, str | list | None)
    assert not mark.exists() and "this" not in set(sys.modules) - before


def test_only_settings_that_name_code_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loaded_by_name.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.chdir(tmp_path)
    named = "loaded_by_name:x"
    run = tmp_path / "run"
    data = tiny.write_dataset(tmp_path / "data")
    for flag in ("dataset", "device", "protocol", "backend", "data-path", "dataset-options"):
        assert train.main([*lightgcn(data, run), f"--{flag}", named]) == 2
    assert train.main([*lightgcn(data, run), "--output-dir", named]) == 0
    assert "loaded_by_name" not in sys.modules


def test_a_run_writes_into_its_folder_and_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run, cache = tiny.write_dataset(tmp_path / "data", features=True), tmp_path / "run", tmp_path / "cache"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and "w" in str(arguments[1] or ""):
            written.append(arguments[0])
        elif event in ("os.rename", "os.mkdir", "os.remove"):
            written.append(str(arguments[0]))

    sys.addaudithook(lambda *event: watch(*event) if watching else None)
    watching = [True]
    assert train.main(smore(data, run, cache)) == 0
    watching.clear()
    outside = [
        place for place in written if not Path(place).is_relative_to(run) and not Path(place).is_relative_to(cache)
    ]
    assert written and not [place for place in outside if not place.endswith(".pyc") and "__pycache__" not in place]
    assert not any((tmp_path / "here").iterdir())


def test_the_page_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 5
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
