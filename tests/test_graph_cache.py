"""The cache of item graphs: same graph from disk, never a stale one, never a broken one."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from smore_ext.data import graph_cache, item_knn_graph, kept
from smore_ext.graph import Graph


@pytest.fixture
def features() -> torch.Tensor:
    return torch.rand(30, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The k of every graph that was really built."""
    calls: list[int] = []
    knn = Graph.knn

    def counted(features: torch.Tensor, k: int) -> Graph:
        calls.append(k)
        return knn(features, k)

    monkeypatch.setattr(Graph, "knn", counted)
    return calls


def same(a: Graph, b: Graph) -> bool:
    return tuple(a.shape) == tuple(b.shape) and all(
        getattr(a, name).dtype == getattr(b, name).dtype and torch.equal(getattr(a, name), getattr(b, name))
        for name in ("rowptr", "col", "weight")
    )


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_read_back_is_the_graph_that_was_built(features: torch.Tensor, tmp_path: Path, built: list[int]) -> None:
    cache = tmp_path / "made" / "when absent"
    plain = item_knn_graph(features, 5, None)
    first = item_knn_graph(features, 5, cache)
    second = item_knn_graph(features.clone(), 5, str(cache))
    assert built == [5, 5]
    assert same(plain, first) and same(first, second)
    assert [path.suffix for path in files(cache)] == [".safetensors"]


def test_no_cache_folder_writes_nothing(
    features: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: list[int]
) -> None:
    monkeypatch.chdir(tmp_path)
    item_knn_graph(features, 5)
    item_knn_graph(features, 5, None)
    assert built == [5, 5]
    assert files(tmp_path) == []


def test_every_input_has_its_own_file(
    features: torch.Tensor, tmp_path: Path, built: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    item_knn_graph(features, 5, tmp_path)
    changed = features.clone()
    changed[3, 3] = changed[3, 3].nextafter(torch.tensor(2.0))  # one bit
    item_knn_graph(changed, 5, tmp_path)
    item_knn_graph(features, 6, tmp_path)
    item_knn_graph(features.double(), 5, tmp_path)
    item_knn_graph(features.reshape(60, 3), 5, tmp_path)
    monkeypatch.setattr(graph_cache, "FORMAT_VERSION", 99)
    item_knn_graph(features, 5, tmp_path)
    monkeypatch.setattr(graph_cache, "__version__", "99.0")
    item_knn_graph(features, 5, tmp_path)
    assert built == [5, 5, 6, 5, 5, 5, 5]
    assert len(files(tmp_path)) == 7


def test_layout_of_the_features_does_not_matter(features: torch.Tensor, tmp_path: Path, built: list[int]) -> None:
    item_knn_graph(features, 5, tmp_path)
    item_knn_graph(features.t().contiguous().t(), 5, tmp_path)
    item_knn_graph(features.clone().requires_grad_(), 5, tmp_path)
    assert built == [5]


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_text(path: Path) -> None:
    path.write_bytes(b"not a graph " * 40)


def damage_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def rewrite(path: Path, change_metadata: dict[str, str] | None = None, drop: str = "", **tensors: torch.Tensor) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata()) | (change_metadata or {})
        parts = {name: file.get_tensor(name).clone() for name in file.keys() if name != drop}  # noqa: SIM118
    save_file(parts | tensors, path, metadata=metadata)


def damage_k(path: Path) -> None:
    rewrite(path, {"k": "7"})


def damage_missing_part(path: Path) -> None:
    rewrite(path, drop="weight")


def damage_no_metadata(path: Path) -> None:
    save_file({"rowptr": torch.zeros(31), "col": torch.zeros(1), "weight": torch.zeros(1)}, path)


def damage_other_graph(path: Path) -> None:
    parts = {"rowptr": torch.zeros(5, dtype=torch.int32), "col": torch.zeros(0), "weight": torch.zeros(0)}
    rewrite(path, {"content_sha256": kept.content_hash(parts)}, **parts)


def damage_with_its_checksum(path: Path, **parts: torch.Tensor) -> None:
    with safe_open(path, framework="pt") as file:
        whole = {name: file.get_tensor(name) for name in ("rowptr", "col", "weight")} | parts
    rewrite(path, {"content_sha256": kept.content_hash(whole)}, **parts)


