"""From a dump to answers: each form that others publish, and the commands of the pages as they stand there."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import types
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from dumps import ROWS, SOURCES, core, packed

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient  # noqa: E402

from smore_ext import check, export, recommend, serve, train  # noqa: E402
from smore_ext.prepare.__main__ import main as prepare  # noqa: E402
from smore_ext.serving.web import Live, create_app  # noqa: E402

DOCS = Path(__file__).resolve().parents[1] / "docs"
ENCODER = '''"""A sentence encoder in the place of a large one: words by their hash."""
import zlib
import numpy as np

__version__ = "6.0"

class SentenceTransformer:
    def __init__(self, model, local_files_only):
        assert local_files_only

    def encode(self, texts, **_):
        rows = np.zeros((len(texts), 8), np.float32)
        for row, text in zip(rows, texts):
            for word in text.split():
                row[zlib.crc32(word.encode()) % 8] += 1
        return rows
'''


@pytest.mark.parametrize("form", SOURCES)
def test_a_dump_becomes_recommendations(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, items = SOURCES[form](tmp_path)
    data, run, file = tmp_path / "data" / "shop", tmp_path / "run", tmp_path / "shop.safetensors"
    assert prepare([str(source), "--items", str(items), "-o", str(data)]) == 0
    assert check.main([str(data), "--ids", "mapped"]) in (0, 1)  # 1: something is odd
    flags = ["-m", "LightGCN", "-d", "shop", "--data-path", str(data.parent), "--ids", "mapped", "--epochs", "2"]
    assert train.main([*flags, "-o", str(run)]) == 0
    user = Counter(user for user, _ in core(ROWS, 5)).most_common()[-1][0]  # who has had least
    had = {item for u, item in core(ROWS, 5) if u == user}
    assert recommend.main([str(run), "--user", user, "--k", "5", "--json", str(tmp_path / "r.json")]) == 0
    listed = [row["item"] for row in json.loads((tmp_path / "r.json").read_text())[user]]
    assert len(listed) == 5 and not had & set(listed)
    assert export.main([str(run), "-o", str(file), "--served"]) == 0
    for path in (run, file):
        client = TestClient(create_app(Live(lambda path=path: serve.load(path, None, "cpu", None, None))))
        answer = client.get("/recommend", params={"user": user, "k": 5, "describe": True}).json()
        assert [entry["item"] for entry in answer["items"]] == listed
        texts = [entry.get("text") for entry in answer["items"]]
        assert (
            all(f"Title of {item}" in text for item, text in zip(listed, texts, strict=True)) if path == run else True
        )
        assert {entry["item"] for entry in client.get(f"/users/{user}").json()["items"]} == had
    capsys.readouterr()


def lines_of(page: str) -> list[str]:
    """The commands of a page that are of this package."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert any("smore_ext" in line for line in lines), page
    return [line for line in lines if line.startswith("python -m smore_ext.")]


SHORT = {"train": ["--epochs", "2"], "search": ["--epochs", "2", "--trials", "2"]}


def main_of(module: str) -> Callable[[list[str]], int]:
    found = importlib.import_module(module)
    return importlib.import_module(f"{module}.__main__").main if hasattr(found, "__path__") else found.main


def test_the_pages_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Word for word but for the names of a user and an item in the dump, and for training, which is cut short."""
    user, item = ROWS[0].user, ROWS[0].item
    ids = {user: "A3SG", item: "B07K"}
    named = [row._replace(user=ids.get(row.user, row.user), item=ids.get(row.item, row.item)) for row in ROWS]
    reviews = [{"reviewerID": r.user, "asin": r.item, "overall": r.rating, "unixReviewTime": r.time} for r in named]
    packed(tmp_path / "reviews.json.gz", reviews)
    titles = [{"asin": item, "title": f"Title {item[-1]} of {item}"} for item in sorted({r.item for r in named})]
    packed(tmp_path / "meta.json.gz", titles, spelled=repr)
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    (tmp_path / "all-MiniLM-L6-v2" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("sentence_transformers")
    exec(ENCODER, vars(module))
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")])}
    ran = []
    for page in ("prepare", "recommend", "serve", "search"):
        for line in lines_of(page):
            words = shlex.split(line)
            command = words[2].removeprefix("smore_ext.")
            arguments = [*words[3:], *SHORT.get(command, [])]
            if command == "serve":
                served([sys.executable, *words[1:3], *arguments], tmp_path, env)
            else:  # here: as processes they would load torch each
                code = main_of(words[2])(arguments)
                assert code == 0 or (command == "check" and code == 1), (line, capsys.readouterr().err)
            ran.append(command)
    assert {"prepare", "check", "train", "recommend", "similar", "explain", "export", "serve", "search"} <= set(ran)
    lists = (tmp_path / "lists.jsonl").read_text().splitlines()
    assert len(lists) == len({user for user, _ in core(named, 5)})


def served(words: list[str], place: Path, env: dict[str, str]) -> None:
    with subprocess.Popen([*words, "--port", "0"], cwd=place, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            with urllib.request.urlopen(f"{found[0]}recommend?user=A3SG&describe=true", timeout=30) as answer:
                assert "Title" in json.load(answer)["items"][0]["text"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0
