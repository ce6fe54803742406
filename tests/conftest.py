"""Shared fixtures: the device under test, where the real data lies, and a thread count that no test leaves changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # else threads of all processes would wait for each other

import torch

from smore_ext.data import kept

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device on which ops, models and training are tested")
    parser.addoption("--deep", action="store_true", help="more of the tests that strike runs, for minutes")


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--device")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise pytest.UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs in this process keep graphs and tables in a folder of the session's where they would in the user's."""
    place, ask = tmp_path_factory.mktemp("user-cache"), kept.user_cache
    users = ask()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "user_cache", lambda: place if (found := ask()) == users else found)
        yield


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device under test: the CPU, or what --device says."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def command_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a test of commands runs in: a cache of its own, and one thread, as its data is tiny."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    torch.set_num_threads(1)  # keep_threads undoes it


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (shared/data beside the checkout) are absent")
    return SHARED_DATA
