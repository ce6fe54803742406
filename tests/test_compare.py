"""Comparisons: settings of each model, runs side by side that are kept, the table and its files, what goes wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from smore_ext import compare, evaluate, runs
from smore_ext.__main__ import main as smore
from smore_ext.experiments import comparison, jobs, plan
from smore_ext.experiments.comparison import compare as run_comparison
from smore_ext.experiments.jobs import Job, run_jobs
from smore_ext.experiments.reports import STEM, markdown, write_reports
from smore_ext.experiments.significance import holm, paired_bootstrap
from smore_ext.settings.fields import ConfigError

pytestmark = pytest.mark.usefixtures("command_surroundings")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"), features=True)


def flags(data: Path, **more: str) -> dict[str, str]:
    return {"dataset": "tiny", "data_path": str(data), "epochs": "2", "batch_size": "16", "seeds": "1,2", **more}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process, one after the other: starting one takes longer than these runs do."""

    def run(work: Sequence[Job[Any]], *_: Any, **__: Any) -> Iterator[tuple[Any, str | None]]:
        for job in work:
            outcomes: list[str | None] = []
            job.target(*job.arguments, SimpleNamespace(send=outcomes.append))
            yield job.name, outcomes[0]

    monkeypatch.setattr(comparison, "run_jobs", run)


# Settings


def test_a_setting_goes_to_the_models_that_have_it(data: Path) -> None:
    configs = plan(["LightGCN", "FREEDOM", "EASE"], flags(data, edge_dropout="0.3", reg_weight="0.5", lr="0.02"))
    assert [config.train.model for config in configs.values()] == ["LightGCN", "FREEDOM", "EASE"]
    assert all(config.train.lr == 0.02 for config in configs.values())
    assert configs["LightGCN"].model.reg_weight == configs["EASE"].model.reg_weight == 0.5
    assert configs["FREEDOM"].model.edge_dropout == 0.3
    with pytest.raises(ConfigError, match=r"--knn-k: LightGCN has no such setting \(SMORE, .* have\)"):
        plan(["LightGCN", "EASE"], {"knn_k": "3"})
    with pytest.raises(ConfigError, match="models: expected different names, at least one, got EASE, EASE"):
        plan(["EASE", "EASE"], {})
    with pytest.raises(ConfigError, match="unknown model 'EESE'.*did you mean 'EASE'"):
        plan(["EESE"], {})


def test_published_settings_are_taken_where_there_are_any(tmp_path: Path) -> None:
    models = ["MGCN", "VBPR", "BM3"]
    configs = plan(models, {"dataset": "baby"})
    assert [config.sources[0] for config in configs.values()] == ["preset mgcn-baby", "flags", "preset bm3-baby"]
    assert all(config.sources == ("flags",) for config in plan(models, {"dataset": "baby"}, presets=False).values())
    (tmp_path / "own.yaml").write_text("BM3: {dropout: 0.1}\nlr: 0.5\n")
    config = plan(models, {"dataset": "baby"}, tmp_path / "own.yaml")["BM3"]
    assert (config.model.dropout, config.train.lr, config.model.reg_weight) == (0.1, 0.5, 0.1)


# The table


