"""Names that others extend: entry points, `package.module:Name`, and what goes wrong with them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from smore_ext import train
from smore_ext.data import READERS
from smore_ext.evaluation.metrics import METRICS
from smore_ext.models import MODELS, LightGCN
from smore_ext.registry import PluginError, Registry, UnknownName, did_you_mean
from smore_ext.training.samplers import SAMPLERS

OURS = tuple(MODELS)
PLUGIN = '''
from dataclasses import dataclass
from pathlib import Path

import torch

from smore_ext import LightGCN, LightGCNConfig, load_dataset
from smore_ext.training.samplers import UniformSampler


@dataclass
class WarmConfig(LightGCNConfig):
    """Settings.

    warmth: of the start.
    """

    warmth: float = 0.5


class Warm(LightGCN):
    config_class = WarmConfig
    sampler = "plugged"


class Sampler(UniformSampler):
    pass


def read(data_path: Path, name: str):
    return load_dataset(data_path / "hidden" / name)


def first(lists, k):
    return lists.hits[:, 0]


NOTHING = 3
'''
POINTS = """
[smore_ext.models]
Warm = plugin_of_test:Warm
broken = plugin_of_test:Missing
absent = no_such_module_of_test:Model
wrong = plugin_of_test:read
SMORE = plugin_of_test:Warm

[smore_ext.readers]
hidden = plugin_of_test:read

[smore_ext.metrics]
first = plugin_of_test:first

[smore_ext.samplers]
plugged = plugin_of_test:Sampler
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that brings a model, a reader, a metric and a sampler, as if it was installed."""
    site = tmp_path / "site"
    about = site / "plugin_of_test-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin_of_test\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    (site / "plugin_of_test.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(site))
    with tiny.one_thread():
        yield
    sys.modules.pop("plugin_of_test", None)


def test_an_installed_package_brings_all_four(plugin: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write_dataset(tmp_path / "data" / "hidden")
    where = ["-d", "tiny", "--data-path", str(tmp_path / "data"), "--reader", "hidden", "-o", str(tmp_path / "run")]
    chosen = ["-m", "Warm", "--warmth", "0.25", "--epochs", "1", "--select-by", "first@3"]
    assert train.main([*where, *chosen]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["model"], result["config"]["model"]["warmth"], result["config"]["train"]["reader"]) == (
        "Warm",
        0.25,
        "hidden",
    )
    assert result["selected_by"] == "first@3 on validation" and "first@3" in result["test"]
    out = capsys.readouterr().out
    assert "first" in out and "best" in out
    assert train.main(["--help"]) == 0  # a plug-in that cannot be loaded is left out of it
    assert "Model Warm:" in capsys.readouterr().out


def test_names_are_listed_before_anything_is_loaded(plugin: None) -> None:
    assert {"SMORE", "LightGCN", "Popularity", "Warm", "broken"} <= set(MODELS)
    assert "plugin_of_test" not in sys.modules
    assert "hidden" in READERS and "first" in METRICS and "plugged" in SAMPLERS
    assert len(MODELS) == len(set(MODELS))
    assert MODELS["Warm"].__name__ == "Warm" and "plugin_of_test" in sys.modules


def test_a_plugin_cannot_take_the_place_of_a_built_in_entry(plugin: None) -> None:
    assert MODELS["SMORE"].__module__ == "smore_ext.models.smore"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "model 'broken': plugin_of_test:Missing cannot be loaded: AttributeError: module 'plugin_of_test'"),
        (
            "absent",
            "model 'absent': no_such_module_of_test:Model cannot be loaded: ModuleNotFoundError",
        ),
        ("wrong", "model 'wrong': plugin_of_test:read must be a subclass of smore_ext.Recommender, got <function read"),
        ("plugin_of_test:NOTHING", "must be a subclass of smore_ext.Recommender, got 3"),
        ("no_such_module_of_test:X", "cannot be loaded: ModuleNotFoundError"),
        (
            "lightgcn",
            f"unknown model 'lightgcn' (of {', '.join(OURS)}, Warm, broken, absent, wrong); did you",
        ),
    ],
)
def test_what_is_wrong_is_one_line(plugin: None, name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["-m", name]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_broken_plugins_are_left_out_with_a_warning(plugin: None, caplog: pytest.LogCaptureFixture) -> None:
    MODELS._warned.clear()
    with caplog.at_level(logging.WARNING):
        MODELS.loadable()
        assert set(MODELS.loadable()) == {*OURS, "Warm"}
    assert [record.args[0].args[0].split("'")[1] for record in caplog.records] == ["broken", "absent", "wrong"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--reader", "mmrecc"], "unknown reader 'mmrecc' (of mmrec); did you mean 'mmrec'?"),
        (["--select-by", "recal@20"], "--select-by: unknown metric 'recal' (of recall, precision, ndcg, map, hit_rate"),
        (["--select-by", "recall"], "--select-by: expected a metric at a rank such as recall@20, got 'recall'"),
        (["--metrics", "recall,ndgc"], "--metrics: unknown metric 'ndgc' (of recall, precision"),
    ],
)
def test_unknown_names_of_the_command(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.write_dataset(tmp_path)
    assert train.main(["-d", "tiny", "--data-path", str(data), "-o", str(tmp_path / "run"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_registry_is_a_mapping() -> None:
    registry: Registry[object] = Registry("thing", "smore_ext.no_such_group", {"a": "math:pi", "b": int})
    assert (dict(registry), len(registry)) == ({"a": 3.141592653589793, "b": int}, 2)
    registry["c"] = LightGCN
    assert registry["c"] is LightGCN and list(registry) == ["a", "b", "c"] and registry["math:e"] == 2.718281828459045
    del registry["c"]
    assert "c" not in registry and registry.get("c") is None
    with pytest.raises(UnknownName, match=r"^unknown thing 'c' \(of a, b\)$"):
        registry["c"]
    with pytest.raises(PluginError, match="thing 'a:': a: cannot be loaded"):
        registry["a:"]


def test_the_nearest_name_looks_past_case_and_hyphens() -> None:
    assert did_you_mean("lightgcn", ["SMORE", "LightGCN"]) == "; did you mean 'LightGCN'?"
    assert did_you_mean("hit-rate", ["hit_rate", "recall"]) == "; did you mean 'hit_rate'?"
    assert did_you_mean("colour", ["hit_rate", "recall"]) == ""


@pytest.mark.parametrize("name", [f"package{'9' * 100_000}:Model", f"smore_ext:{'x' * 100_000}"])
def test_a_huge_name_is_not_echoed(name: str) -> None:
    with pytest.raises(PluginError) as caught:
        MODELS[name]
    assert len(str(caught.value)) < 600