def damage_dtype(path: Path) -> None:
    damage_with_its_checksum(path, col=torch.zeros(150))


def damage_weight_dtype(path: Path) -> None:
    damage_with_its_checksum(path, weight=torch.ones(150, dtype=torch.float64))


def damage_rowptr(path: Path) -> None:
    rowptr = torch.arange(0, 155, 5, dtype=torch.int32)
    rowptr[7] = -(10**9)
    damage_with_its_checksum(path, rowptr=rowptr)


def damage_columns(path: Path) -> None:
    damage_with_its_checksum(path, col=torch.full((150,), 30, dtype=torch.int32))


def damage_more_tensors(path: Path) -> None:
    rewrite(path, more=torch.zeros(1))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (
            damage_dtype,
            "expected integer indices and weights of torch.float32, got rowptr torch.int32, col torch.float32",
        ),
        (damage_weight_dtype, "weight torch.float64"),
        (damage_rowptr, "expected rowptr to ascend from 0 to 150"),
        (damage_columns, ""),
        (damage_more_tensors, "expected the tensors rowptr, col, weight, got col, more, rowptr, weight"),
        (damage_truncate, ""),
        (damage_empty, ""),
        (damage_text, ""),
        (damage_one_bit, "does not match its checksum"),
        (damage_k, "its k differ"),
        (damage_missing_part, "weight"),
        (damage_no_metadata, "differ from what its name stands for"),
        (damage_other_graph, "expected the parts of a graph of 30 items, got rowptr (5,)"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_rebuilt(
    features: torch.Tensor,
    tmp_path: Path,
    built: list[int],
    caplog: pytest.LogCaptureFixture,
    damage,
    reason: str,
) -> None:
    first = item_knn_graph(features, 5, tmp_path)
    (path,) = files(tmp_path)
    damage(path)
    assert same(item_knn_graph(features, 5, tmp_path), first)
    assert built == [5, 5]
    assert str(path) in caplog.text and "rebuilt" in caplog.text and reason in caplog.text
    assert files(tmp_path) == [path]
    caplog.clear()
    assert same(item_knn_graph(features, 5, tmp_path), first)
    assert built == [5, 5] and caplog.text == ""


def test_failed_write_leaves_nothing_behind(
    features: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.os, "replace", full)
    graph = item_knn_graph(features, 5, tmp_path)
    assert same(graph, Graph.knn(features, 5))
    assert files(tmp_path) == []
    assert "could not be cached" in caplog.text and "No space left" in caplog.text


def test_cache_folder_that_is_a_file(features: torch.Tensor, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert same(item_knn_graph(features, 5, tmp_path / "file"), Graph.knn(features, 5))
    assert "could not be cached" in caplog.text


def test_leftovers_of_killed_writers_are_deleted(features: torch.Tensor, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    ).stdout
    dead, living, elsewhere = (
        tmp_path / f".{machine}.{number}.0123.tmp"
        for machine, number in (
            (kept.writer("knn"), int(ended)),
            (kept.writer("knn"), os.getppid()),
            ("knn-elsewhere", int(ended)),
        )
    )
    for path in (dead, living, elsewhere):
        path.write_bytes(b"half")
    item_knn_graph(features, 5, tmp_path)
    assert [path.exists() for path in (dead, living, elsewhere)] == [False, True, True]


def test_a_cache_that_cannot_be_read_costs_a_warning(
    features: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert same(item_knn_graph(features, 5, tmp_path), Graph.knn(features, 5))
    assert "Permission denied" in caplog.text


def _work(folder: Path, features: torch.Tensor, results: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    # a later round deletes the files, so that reading and writing meet
    for round_ in range(20):
        graph = item_knn_graph(features, 5, folder)
        results.put(graph.weight.double().sum().item())
        if round_ % 4 == 3:
            for path in folder.glob("*.safetensors"):
                path.unlink(missing_ok=True)


def test_two_processes_at_once(features: torch.Tensor, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    results = context.Queue()
    workers = [context.Process(target=_work, args=(tmp_path, features, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = {results.get(timeout=120) for _ in range(40)}
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    assert sums == {Graph.knn(features, 5).weight.double().sum().item()}
    assert not [path for path in files(tmp_path) if path.suffix != ".safetensors"]
