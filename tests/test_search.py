"""Searches: what is varied, that the best is chosen on validation, pruning, stopping and going on, and bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smore_ext import runs
from smore_ext.experiments import search as engine
from smore_ext.experiments.search import search
from smore_ext.experiments.space import Choices, Range, first, grid, of_file, of_section, parse
from smore_ext.models import LightGCNConfig, SMOREConfig
from smore_ext.runs.config_files import load_preset, preset_names, resolve
from smore_ext.search import main
from smore_ext.settings.config import Layer, RunConfig, merge
from smore_ext.settings.fields import ConfigError

optuna = pytest.importorskip("optuna")
DATA = "n_users=60,n_items=50,n_interactions=500"
BASE = {"model": "LightGCN", "epochs": 3, "threads": 1, "dataset_options": DATA}


def config_of(own: Mapping[str, Any]) -> RunConfig:
    return runs.resolve(BASE | dict(own))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cl-weight=0, 0.001,0.01", {"cl_weight": Choices(("0", "0.001", "0.01"))}),
        ("reg_weight=1e-5..1e-2:log", {"reg_weight": Range(1e-5, 1e-2, True, False)}),
        ("n_ui_layers=1..4", {"n_ui_layers": Range(1, 4, False, True)}),
        ("lr=0.1..0.5", {"lr": Range(0.1, 0.5, False, False)}),
        ("lr=1..1e3:log", {"lr": Range(1, 1000, True, False)}),
    ],
)
def test_spaces(text: str, expected: Any) -> None:
    assert parse([text]) == expected


@pytest.mark.parametrize(
    "texts", [["lr"], ["lr="], ["=1"], ["lr=2..1"], ["lr=0..1:log"], ["lr=a..b"], ["lr=1..inf"], ["lr=1", "lr=2"]]
)
def test_bad_spaces(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="--space: "):
        parse(texts)


def test_presets_and_files_say_what_to_vary(tmp_path: Path) -> None:
    layer = Layer("file a", {"search": {"reg_weight": ["1e-4", "1e-3"], "cl-weight": "0, 0.1", "lr": "1e-4..1e-2:log"}})
    space = of_section(layer)
    assert space["reg_weight"] == Choices(("1e-4", "1e-3")) and space["cl_weight"] == Choices(("0", "0.1"))
    assert space["lr"] == Range(1e-4, 1e-2, True, False)
    assert of_section(Layer("file a", {"lr": "1"})) == of_section(Layer("file a", {"search": None})) == {}
    assert merge([Layer("file a", {"search": None, "lr": "0.5"})]).train.lr == 0.5  # empty, for a run as for a search
    with pytest.raises(ConfigError, match=r"file a, search: lr: expected low\.\.high"):
        of_section(Layer("file a", {"search": {"lr": "2..1"}}))
    with pytest.raises(ConfigError, match="file a: search: expected settings as `name: value`"):
        of_section(Layer("file a", {"search": "lr"}))
    for name in preset_names():
        spaces = of_section(load_preset(name))
        for own in grid({n: p for n, p in spaces.items() if isinstance(p, Choices)}):  # none is refused
            resolve({n: first(part) for n, part in spaces.items()} | own, preset=name)


def test_a_search_of_a_files_own_ranges(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: LightGCN\nepochs: 1\nthreads: 1\nsearch:\n  n_ui_layers: 1, 2\n  lr: [0.01, 0.02]\n")
    flags = ["--config", str(file), "--dataset-options", DATA, "--sampler", "grid", "--lr", "0.03"]
    assert main([*flags, "-o", str(tmp_path / "a")]) == 0
    rows = list(csv.DictReader((tmp_path / "a" / "search.csv").open()))
    assert sorted(row["n_ui_layers"] for row in rows) == ["1", "2"] and "lr" not in rows[0]  # a flag is for all
    assert runs.resolve({}, config_file=file).train.epochs == 1  # a run of the same file does not vary
    assert main([*flags, "--space", "n_ui_layers=3", "-o", str(tmp_path / "b")]) == 0  # in place of the section
    rows = list(csv.DictReader((tmp_path / "b" / "search.csv").open()))
    assert [row["n_ui_layers"] for row in rows] == ["3"] and "lr" not in rows[0]


def test_a_file_fixes_what_a_preset_would_vary(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("epochs: 1\nthreads: 1\ndataset: synthetic\nmodel: FREEDOM\nedge_dropout: 0.5\n")
    flags = ["--preset", "freedom-baby", "--config", str(file), "--dataset-options", DATA, "--trials", "1"]
    assert main([*flags, "-o", str(tmp_path / "a")]) == 0
    (row,) = csv.DictReader((tmp_path / "a" / "search.csv").open())
    assert "edge_dropout" not in row and float(row["feature_weight"]) in (0, 1e-5, 1e-4, 1e-3)


def test_grids_of_mmrecs_files() -> None:
    values = {
        "hyper_parameters": ["reg_loss", "cl_loss", "seed", "n_layers"],
        "reg_loss": ["1e-4", "1e-3"],
        "cl_loss": ["0.01"],
        "seed": ["1", "2"],
        "n_layers": ["1", "2"],
    }
    assert of_file(values, SMOREConfig) == {"reg_weight": Choices(("1e-4", "1e-3")), "n_mm_layers": Choices(("1", "2"))}
    assert of_file({"reg_loss": ["1", "2"]}, LightGCNConfig) == {}


def test_a_grid_is_all_of_it_and_the_best_is_that_of_validation(tmp_path: Path) -> None:
    space = parse(["n_ui_layers=0,2", "lr=0.001,0.05"])
    assert len(grid(space)) == 4
    told: list[str] = []
    found = search(config_of, space, tmp_path, trials=50, sampler="grid", prune=False, tell=told.append)
    assert len(found.rows) == len(told) == 4 and {row.state for row in found.rows} == {"done"}
    assert {tuple(row.settings.values()) for row in found.rows} == {tuple(one.values()) for one in grid(space)}
    values = [row.value for row in found.rows]
    assert values == sorted(values, reverse=True) and found.best == found.rows[0]
    for row in found.rows:
        result = runs.read_result(tmp_path / "trials" / f"{row.number:04}" / "result.json")
        assert result["validation"][found.metric] == row.value and result["best_epoch"] == row.best_epoch
        assert str(result["config"]["train"]["lr"]) == row.settings["lr"]
        if row == found.best:
            assert found.test == result["test"]
    again = search(config_of, space, tmp_path, trials=50, sampler="grid", prune=False, tell=told.append)
    assert again.rows == found.rows and len(told) == 4  # nothing was left to do


def test_a_search_goes_on_with_more_trials_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse(["lr=1e-3..1e-1:log", "n_ui_layers=1..3"])
    whole = engine.run_jobs

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    search(config_of, space, tmp_path, trials=2, jobs=2)
    monkeypatch.setattr(engine, "run_jobs", killed)
    with pytest.raises(KeyboardInterrupt):
        search(config_of, space, tmp_path, trials=4)
    monkeypatch.setattr(engine, "run_jobs", whole)
    found = search(config_of, space, tmp_path, trials=4)
    assert len(found.rows) == 4 and {row.state for row in found.rows} <= {"done", "pruned"}
    assert all(1e-3 <= row.settings["lr"] <= 0.1 and row.settings["n_ui_layers"] in (1, 2, 3) for row in found.rows)
    assert len({row.settings["lr"] for row in found.rows}) == 4
    with pytest.raises(ConfigError, match=r"holds a search with other settings \(base train.batch_size\)"):
        search(lambda own: config_of({"batch_size": 7, **own}), space, tmp_path, trials=5)


def test_what_is_below_the_others_is_stopped(tmp_path: Path) -> None:
    """Trials of a rate that learns nothing, after some that do."""

    def long(own: Mapping[str, Any]) -> RunConfig:
        return config_of({"epochs": 30, "patience": 30, **own})

    space = parse(["lr=0.02,0.021,0.022,0.023,0.0000000001"])
    found = search(long, space, tmp_path, trials=5, sampler="grid")
    states = {row.settings["lr"]: row.state for row in found.rows}
    assert states.pop("0.0000000001") == "pruned" and set(states.values()) == {"done"}


def test_a_trial_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    space = parse(["lr=0.01,1e30"])
    found = search(config_of, space, tmp_path, trials=2, sampler="grid", prune=False)
    assert [row.state for row in found.rows] == ["done", "failed"]
    assert "not finite" in found.rows[1].why or "NaN" in found.rows[1].why


def test_the_command_writes_a_table_a_file_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "s"
    flags = ["-m", "LightGCN", "--dataset-options", DATA, "--epochs", "2", "--threads", "1", "-o", str(folder)]
    space = ["--space", "lr=0.001,0.05", "--sampler", "grid"]
    assert main([*flags, *space]) == 0
    out = capsys.readouterr().out
    assert "best on validation: --lr 0.05" in out and "its test recall@20" in out
    rows = list(csv.DictReader((folder / "search.csv").open()))
    assert [row["lr"] for row in rows] == ["0.05", "0.001"]
    assert json.loads((folder / "search.json").read_text())["best"]["settings"] == {"lr": "0.05"}
    assert (folder / "search.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "search: expected settings to vary"),
        (["--space", "lrr=1,2"], "unknown setting; did you mean 'lr'"),
        (["--space", "lr=1,x"], "lr: expected"),
        (["--space", "epochs=0..3"], "epochs"),
        (["--space", "lr=0.1..1", "--sampler", "grid"], "--sampler grid: expected values to choose from"),
        (["--space", "lr=1,2", "--sampler", "luck"], "luck"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "LightGCN", *flags, "-o", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


# What a review found.


def test_several_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one seed, got 1, 2"):
        search(lambda own: config_of({"seeds": "1,2", **own}), parse(["lr=0.1,0.2"]), tmp_path / "s", trials=1)
    assert not (tmp_path / "s").exists()


def test_values_that_do_not_go_together_are_a_failed_trial(tmp_path: Path) -> None:
    def smore(own: Mapping[str, Any]) -> RunConfig:
        return runs.resolve({**BASE, "model": "SMORE", "epochs": 1, "knn_k": 3, **own})

    found = search(
        smore, parse(["embedding_dim=64,8", "spectral=4,33"]), tmp_path, trials=9, sampler="grid", prune=False
    )
    states = {(row.settings["embedding_dim"], row.settings["spectral"]): row.state for row in found.rows}
    assert states.pop(("8", "33")) == "failed" and list(states.values()) == ["done"] * 3
    assert "spectral must be" in found.rows[-1].why


def test_one_search_at_a_time_and_one_data_set(tmp_path: Path) -> None:
    space = parse(["lr=0.01,0.02"])
    with engine.locked(tmp_path), pytest.raises(runs.RunInUse):
        search(config_of, space, tmp_path, trials=1)
    search(config_of, space, tmp_path, trials=1)
    with pytest.raises(ConfigError, match="base data, base train.dataset_options"):
        search(lambda own: config_of({"dataset_options": f"{DATA},seed=4", **own}), space, tmp_path, trials=2)


def test_a_file_of_sections_and_a_file_of_mmrecs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("train:\n  model: LightGCN\n  epochs: 1\n  threads: 1\nmodel:\n  n_ui_layers: 1\n")
    flags = ["--config", str(file), "--dataset-options", DATA, "--sampler", "grid"]
    assert main([*flags, "--space", "lr=0.01", "-o", str(tmp_path / "a")]) == 0
    file.write_text("n_layers: [1, 2]\nreg_weight: [0.001]\nhyper_parameters: [n_layers, reg_weight]\n")
    more = ["-m", "LightGCN", "--epochs", "1", "--threads", "1", "-o", str(tmp_path / "b")]
    assert main([*flags, *more]) == 0
    rows = list(csv.DictReader((tmp_path / "b" / "search.csv").open()))
    assert sorted(row["n_ui_layers"] for row in rows) == ["1", "2"]