def test_a_comparison_is_what_its_runs_are(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["-d", "tiny", "--data-path", str(data), "--epochs", "2", "--batch-size", "16", "--seeds", "1,2"]
    chosen = ["--models", "LightGCN,EASE", "--threads", "1", "-o", str(tmp_path), "--metrics", "recall,coverage"]
    assert compare.main([*where, *chosen, "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "against" in out and "LightGCN, seed 2: test recall@20 0." in out

    report = json.loads((tmp_path / f"{STEM}.json").read_text())
    assert [row["model"] for row in report["rows"]] == ["LightGCN", "EASE"]
    assert [row["seeds"] for row in report["rows"]] == [[1, 2], [1]]  # a closed form: once
    assert (report["metric"], report["protocol"], report["users"], report["failed"]) == ("recall@20", "mmrec", 30, {})
    values = {}
    for row in report["rows"]:
        each = [json.loads((tmp_path / row["model"] / f"seed-{s}" / "result.json").read_text()) for s in row["seeds"]]
        recall = [result["test"]["recall@20"] for result in each]
        assert row["test"]["recall@20"]["mean"] == pytest.approx(np.mean(recall))
        assert (row["test"]["recall@20"]["std"] is None) == (row["model"] == "EASE")
        assert row["best_epochs"] == [result["best_epoch"] for result in each]
        assert row["memory"] > 50e6 and row["seconds"] >= 0
        stored = [np.load(tmp_path / "measured" / f"{row['model']}-{seed}.npz") for seed in row["seeds"]]
        assert [float(s["recall@20"].mean()) for s in stored] == pytest.approx(recall)
        values[row["model"]] = np.mean([s["recall@20"] for s in stored], axis=0)
    first, *others = report["rows"]
    assert first["difference"] is None and first["p_corrected"] is None
    found = paired_bootstrap(np.stack([values[row["model"]] - values["LightGCN"] for row in others], axis=1))
    assert [row["difference"] for row in others] == [list(difference) for difference in found]
    assert [row["p_corrected"] for row in others] == holm([difference.p for difference in found])

    lines = list(csv.DictReader((tmp_path / f"{STEM}.csv").open()))
    assert [line["model"] for line in lines] == ["LightGCN", "EASE"]
    assert float(lines[1]["recall@20 mean"]) == others[0]["test"]["recall@20"]["mean"]
    assert (lines[0]["p"], lines[1]["recall@20 std"]) == ("", "")
    page = (tmp_path / f"{STEM}.md").read_text()
    assert "| LightGCN | 2 | " in page and "30 users, 40 items, features none" in page
    assert "Holm for the number of comparisons, 1" in page and "- EASE: defaults, flags" in page
    assert evaluate.main([str(tmp_path / "LightGCN")]) == 0  # a run folder of two seeds, as any


@pytest.mark.usefixtures("here")
def test_finished_runs_are_kept_and_more_can_be_added(data: Path, tmp_path: Path) -> None:
    told: list[str] = []
    one = plan(["LightGCN"], flags(data, seeds="1"))
    run_comparison(one, tmp_path, tell=told.append)
    weights = tmp_path / "LightGCN" / "seed-1" / "best.safetensors"
    before = weights.stat().st_mtime_ns
    again = run_comparison(one, tmp_path, tell=told.append)
    assert len(told) == 1 and again.rows[0].difference is None
    more = run_comparison(plan(["LightGCN", "Popularity"], flags(data)), tmp_path, tell=told.append)
    assert [line.partition(":")[0] for line in told[1:]] == [
        "LightGCN, seed 2", "Popularity, seed 1", "Popularity, seed 2",
    ]  # fmt: skip
    assert weights.stat().st_mtime_ns == before and [len(row.seeds) for row in more.rows] == [2, 2]
    with pytest.raises(ConfigError, match=r"seed-1: lr was 0.001, is 0.5; compare in another folder"):
        run_comparison(plan(["LightGCN"], flags(data, lr="0.5")), tmp_path)


@pytest.mark.usefixtures("here")
def test_a_run_that_was_stopped_goes_on(data: Path, tmp_path: Path) -> None:
    configs = plan(["LightGCN"], flags(data, seeds="1", epochs="4"))
    whole = run_comparison(configs, tmp_path / "whole")
    config = configs["LightGCN"].replace(seed=1, seeds=(), epochs=2, threads=os.cpu_count())
    runs.train(config, runs.open_dataset(config), tmp_path / "parts" / "LightGCN" / "seed-1")
    parts = run_comparison(configs, tmp_path / "parts")
    assert parts.rows[0].test == whole.rows[0].test and parts.rows[0].best_epochs == whole.rows[0].best_epochs


@pytest.mark.usefixtures("here")
def test_what_cannot_run_is_told_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tiny.write_dataset(tmp_path / "data")
    where = ["-d", "tiny", "--data-path", str(plain), "--epochs", "1", "--seeds", "1", "-o", str(tmp_path / "out")]
    assert compare.main([*where, "--models", "BM3,Popularity"]) == 1
    assert "BM3, seed 1: BM3 needs features of at least one modality" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / f"{STEM}.json").read_text())
    assert [row["model"] for row in report["rows"]] == ["Popularity"] and list(report["failed"]) == ["BM3, seed 1"]
    assert compare.main([*where, "--models", "BM3"]) == 2
    assert "no run came to an end: BM3 needs features" in capsys.readouterr().err
    assert compare.main([*where, "--models", "BM3,Popularity", "-d", "tny", "-o", str(tmp_path / "other")]) == 2
    said = capsys.readouterr()
    assert said.err.count("data set 'tny' not found") == 1 and "not found" not in said.out
    assert compare.main([*where, "--model", "BM3"]) == 2
    assert "a comparison has several: --models NAME" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_metric_of_all_lists_has_no_differences_of_users(data: Path, tmp_path: Path) -> None:
    chosen = flags(data, select_by="coverage@10", metrics="recall,coverage", seeds="1")
    found = run_comparison(plan(["EASE", "Popularity"], chosen), tmp_path)
    assert found.metric == "coverage@10" and [row.difference for row in found.rows] == [None, None]
    assert "| Popularity | 1 |" in markdown(found)


def test_it_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert smore(["compare", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--jobs" in told and "--edge-dropout NUMBER" in told


@pytest.mark.usefixtures("here")
def test_the_plot_has_a_bar_a_model(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = run_comparison(plan(["EASE", "Popularity"], flags(data, seeds="1")), tmp_path)
    assert tmp_path / f"{STEM}.svg" in write_reports(found, tmp_path)
    drawn = (tmp_path / f"{STEM}.svg").read_text()
    assert "<!-- EASE -->" in drawn and "<!-- Popularity -->" in drawn and "<!-- test recall@20, tiny" in drawn


@pytest.mark.usefixtures("here")
def test_without_matplotlib_there_is_no_plot(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    where = ["-d", "tiny", "--data-path", str(data), "--seeds", "1", "-o", str(tmp_path), "--models", "Popularity"]
    assert compare.main(where) == 0
    assert sorted(path.name for path in tmp_path.glob(f"{STEM}.*")) == [f"{STEM}.{e}" for e in ("csv", "json", "md")]


# Processes


def sleeps(folder: Path, name: str, seconds: float, told: Connection) -> None:
    (folder / f"{name}.begun").touch()
    time.sleep(seconds)
    told.send(None if seconds < 5 else "late")


def dies(told: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def outcomes(work: list[Job[str]], at_once: int = 2, **memory: Any) -> dict[str, str | None]:
    need, free = memory.get("need", lambda _: 0), memory.get("free", lambda: None)
    return dict(run_jobs(work, at_once, need, free))


def test_a_process_that_dies_is_one_outcome_of_several(tmp_path: Path) -> None:
    found = outcomes([Job("dead", dies, ()), Job("well", sleeps, (tmp_path, "well", 0.0))])
    assert found == {"dead": "its process ended with exit code -9", "well": None}


def answers(name: str, told: Connection) -> None:
    told.send(os.environ.get(name))


@pytest.mark.parametrize("alone", [False, True])
def test_a_job_has_the_variables_of_its_caller(monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    for value in ("1", "2"):
        monkeypatch.setenv("SMORE_TEST_JOB", value)
        assert dict(run_jobs([Job("a", answers, ("SMORE_TEST_JOB",))], 1, lambda _: 0, lambda: None, alone)) == {
            "a": value
        }


def waits(file: Path, told: Connection) -> None:
    while not file.exists():
        time.sleep(0.01)
    told.send(None)


def test_a_job_is_asked_for_when_there_is_room(tmp_path: Path) -> None:
    ended: list[str] = []

    def work() -> Iterator[Job[str]]:
        yield Job("slow", waits, (tmp_path / "go",))
        for name in ("a", "b"):
            yield Job(name, sleeps, (tmp_path, name, 0.0))
        assert ended == ["a", "b"]  # the slow one did not keep them waiting
        (tmp_path / "go").touch()
        yield Job("c", sleeps, (tmp_path, "c", 0.0))

    for name, _ in run_jobs(work(), 2, lambda _: 0, lambda: None):
        ended.append(name)
    assert sorted(ended) == ["a", "b", "c", "slow"]


def test_jobs_wait_for_memory_but_never_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = [Job(name, sleeps, (tmp_path, name, 0.0)) for name in ("a", "b")]
    running: list[int] = []
    started = jobs._fits
    monkeypatch.setattr(jobs, "_fits", lambda need, free: running.append(need) or started(need, free))
    assert list(outcomes(work, 2, need=lambda _: 10**12, free=lambda: 10**9)) == ["a", "b"]  # one after the other
    assert running and jobs._fits(0, None) and not started(1, jobs.SPARE) and started(1, jobs.SPARE + 1)
    assert jobs.available_memory() > 1 << 20


def test_what_runs_is_ended_with_its_caller(tmp_path: Path) -> None:
    work = [Job("quick", sleeps, (tmp_path, "quick", 0.0)), Job("slow", sleeps, (tmp_path, "slow", 600.0))]
    begin = time.perf_counter()
    results = run_jobs(work, 2, lambda _: 0, lambda: None)
    assert next(results) == ("quick", None)
    results.close()
    assert time.perf_counter() - begin < 120
