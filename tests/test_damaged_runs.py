"""What a run reads back from the disk is checked before it is used: one line says which file, what and where."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from smore_ext import evaluate, export, recommend, runs, train
from smore_ext.models import MODELS
from smore_ext.runs.records import logged, read_result
from smore_ext.settings.fields import ConfigError
from smore_ext.training import checkpoint
from smore_ext.training.checkpoint import CheckpointError
from smore_ext.training.digest import digest_tensors
from smore_ext.training.events import Event, StepsDone

pytestmark = pytest.mark.usefixtures("command_surroundings")
LAST, BEST = "last.safetensors", "best.safetensors"


@pytest.fixture(autouse=True)
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)
    yield


def no_step(event: Event) -> None:
    assert not isinstance(event, StepsDone), "a step was taken"


def resume(path: Path, listener: Any = no_step) -> Any:
    return runs.train(tiny.tiny_config(epochs=3), tiny.tiny_dataset(), path, [listener], resume=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test changes."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "Tiny", tiny.Tiny)
        runs.train(tiny.tiny_config(epochs=2), tiny.tiny_dataset(), path)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


# Bits


def test_any_flipped_bit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    tensors = {"a": torch.randn(50, generator=torch.Generator().manual_seed(1)), "b": torch.arange(3)}
    checkpoint.save(path, tensors, {"n": 1, "names": ["x", "y"]})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
        try:
            loaded, metadata = checkpoint.load(path)
        except CheckpointError:
            continue
        assert metadata == {"n": 1, "names": ["x", "y"]}, place  # as a blank that became a line's end
        assert all(torch.equal(loaded[name], tensors[name]) for name in tensors | loaded), place


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.bool])
@pytest.mark.parametrize("size", [0, 1, 1023, 8192, 20_001])
def test_the_digest_sees_every_element_and_the_places_of_blocks(dtype: torch.dtype, size: int) -> None:
    tensor = torch.randint(0, 2, (size,), generator=torch.Generator().manual_seed(size)).to(dtype)
    whole = digest_tensors({"a": tensor})
    for place in {0, size // 3, size - 1} if size else ():
        other = tensor.clone()
        other[place] = 1 - other[place].float() if dtype != torch.bool else ~other[place]
        assert digest_tensors({"a": other}) != whole
    words = torch.cat([torch.ones(1024, dtype=torch.int64), torch.zeros(1024, dtype=torch.int64)])
    assert digest_tensors({"a": words}) != digest_tensors({"a": words.flip(0)})
    assert digest_tensors({"b": tensor}) != whole and digest_tensors({"a": tensor.reshape(1, -1)}) != whole


def save_as_before(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """As versions before digests wrote it, which do not say what was stepped."""
    known = {name: value for name, value in metadata.items() if name not in ("stepped", "settings_from")}
    checkpoint.write_tensors(path, tensors, {"format": checkpoint.FORMAT, "smore_ext": json.dumps(known)})


def test_checkpoints_of_earlier_versions_load(run: Path) -> None:
    """They have no digests, and do not say which parameters have moments."""
    expected = resume(run, lambda event: None)["test"]
    for name in (LAST, BEST):
        save_as_before(run / name, *checkpoint.load(run / name))
    assert runs.load_run(run, dataset=tiny.tiny_dataset()).evaluate("mmrec")["test"] == expected
    (run / "result.json").unlink()
    assert resume(run)["test"] == expected


# Tensors


def without(name: str) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.pop(name)


def replaced(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: change(tensors[name])})


MOMENT = "optimizer.user.exp_avg"
TENSORS = [
    pytest.param(without("model.user"), r"user is None, expected \(30, 4\)", id="no weight"),
    pytest.param(replaced("model.user", lambda t: t[:-1]), r"user is \(29, 4\), expected \(30, 4\)", id="rows"),
    pytest.param(replaced("model.user", Tensor.long), "user is int64, expected float32", id="integers"),
    pytest.param(replaced("model.user", Tensor.double), "user is float64, expected float32", id="doubles"),
    pytest.param(without(MOMENT), rf"{MOMENT} is None, expected \(30, 4\)", id="no moment"),
    pytest.param(replaced(MOMENT, lambda t: t[:1]), rf"{MOMENT} is \(1, 4\), expected \(30, 4\)", id="small moment"),
    pytest.param(replaced(MOMENT, Tensor.double), f"{MOMENT} is float64, expected float32", id="moment of doubles"),
    pytest.param(
        replaced("optimizer.item.step", lambda t: t[None]), r"item.step is \(1,\), expected \(\)", id="vector of steps"
    ),
    pytest.param(
        lambda tensors: [tensors.pop(f"optimizer.item.{m}") for m in ("step", "exp_avg", "exp_avg_sq")],
        r"optimizer.item.exp_avg is None, expected \(40, 4\)",
        id="no moments of a parameter",
    ),
    pytest.param(
        lambda tensors: tensors.update({"optimizer.item.more": torch.ones(2)}),
        r"item.more is \(2,\), expected None",
        id="another moment",
    ),
    pytest.param(
        lambda tensors: tensors.update({"optimizer.else.step": torch.ones(())}),
        r"optimizer.else.step is \(\), expected None",
        id="moment of nothing",
    ),
    pytest.param(without("rng.cpu"), r"rng.cpu is None, expected \(5056,\)", id="no generator"),
    pytest.param(replaced("rng.cpu", lambda t: t[1:]), r"rng.cpu is \(5055,\)", id="short generator"),
    pytest.param(replaced("rng.cpu", lambda t: t * 0), "no state of a generator", id="dead generator"),
    pytest.param(lambda tensors: tensors.update({"x": torch.ones(1)}), r"x is \(1,\), expected None", id="more"),
]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("change", "message"), TENSORS)
def test_every_tensor_of_the_last_checkpoint_is_checked(
    run: Path, change: Callable[[dict[str, Tensor]], object], message: str, old: bool
) -> None:
    tensors, metadata = checkpoint.load(run / LAST)
    change(tensors)
    if old and "optimizer.item.exp_avg is None" in message:
        return  # as far as these say, no step has reached the parameter
    (save_as_before if old else checkpoint.save)(run / LAST, tensors, metadata)
    with pytest.raises(CheckpointError, match=message):
        resume(run)


def test_steps_without_any_moments_are_no_start(run: Path) -> None:
    tensors, metadata = checkpoint.load(run / LAST)
    save_as_before(run / LAST, {k: v for k, v in tensors.items() if not k.startswith("optimizer.")}, metadata)
    with pytest.raises(CheckpointError, match="holds no moments, and 20 steps were taken"):
        resume(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("user"), r"user is None, expected \(30, 4\)"),
        (replaced("item", lambda t: t[1:]), r"item is \(39, 4\), expected \(40, 4\)"),
        (replaced("item", Tensor.long), "item is int64, expected float32"),
        (lambda tensors: tensors.update({"x": torch.ones(1)}), r"x is \(1,\), expected None"),
    ],
)
def test_every_tensor_of_the_best_checkpoint_is_checked(
    run: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    tensors, metadata = checkpoint.load(run / BEST)
    change(tensors)
    checkpoint.save(run / BEST, tensors, metadata)
    with pytest.raises(CheckpointError, match=message):
        runs.load_run(run, dataset=tiny.tiny_dataset())


# Metadata


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where something is in nested dicts, up to what has names of its own."""
    for name, entry in value.items():
        yield (*path, name)
        if isinstance(entry, dict) and name not in ("validation", "test", "early", "versions", "config"):
            yield from places(entry, (*path, name))


