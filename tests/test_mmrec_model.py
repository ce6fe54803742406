"""Models of this package as classes of somebody's tree, with its settings and its trainer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mmrec_tools import ROOT, load, run, tree

from smore_ext.compat import mmrec
from smore_ext.models import SMOREConfig
from smore_ext.settings.fields import ConfigError
from smore_ext.settings.foreign import own_settings

SETTINGS = {"embedding_size": 8, "n_layers": 1, "n_ui_layers": 2, "image_knn_k": 4, "text_knn_k": 3, "cl_loss": 0.02}


@pytest.fixture(autouse=True)
def tiny_tree() -> Iterator[None]:
    with tree():
        yield
        mmrec.undo()


@pytest.mark.parametrize("name", ["SMORENative", "FREEDOMNative"])
def test_it_trains_under_the_trees_trainer(name: str) -> None:
    extra = SETTINGS if name == "SMORENative" else {"embedding_size": 8, "knn_k": 3}
    trainer, told = run(f"native.{name}", epochs=6, **extra)
    losses = [sum(losses) for losses, *_ in told]
    assert losses[-1] < losses[0]
    assert type(trainer.model).__name__ == name
    with mmrec.patch([p for p in mmrec.PIECES if p not in ("sampler", "dropout")], ROOT) as report:
        _, patched = run(f"native.{name}", epochs=6, **extra)
    torch.testing.assert_close(torch.tensor([sum(e[0]) for e in patched]), torch.tensor(losses), rtol=1e-4, atol=1e-4)
    assert f"Trainer.evaluate of {name}" in report.replaced
    assert any("2 feature tables" in entry.why for entry in report.entries)


def test_settings_have_the_trees_names() -> None:
    trainer, _ = run("native.SMORENative", epochs=1, **SETTINGS)
    config = trainer.model.native.config
    assert config == SMOREConfig(8, 2, 1, knn_k={"image": 4, "text": 3}, cl_weight=0.02, batch_size=128)
    assert trainer.model.native.item_graphs["image"].n_edges == 60 * 4


def test_names_of_others() -> None:
    none = load("utils.dataset").Settings
    found = own_settings(SMOREConfig, none(reg_loss="1e-5", embedding_size=8, embedding_dim=16, knn_k=7))
    assert found == {"reg_weight": 1e-5, "embedding_dim": 16, "knn_k": 7}
    assert own_settings(SMOREConfig, {"dropout_rate": 0.1, "dropout": 0.2}, ["dropout_rate"]) == {"dropout": 0.1}
    with pytest.raises(ConfigError, match="embedding_dim: expected a valid integer, got 'wide'"):
        own_settings(SMOREConfig, none(embedding_size="wide"))


def test_a_model_in_closed_form_is_refused() -> None:
    with pytest.raises(ValueError, match="EASE is fitted in closed form"):
        mmrec.recommender(torch.nn.Module, "EASE")
