"""The command `serve` as a process: what it prints, who may reach it, how it ends; and its page in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest
import shop

from smore_ext import serve, serving

pytest.importorskip("fastapi")

from benchmarks import serve_load  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LINES = re.compile(r"(\w+) answers at (http://\S+)/")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = shop.write_catalogue(tmp_path_factory.mktemp("serve"))
    serving.write(shop.served_model(), place / "m.safetensors")
    return place


@contextmanager
def server(place: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address, and the process."""
    texts = ["--items", str(place / "item_texts.jsonl"), "--images", str(place / "images")]
    command = [sys.executable, "-m", "smore_ext.serve", str(place / "m.safetensors"), "--port", "0", *texts, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | (env or {}))
    assert process.stdout is not None
    try:
        found = LINES.match(process.stdout.readline())
        assert found, "it did not start"
        yield found[2], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def get(address: str, token: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_it_is_stopped(place: Path, stop: signal.Signals) -> None:
    with server(place) as (address, process):
        assert address.startswith("http://127.0.0.1:")
        status, text = get(f"{address}/recommend?user=u3&k=2&describe=true")
        assert status == 200 and len(json.loads(text)["items"]) == 2
        process.send_signal(stop)
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None and process.stdout.read() == "stopped\n"


def test_a_new_file_is_taken_over(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "x")
    with server(tmp_path / "x", "--reload", "0.01") as (address, _):
        before = get(f"{address}/recommend?user=u3")[1]
        serving.write(shop.served_model(seed=1), tmp_path / "x" / "m.safetensors")
        for _ in range(2000):
            if json.loads(get(f"{address}/health")[1])["changes"]:
                break
        assert get(f"{address}/recommend?user=u3")[1] != before


def test_tokens_come_from_a_file_or_the_environment(place: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("abc\n")
    for flags, env in ((["--token-file", str(tmp_path / "t")], {}), ([], {serve.TOKEN: "abc"})):
        with server(place, *flags, env=env) as (address, _):
            assert get(f"{address}/users")[0] == 401 and get(f"{address}/users", "abc")[0] == 200


def test_what_cannot_be_served(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(place / "m.safetensors")
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "bad.jsonl").write_text("x")
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    for arguments, message in (
        ([str(tmp_path / "no")], "no run"),
        ([str(tmp_path / "no.safetensors")], "no.safetensors"),
        ([model, "--port", port], f"cannot listen at 127.0.0.1, port {port}: "),
        ([model, "--host", "no.such.host.invalid", "--port", "0"], "cannot listen at no.such.host.invalid"),
        ([model, "--port", "70000"], "70000 is not in the range"),
        ([model, "--port", "0", "--token-file", str(tmp_path / "empty")], "expected a token of printable ASCII"),
        ([model, "--port", "0", "--token-file", str(tmp_path / "none")], "No such file"),
        ([model, "--port", "0", "--items", str(tmp_path / "bad.jsonl")], "line 1: expected item and text in JSON"),
        ([model, "--port", "0", "--images", model], "expected a folder of images"),
        ([model, "--prot", "0"], "unknown flag --prot; did you mean --port?"),
    ):
        assert serve.main(arguments) == 2, arguments
        assert message in capsys.readouterr().err.replace("\n", " "), arguments
    taken.close()


def test_an_open_door_is_told(place: Path) -> None:
    with server(place, "--host", "0.0.0.0") as (_, process):
        assert process.stdout is not None and "there is no token" in process.stdout.readline()


def test_the_load_test_measures_servers_of_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time is looked at; that both answer the same is checked by the benchmark itself."""
    monkeypatch.setattr(serve_load, "SIZES", {"tiny": (60, 50, 300)})
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    found = serve_load.measure("tiny", requests=60, turns=1)
    assert found.keys() == {"ours", "plain", "floor"}
    assert all(row["least"] <= row["requests_a_second"] <= row["most"] for row in found.values())


# The page


def rendered(address: str, place: Path) -> str:
    """The page as it is when its scripts have run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={place}"]
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=8000", "--dump-dom", address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_in_a_browser(place: Path, tmp_path: Path) -> None:
    model = shop.served_model()
    with server(place) as (address, _):
        first = rendered(f"{address}/", tmp_path)
        assert "Planted on shop: 29 users, 40 items" in first and 'data-shown="#user=u0"' in first
        best = [near.item for near in model.recommend(["u0"], 10)["u0"]]
        recommended = first.partition('id="recommended"')[2].partition("</ol>")[0]
        assert re.findall(r'data-item="([^"]+)"', recommended) == best
        had = first.partition('id="had"')[2].partition("</ol>")[0]
        assert re.findall(r'data-item="([^"]+)"', had) == [str(item) for item in model.history("u0")]
        why = rendered(f"{address}/#user=u3&item=b2", tmp_path)
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in why and "<script>alert(1)" not in why
        found = model.explain("u3", "b2")
        assert f"{found.score:.4f}" in why and all(f"{value:.4f}" in why for value in found.contributions.values())
        similar = why.partition('id="similar"')[2].partition("</ol>")[0]
        assert re.findall(r'data-item="([^"]+)"', similar) == [near.item for near in model.similar(["b2"])["b2"]]
        odd = rendered(f"{address}/#user=u3&item=b%2F7%20%3C%C3%A9%3E%26%3F%23%25", tmp_path)
        assert f"{model.explain('u3', shop.ODD).score:.4f}" in odd and 'id="problem" role="alert" hidden' in odd
        unknown = rendered(f"{address}/#user=nobody", tmp_path)
        assert "expected one of the 30 raw ids of the data, got 'nobody'" in unknown


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_asks_for_the_token(place: Path, tmp_path: Path) -> None:
    with server(place, env={serve.TOKEN: "abc"}) as (address, _):
        page = rendered(f"{address}/#user=u3", tmp_path)
        assert "token as a bearer" in page and '<label id="token-field">' in page
