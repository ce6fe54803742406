"""Settings of models from elsewhere: plain dataclasses, names that the loop has too, bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from annotated_types import Ge

from smore_ext.models import MODELS, Recommender
from smore_ext.runs.config_files import resolve
from smore_ext.settings.config import RunConfig, changed_settings
from smore_ext.settings.fields import ConfigError, settings_of


@dataclass
class PlainConfig:
    """Settings of a model that knows nothing of this package. lr: a rate of its own."""

    width: int
    lr: float = 0.25
    seed: int = 7
    parts: list[str] = field(default_factory=lambda: ["a"])
    mode: Literal["fast", "exact"] = "fast"
    folder: Path | None = None
    batch_size: int = field(default=1, metadata={"loop": True})


class Act:
    """Nothing that a text spells."""


@dataclass(frozen=True)
class BoundedConfig:
    width: Annotated[int, Ge(2)] = field(default=4, metadata={"help": "how wide", "aliases": ("size",)})
    share: float = 0.5
    act: Act = field(default_factory=Act)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be in [0, 1], got {self.share}")


class Plain(Recommender):
    config_class = PlainConfig


class Bounded(Recommender):
    config_class = BoundedConfig


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "Plain", Plain)
    monkeypatch.setitem(MODELS, "Bounded", Bounded)


@pytest.mark.usefixtures("models")
def test_a_plain_dataclass_is_a_models_configuration(tmp_path: Path) -> None:
    flags = {"model": "Plain", "dataset": "x", "width": "3", "parts": "b,c", "mode": "exact", "folder": "f"}
    config = resolve({**flags, "batch_size": "64"})
    assert config.model == PlainConfig(3, parts=["b", "c"], mode="exact", folder=Path("f"), batch_size=64)
    assert RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))).model == config.model
    for wrong, message in [
        ({"width": "x"}, "--width: expected a valid integer, got 'x'"),
        ({"mode": "slow"}, "--mode: expected 'fast' or 'exact', got 'slow'"),
        ({"wdith": "2"}, "--wdith: unknown setting; did you mean 'width'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            resolve({**flags, **wrong})
    del flags["width"]
    with pytest.raises(ConfigError, match="missing 1 required positional argument: 'width'"):
        resolve(flags)


@pytest.mark.usefixtures("models")
def test_names_that_the_loop_and_the_model_share(tmp_path: Path) -> None:
    flags = {"model": "Plain", "dataset": "x", "width": "3"}
    config = resolve({**flags, "train.lr": "0.1", "model.lr": "0.2"})
    assert (config.train.lr, config.model.lr) == (0.1, 0.2)
    assert (config.train.seed, config.model.seed) == (999, 7)  # each its own default
    assert RunConfig.from_dict(config.to_dict()).model == config.model
    with pytest.raises(ConfigError, match="--lr: both the training loop and Plain .* --train.lr or --model.lr"):
        resolve({**flags, "lr": "0.1"})
    file = tmp_path / "my.yaml"
    file.write_text("lr: 0.1")
    with pytest.raises(ConfigError, match="my.yaml: lr: both .*Plain have .* in a section, `train:` or `model:`"):
        resolve(flags, config_file=file)
    with pytest.raises(ConfigError, match="checkpoint: lr: both .* in a section"):
        RunConfig.from_dict({"model": "Plain", "lr": 0.1, "width": 3}, "checkpoint")  # of an earlier version
    with pytest.raises(ConfigError, match="--train.lrr: unknown setting; did you mean 'train.lr'"):
        resolve({**flags, "train.lrr": "0.1"})
    assert resolve({"dataset": "x"}, config_file=file).train.lr == 0.1  # SMORE has none of its own
    file.write_text("train: {lr: 0.1}\nmodel: {lr: 0.2}\nPlain: {model: {seed: 1}}")
    config = resolve(flags, config_file=file)
    assert (config.train.lr, config.model.lr, config.train.seed, config.model.seed) == (0.1, 0.2, 999, 1)
    changed = resolve({**flags, "train.lr": "0.5", "model.lr": "0.2"})
    assert changed_settings(config, changed) == {"train.lr": (0.1, 0.5), "model.seed": (1, 7)}


@pytest.mark.usefixtures("models")
def test_bounds_of_a_models_configuration() -> None:
    flags = {"model": "Bounded", "dataset": "x"}
    assert settings_of(BoundedConfig)["width"].help == "how wide"
    for wrong, message in [
        ({"width": "1"}, "--width: expected at least 2, got '1'"),
        ({"size": "3"}, "--size: unknown setting; did you mean 'width'"),
        ({"share": "2"}, r"--share: share must be in \[0, 1\], got 2.0"),
        ({"act": "len"}, "act: .*Act.* can be set in Python only"),
    ]:
        with pytest.raises(ConfigError, match=message):
            resolve({**flags, **wrong})
    with pytest.raises(ValueError, match="Unable to serialize unknown type.*Act"):
        resolve(flags).to_dict()
