"""The server's application: answers, bounds of every field, tokens, and a model that is followed by another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import shop
import torch

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")

from fastapi.testclient import TestClient  # noqa: E402
from hypothesis import settings  # noqa: E402

from smore_ext import serving  # noqa: E402
from smore_ext.data import DatasetError  # noqa: E402
from smore_ext.serving.catalogue import Catalogue, open_catalogue, read_texts  # noqa: E402
from smore_ext.serving.web import Live, create_app  # noqa: E402
from smore_ext.serving.web.answers import BODY  # noqa: E402

MODEL = shop.served_model()
KNOWN = f"/items/{quote(shop.ODD, safe='')}"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return open_catalogue(shop.write_catalogue(tmp_path_factory.mktemp("shop")))


@pytest.fixture(scope="module")
def live(catalogue: Catalogue) -> Live:
    return Live(lambda: (MODEL, catalogue))


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[TestClient]:
    with TestClient(create_app(live)) as client:
        yield client


def pairs(entries: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(entry["item"], pytest.approx(entry["value"])) for entry in entries]


def test_answers_are_the_models(client: TestClient) -> None:
    got = client.get("/recommend", params={"user": "u3", "k": 5}).json()
    assert got["user"] == "u3" and pairs(got["items"]) == MODEL.recommend(["u3"], 5)["u3"]
    rules = {"user": "u3", "k": 40, "allow": ["b1", "b2", "b9"], "deny": ["b2"], "filter_seen": False}
    got = client.get("/recommend", params=rules).json()
    assert {entry["item"] for entry in got["items"]} == {"b1", "b9"}
    got = client.post("/recommend/users", json={"users": ["u3", "u5"], "k": 4, "deny": ["b1"]}).json()["lists"]
    assert {row["user"]: pairs(row["items"]) for row in got} == MODEL.recommend(["u3", "u5"], 4, deny=["b1"])
    got = client.post("/recommend/new-user", json={"items": ["b1", shop.ODD], "k": 4}).json()
    assert pairs(got["items"]) == MODEL.recommend_for(["b1", shop.ODD], 4)
    for by in (None, "text"):
        got = client.get("/similar", params={"item": shop.ODD, "k": 3} | ({"by": by} if by else {})).json()
        assert pairs(got["items"]) == MODEL.similar([shop.ODD], 3, by)[shop.ODD] and got.get("by") == by
    got, why = client.get("/explain", params={"user": "u3", "item": "b4"}).json(), MODEL.explain("u3", "b4")
    assert (got["score"], got["seen"]) == (pytest.approx(why.score), why.seen)
    assert got["contributions"] == pytest.approx(why.contributions)
    assert {name: pairs(near) for name, near in got["nearest"].items()} == why.nearest


def test_users_and_items_are_described(client: TestClient) -> None:
    got = client.get("/users/u3", params={"k": 2, "describe": True}).json()
    assert (
        got["interactions"] == len(MODEL.history("u3")) and [e["item"] for e in got["items"]] == MODEL.history("u3")[:2]
    )
    everything = client.get("/recommend", params={"user": "u3", "k": 40, "describe": True, "filter_seen": False}).json()
    shown = {entry["item"]: entry for entry in everything["items"]}
    assert shown["b6"]["text"] == "Item number 6" and "text" not in shown["b4"] and "text" not in shown["b5"]
    assert shown["b3"]["image"] == "/images/b3" and "image" not in shown["b6"]
    plain = client.get("/recommend", params={"user": "u3"}).json()["items"][0]
    assert plain.keys() == {"item", "value"}
    got = client.get(KNOWN).json()
    assert got == {"item": shop.ODD, "interactions": int((MODEL.seen.col == 7).sum()), "text": None, "image": None}
    image = client.get("/images/b3")
    assert image.content == shop.PIXEL and image.headers["content-type"] == "image/png"
    got = client.get("/users", params={"start": 2, "k": 3}).json()
    assert got == {"count": shop.USERS - 1, "users": ["u2", "u3", "u4"]}
    health = client.get("/health").json()
    assert (health["model"], health["users"], health["items"], health["parts"]) == (
        "Planted",
        29,
        40,
        ["behaviour", "text"],
    )


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/recommend", 422, "user: Field required"),
        ("/recommend?user=nobody", 404, "user: expected one of the 30 raw ids of the data, got 'nobody'"),
        ("/recommend?user=u29", 404, "user: expected one with train interactions, got 'u29', who has none"),
        ("/recommend?user=", 422, "user: String should have at least 1 character"),
        ("/recommend?user=u1&k=0", 422, "k: Input should be greater than or equal to 1, got '0'"),
        ("/recommend?user=u1&k=1001", 422, "k: Input should be less than or equal to 1000"),
        ("/recommend?user=u1&k=ten", 422, "k: Input should be a valid integer"),
        ("/recommend?user=u1&kk=3", 422, "kk: Extra inputs are not permitted"),
        ("/recommend?user=u1&filter_seen=perhaps", 422, "filter_seen: Input should be a valid boolean"),
        ("/recommend?user=u1&allow=b99", 404, "item: expected one of the 40 raw ids of the data, got 'b99'"),
        ("/recommend?user=u1&allow=b1&deny=b1", 409, "allow, deny: expected to leave an item"),
        ("/recommend?user=" + "u" * 513, 422, "user: String should have at most 512 characters"),
        ("/similar?item=b1&by=smell", 409, "by: expected one of behaviour, text, got 'smell'"),
        ("/explain?user=u1", 422, "item: Field required"),
        ("/explain?user=u1&item=b1&k=101", 422, "k: Input should be less than or equal to 100"),
        ("/items/b99", 404, "item: expected one of the 40 raw ids"),
        ("/images/b4", 404, "item: expected one with an image"),
        ("/images/notes", 404, "item: expected one with an image"),
        ("/images/..%2F..%2Fetc%2Fpasswd", 404, "item: expected one with an image"),
        ("/page/..%2Fapp.py", 404, "Not Found"),
        ("/users?start=-1", 422, "start: Input should be greater than or equal to 0"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_a_wrong_question_gets_one_clear_answer(client: TestClient, path: str, status: int, detail: str) -> None:
    got = client.get(path)
    assert got.status_code == status and got.json()["detail"].startswith(detail), got.text
    assert len(got.text) < 400


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"{", 422, "body: expected JSON, got: Expecting property name enclosed in double quotes at character 1"),
        (b'{"users": []}', 422, "users: List should have at least 1 item"),
        (b'{"users": ["u1"], "k": 1.5}', 422, "k: Input should be a valid integer"),
        (b'{"users": [1]}', 422, "users.0: Input should be a valid string"),
        (b'{"users": ["u1"], "more": 1}', 422, "more: Extra inputs are not permitted"),
        (b'{"users": ["\\ud800"]}', 422, "users.0: Input should be a valid string"),
        (b'{"users": [' + b'"u1",' * 1000 + b'"u1"]}', 422, "users: List should have at most 1000 items"),
        (b'"' + b"x" * BODY + b'"', 413, f"expected a body of at most {BODY:,} bytes"),
    ],
)
def test_a_wrong_body_too(client: TestClient, body: bytes, status: int, detail: str) -> None:
    got = client.post("/recommend/users", content=body, headers={"content-type": "application/json"})
    assert got.status_code == status and got.json()["detail"].startswith(detail), got.text
    assert len(got.text) < 400


def test_a_body_without_a_length_is_bounded_too(client: TestClient) -> None:
    blocks = (b" " * (1 << 16) for _ in range(1 << 10))
    got = client.post("/recommend/users", content=blocks, headers={"content-type": "application/json"})
    assert got.status_code == 413


def test_only_a_token_opens(live: Live) -> None:
    with TestClient(create_app(live, token="s3cret")) as client:
        assert client.get("/health").status_code == client.get("/").status_code == 200
        schema = client.get("/openapi.json").json()
        for path, methods in schema["paths"].items():
            for method, about in methods.items():
                if path == "/health":
                    continue
                assert about["security"], path
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
                    got = client.request(method, path.replace("{item}", "b1").replace("{user}", "u1"), headers=headers)
                    assert got.status_code == 401 and got.headers["www-authenticate"] == "Bearer", path
        assert client.get("/recommend?user=u1", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_another_page_in_the_browser_is_not_answered(live: Live) -> None:
    with TestClient(create_app(live, hosts=["localhost", "::1", "[::1]"]), base_url="http://localhost") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"host": "[::1]:8000"}).status_code == 200
        refused = client.get("/health", headers={"host": "evil.example"})
        assert refused.status_code == 400 and refused.headers["x-content-type-options"] == "nosniff"
        assert 'status="400"' in client.get("/metrics").text
        headers = client.get("/").headers
        assert (
            "default-src 'none'" in headers["content-security-policy"] and "access-control-allow-origin" not in headers
        )


def test_counts(live: Live) -> None:
    with TestClient(create_app(live)) as client:
        for path in ("/recommend?user=u1", "/recommend?user=u2", "/recommend?user=no", "/items/b1", "/none/such"):
            client.get(path)
        text = client.get("/metrics").text
    assert 'smore_requests_total{route="/recommend",status="200"} 2.0' in text
    assert 'smore_requests_total{route="/recommend",status="404"} 1.0' in text
    assert 'smore_requests_total{route="none",status="404"} 1.0' in text
    assert 'smore_request_seconds_count{route="/items/{item:path}"} 1.0' in text and "smore_model_changes 0.0" in text


# A new model


def test_a_new_model_takes_over_and_a_broken_one_does_not(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    serving.write(MODEL, path)
    live = Live(lambda: (serving.load(path), Catalogue()), path)
    client = TestClient(create_app(live))
    assert not live.refresh()
    other = shop.served_model(seed=1)
    serving.write(other, path)
    assert live.refresh() and not live.refresh()
    got = client.get("/recommend?user=u1&k=3").json()
    assert pairs(got["items"]) == other.recommend(["u1"], 3)["u1"]
    good = path.read_bytes()
    path.write_bytes(good[:-50])
    assert not live.refresh() and not live.refresh()
    health = client.get("/health").json()
    assert "cannot be read" in health["error"] and health["changes"] == 1 and live.failures == 1
    assert client.get("/recommend?user=u1&k=3").json() == got
    path.unlink()
    assert not live.refresh() and client.get("/recommend?user=u1&k=3").json() == got
    path.write_bytes(good)
    assert live.refresh() and client.get("/health").json()["error"] is None


def test_no_request_is_dropped_or_mixed_while_models_change(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    models = [shop.served_model(seed) for seed in range(2)]
    serving.write(models[0], path)
    live = Live(lambda: (serving.load(path), Catalogue()), path)
    expected = [model.recommend(["u1"], 40)["u1"] for model in models]
    app, wrong, count = create_app(live), [], 0
    done = threading.Event()

    def ask() -> None:
        nonlocal count
        client = TestClient(app)
        while not done.is_set():
            got = client.get("/recommend?user=u1&k=40")
            if got.status_code != 200 or pairs(got.json()["items"]) not in expected:
                wrong.append(got.text)
            count += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    live.watch(0.001)
    for turn in range(1, 12):
        before = live.changes
        serving.write(models[turn % 2], path)
        for _ in range(2000):
            if live.changes > before:
                break
            done.wait(0.005)
        assert live.changes > before
    done.set()
    for thread in threads:
        thread.join()
    live.close()
    assert not wrong and count > 11


# What is shown of items


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"item": "b1"}', '{"item": "b1", "text": 3}', '{"item": null, "text": ""}', "\x00"]
)
def test_texts_that_are_none(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"item": "b0", "text": "fine"}\n\n' + line + "\n")
    with pytest.raises(DatasetError, match="x.jsonl, line 3: expected item and text in JSON, got "):
        read_texts(path)


def test_places_that_are_not_there(tmp_path: Path) -> None:
    assert open_catalogue(tmp_path) == Catalogue()
    with pytest.raises(DatasetError, match="no.jsonl: expected a regular file, got nothing there"):
        open_catalogue(tmp_path, texts=tmp_path / "no.jsonl")
    with pytest.raises(NotADirectoryError, match="expected a folder of images"):
        open_catalogue(tmp_path, images=tmp_path / "no")


# The schema of the server itself, and questions made from it


LIVE = Live(lambda: (MODEL, Catalogue()))
OPEN = schemathesis.openapi.from_asgi("/openapi.json", create_app(LIVE))
GUARDED = schemathesis.openapi.from_asgi("/openapi.json", create_app(LIVE, token="s3cret"))


@OPEN.parametrize()
@settings(max_examples=60, derandomize=True, deadline=None)
def test_answers_keep_the_schema(case: Any) -> None:
    case.call_and_validate()


@GUARDED.parametrize()
@settings(max_examples=20, derandomize=True, deadline=None)
def test_answers_keep_the_schema_with_a_token(case: Any) -> None:
    case.call_and_validate(headers={"Authorization": "Bearer s3cret"})


def test_one_thread_or_many_give_the_same(client: TestClient) -> None:
    before = torch.get_num_threads()
    try:
        got = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            got.append(client.get("/recommend", params={"user": "u3", "k": 40}).text)
    finally:
        torch.set_num_threads(before)
    assert got[0] == got[1]