def changed(metadata: Any, place: tuple[str, ...], change: str) -> Any:
    out = json.loads(json.dumps(metadata))
    owner = out
    for name in place[:-1]:
        owner = owner[name]
    if change == "missing":
        del owner[place[-1]]
    else:
        owner[place[-1]] = {"text": "x", "none": None, "list": [1], "mapping": {"a": {"b": 1}}, "huge": 10**40}[change]
    return out


@pytest.mark.parametrize("change", ["missing", "text", "none", "list", "mapping", "huge"])
@pytest.mark.parametrize("file", [LAST, BEST])
def test_metadata_are_checked(run: Path, file: str, change: str) -> None:
    """Whatever is missing or of another type: an error of one line, or a value that has a default, never another."""
    tensors, metadata = checkpoint.load(run / file)
    for place in places(metadata):
        checkpoint.save(run / file, tensors, changed(metadata, place, change))
        for use in (lambda: runs.load_run(run, dataset=tiny.tiny_dataset()), lambda: resume(run, lambda event: None)):
            with tiny.one_thread():
                try:
                    use()
                except (CheckpointError, ConfigError) as error:
                    assert str(run / file) in str(error), (place, error)


@pytest.mark.parametrize("change", ["missing", "text"])
@pytest.mark.parametrize(
    "place", ["config", "data.fingerprint", "progress", "progress.next_epoch", "progress.best_epoch"]
)
def test_metadata_that_decide_are_named(run: Path, place: str, change: str) -> None:
    tensors, metadata = checkpoint.load(run / LAST)
    if change == "missing" and place.startswith("progress."):
        return  # these have defaults
    checkpoint.save(run / LAST, tensors, changed(metadata, tuple(place.split(".")), change))
    what = "is missing" if change == "missing" else ": (not made|expected)"
    with pytest.raises(CheckpointError, match=rf"last.safetensors( is damaged: its metadata: {place} ?)?{what}"):
        resume(run)


