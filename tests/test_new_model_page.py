"""`docs/new-model.md`: what it shows is complete, and trains."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from smore_ext import evaluate, export, recommend, train
from smore_ext.training import checkpoint

PAGE = Path(__file__).resolve().parents[1] / "docs" / "new-model.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's first block, and all of them, as modules that are found as a user's would be."""
    (tmp_path / "one_model.py").write_text(BLOCKS[0])
    (tmp_path / "my_models.py").write_text("\n\n".join(BLOCKS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with tiny.one_thread():
        yield
    for name in ("one_model", "my_models", "with_a_sampler"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), features=True)


def run(model: str, data: Path, *more: str) -> dict:
    flags = ["--epochs", "4", "--batch-size", "16", "--lr", "0.05", "-q", "-o", "run", "--overwrite", *more]
    assert train.main(["--model", model, "-d", "tiny", "--data-path", str(data), *flags]) == 0
    return json.loads(Path("run/result.json").read_text())


def test_the_first_model_is_short_and_trains(data: Path) -> None:
    assert len(BLOCKS[0].splitlines()) < 60
    result = run("one_model:VBPR", data, "--embedding-dim", "8", "--reg-weight", "1e-3", "--epochs", "20")
    assert result["validation"]["recall@20"] > 0.8  # half of the 40 items are right for a user; chance is about 0.5
    losses = [json.loads(line)["loss"]["bpr"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0]
    config = result["config"]
    assert (config["model"]["embedding_dim"], config["train"]["batch_size"]) == (8, 16)
    assert result["warnings"] == []


def test_its_settings_are_flags(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("my_models:ItemKNN", data, "--neighbours", "7")["config"]["model"]["neighbours"] == 7
    capsys.readouterr()
    assert train.main(["-m", "my_models:ItemKNN", "--help"]) == 0
    assert "--neighbours INT items that vote for an item; default 10" in " ".join(capsys.readouterr().out.split())
    assert train.main(["--model=my_models:ItemKNN", "--neigbours", "7"]) == 2
    assert "unknown flag --neigbours; did you mean --neighbours?" in capsys.readouterr().err


def test_a_configuration_that_extends_another_keeps_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["-m", "my_models:EdgeDropping", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--kept NUMBER share of the edges that an epoch trains on; default 0.2" in told
    assert "--n-ui-layers INT layers over the user-item graph; 0 is matrix factorisation; default 2" in told


@pytest.mark.parametrize("model", ["EdgeDropping", "LatentGraph", "Bootstrapped", "ItemKNN"])
def test_the_other_models_train_resume_and_recommend(model: str, data: Path) -> None:
    result = run(f"my_models:{model}", data)
    assert (result["epochs_run"], result["stopped"]) == ((1, "closed form") if model == "ItemKNN" else (4, "epochs"))
    assert result["warnings"] == []  # what they evaluate with is in their checkpoint
    assert evaluate.main(["run", "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["test"] == result["test"]
    assert recommend.main(["run", "--user", "3", "--k", "5"]) == 0
    assert export.main(["run", "-o", "out.safetensors"]) == 0
    whole = checkpoint.load(Path("run/last.safetensors"))[0]
    run(f"my_models:{model}", data, "--epochs", "2")
    assert train.main(["--resume", "run", "--epochs", "4", "-q"]) == 0
    resumed = checkpoint.load(Path("run/last.safetensors"))[0]
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_readers_metrics_and_samplers(data: Path) -> None:
    rows = [
        f"{user} {item} {label}" for label, split in enumerate(tiny.interactions().values()) for user, item in split
    ]
    Path("mine.txt").write_text("\n".join(rows) + "\n")
    text = 'from my_models import EdgeDropping\n\nclass Any(EdgeDropping):\n    sampler = "my_models:AnyItem"\n'
    Path("with_a_sampler.py").write_text(text)
    chosen = ["--metrics", "recall,my_models:long_tail", "--select-by", "my_models:long_tail@7", "-q", "-o", "run"]
    where = ["-d", "mine", "--data-path", ".", "--reader", "my_models:read_pairs"]
    assert train.main(["--model", "with_a_sampler:Any", "--epochs", "2", *where, *chosen]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["selected_by"] == "my_models:long_tail@7 on validation"
    assert set(result["test"]) == {
        f"{name}@{k}" for name in ("recall", "my_models:long_tail") for k in (5, 7, 10, 20, 50)
    }
    assert result["data"]["interactions"] == {"train": 150, "valid": 30, "test": 30}
