"""What other programs are told of a run: the numbers of its log; a missing one stops it, one that fails does not."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tiny import write_dataset

from smore_ext import train
from smore_ext.runs.trackers import TRACKERS, numbers_of


def flags(data: Path, run: Path, *more: str) -> list[str]:
    own = ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "--epochs", "3", "--embedding-dim", "4"]
    return [*own, "-o", str(run), *more]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class FakeWandb(types.ModuleType):
    """Keeps what it is told; `fails` after some epochs."""

    def __init__(self, fails: int | None = None) -> None:
        super().__init__("wandb")
        self.started: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}
        self.finished, self.fails = False, fails
        self.api = types.SimpleNamespace(api_key=None)

    def init(self, **given: Any) -> FakeWandb:
        self.started = given
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        if step == self.fails:
            raise ConnectionError("the server is gone")
        self.logged.append((step, numbers))

    def finish(self) -> None:
        self.finished = True


def test_wandb(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    assert train.main(flags(data, tmp_path / "run", "--wandb")) == 0
    told = lines(tmp_path / "run")
    assert fake.logged == [(line["epoch"], {**numbers_of(line), "epoch": line["epoch"]}) for line in told]
    assert "validation/recall@20" in fake.logged[0][1] and fake.finished
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert fake.summary["test/recall@20"] == result["test"]["recall@20"]
    assert (fake.started["mode"], fake.started["project"], fake.started["name"]) == ("offline", "smore_ext", "run")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert (
        train.main(flags(data, tmp_path / "run", "--wandb", "--overwrite")) == 0 and fake.started["mode"] == "disabled"
    )


def test_one_that_fails_is_told_once_and_training_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb(fails=1)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.warns(RuntimeWarning, match="Weights & Biases is not told any more: the server is gone") as told:
        assert train.main(flags(data, tmp_path / "run", "--wandb")) == 0
    assert len(told) == 1 and len(fake.logged) == 1 and len(lines(tmp_path / "run")) == 3
    assert (tmp_path / "run" / "result.json").is_file()


def test_one_that_cannot_begin_is_an_error(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeWandb()

    def init(**_: Any) -> None:
        raise LookupError("no such\nproject")

    fake.init = init  # type: ignore[assignment, method-assign]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert train.main(flags(data, tmp_path / "run", "--wandb")) == 2
    assert "error: Weights & Biases cannot be told of the run: no such project" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "module", "message"),
    [
        ("wandb", "wandb", "pip install wandb"),
        ("mlflow", "mlflow.tracking", "pip install mlflow"),
        ("tensorboard", "torch.utils.tensorboard", "pip install tensorboard"),
    ],
)
def test_one_that_is_missing_is_an_error(
    flag: str, module: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    assert train.main(flags(data, tmp_path / "run", f"--{flag}")) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run" / "metrics.jsonl").exists()
    assert flag in TRACKERS


class FakeMlflow(types.ModuleType):
    """`mlflow.tracking`, whose one client keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("mlflow.tracking")
        self.where = ""
        self.params: dict[str, str] = {}
        self.metrics: list[tuple[str, float, int]] = []
        self.ended: list[str] = []

    def MlflowClient(self, where: str) -> FakeMlflow:
        self.where = where
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return f"id of {name}"

    def create_run(self, experiment: str, run_name: str) -> Any:
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"{run_name} in {experiment}"))

    def log_param(self, run: str, name: str, value: str) -> None:
        self.params[name] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        assert run == "run in id of smore_ext" and "@" not in name
        self.metrics.append((name, value, step))

    def set_terminated(self, run: str) -> None:
        self.ended.append(run)


def test_mlflow_is_told_the_numbers_of_the_log(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", fake)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert train.main(flags(data, tmp_path / "run", "--mlflow")) == 0
    assert fake.where == f"sqlite:///{(tmp_path / 'run').resolve()}/mlflow.db" and fake.ended
    told = [(value, step) for name, value, step in fake.metrics if name == "validation/recall_at_20"]
    assert told == [(line["validation"]["recall@20"], line["epoch"]) for line in lines(tmp_path / "run")]
    assert "LightGCN" in fake.params.values()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert (
        train.main(flags(data, tmp_path / "run", "--mlflow", "--overwrite")) == 0 and fake.where == "http://elsewhere"
    )


def test_the_real_mlflow(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    pytest.importorskip("sqlalchemy")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    run = tmp_path / "run"
    assert train.main(flags(data, run, "--mlflow")) == 0
    client = tracking.MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "smore_ext"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "run" and found.info.status == "FINISHED"
    assert "LightGCN" in (found.data.params.get("train.model"), found.data.params.get("model"))
    history = client.get_metric_history(found.info.run_id, "validation/recall_at_20")
    assert [(m.step, m.value) for m in history] == [(x["epoch"], x["validation"]["recall@20"]) for x in lines(run)]
    assert train.main(flags(data, run, "--overwrite")) == 0 and not (run / "mlflow.db").exists()