def test_metadata_that_contradict_each_other(run: Path) -> None:
    tensors, metadata = checkpoint.load(run / LAST)
    for change, message in (
        ({"best_epoch": 7}, "expected a best epoch before the next, 2, got 7"),
        ({"next_epoch": -1}, "progress.next_epoch: expected greater than or equal to 0, got -1"),
        ({"validation": {}}, "its metadata lack validation recall@20"),
    ):
        checkpoint.save(run / LAST, tensors, metadata | {"progress": metadata["progress"] | change})
        with pytest.raises(CheckpointError, match=message):
            resume(run)


def test_a_header_of_nested_lists(tmp_path: Path) -> None:
    text = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    checkpoint.write_tensors(tmp_path / "x", {}, {"format": checkpoint.FORMAT, "smore_ext": text})
    with pytest.raises(CheckpointError, match="x is damaged"):
        checkpoint.load(tmp_path / "x")
    checkpoint.write_tensors(tmp_path / "x", {}, {"format": checkpoint.FORMAT, "smore_ext": "[]"})
    with pytest.raises(CheckpointError, match="expected metadata as names and values, got list"):
        checkpoint.load(tmp_path / "x")


# result.json, metrics.jsonl


@pytest.mark.parametrize("change", ["missing", "text", "none", "list", "mapping"])
def test_a_result_is_checked(run: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "result.json"
    result = json.loads(path.read_text())
    for place in places(result):
        path.write_text(json.dumps(changed(result, place, change)))
        for use in (lambda: runs.load_run(run, dataset=tiny.tiny_dataset()), lambda: resume(run, lambda event: None)):
            try:
                use()
            except (ConfigError, CheckpointError) as error:
                assert f"{path}" in str(error), place
            path.write_text(json.dumps(changed(result, place, change)))
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"result.json is damaged"):
        read_result(path)
    path.write_text(json.dumps({name: value for name, value in result.items() if name != "stopped"}))
    with pytest.raises(ConfigError, match=r"result.json is damaged: stopped is missing; delete it"):
        read_result(path)


@pytest.mark.parametrize("line", [b"{", b"3", b"{}", b'{"epoch": "x"}', b"\xff", b"[" * 100_000])
def test_a_damaged_log_names_the_line(run: Path, line: bytes) -> None:
    path = run / "metrics.jsonl"
    first, second = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + line + b"\n" + second + b"\n")
    with pytest.raises(ConfigError, match=r"metrics.jsonl, line 2 is damaged"):
        resume(run)
    path.write_bytes(first + b"\n" + second)  # a killed process left half of it
    assert [epoch for _, epoch in logged(path)] == [0]


# Files that are none, or cannot be read


@pytest.mark.parametrize("name", ["config.yaml", "result.json", "metrics.jsonl", LAST, BEST])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_missing_file(
    run: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / name
    path.unlink()
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    assert (
        train.main(["--resume", str(run), "--data-path", str(tiny.write_dataset(run / "data")), "--epochs", "3"]) == 2
    )
    err = capsys.readouterr().err
    assert str(path) in err and f"is a {kind}" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("command", [evaluate, recommend, export, train])
def test_a_file_that_may_not_be_read_is_not_called_missing(
    finished: Path, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:  # pytest's folders are their owner's
        run = shutil.copytree(finished, Path(open_to_all) / "run")
        os.chmod(open_to_all, 0o755)
        data = tiny.write_dataset(Path(open_to_all) / "data")
        (run / BEST).chmod(0)
        (run / LAST).chmod(0)
        root = os.geteuid() == 0  # who may read anything
        calls = {recommend: ["--user", "1"], export: ["-o", "x"], evaluate: []}
        if root:
            os.seteuid(65534)
        try:
            more = ["--data-path", str(data)]
            call = [str(run), *calls[command]] if command is not train else ["--resume", str(run), "--epochs", "3"]
            assert command.main([*call, *more]) == 2
        finally:
            if root:
                os.seteuid(0)
    err = capsys.readouterr().err
    assert "Permission denied" in err and len(err.splitlines()) == 1
