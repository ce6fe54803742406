"""MMRec's files of settings for our own commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smore_ext.runs.config_files import resolve
from smore_ext.settings.fields import ConfigError

FILE = """
embedding_size: 32
n_ui_layers: [3, 4]
n_layers: 2
learning_rate_scheduler: [0.9, 40]
lambda_coeff: 0.9
is_multimodal_model: True
reg_weight: [1e-5, 1e-4]
learning_rate: 1e-3
cl_loss: 0.03
image_knn_k: [40]
text_knn_k: [15]
dropout_rate: [0.1]
train_batch_size: 512
stopping_step: 5
seed: [1, 2]
hyper_parameters: ["n_ui_layers", "reg_weight", "image_knn_k", "text_knn_k", "dropout_rate", "seed"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "model.yaml"
    path.write_text(text)
    return path


def test_a_file_of_mmrec_is_a_file_of_settings(tmp_path: Path) -> None:
    flags = {"reg_weight": "1e-4", "n_ui_layers": "3", "dataset": "baby", "data_path": str(tmp_path)}
    config = resolve(flags, config_file=write(tmp_path, FILE))
    model, train = config.model, config.train
    assert (model.embedding_dim, model.n_ui_layers, model.n_mm_layers, model.reg_weight) == (32, 3, 2, 1e-4)
    assert (model.knn_k, model.cl_weight, model.dropout) == ({"image": 40, "text": 15}, 0.03, 0.1)
    assert (train.lr, train.lr_decay, train.lr_decay_epochs, train.batch_size) == (1e-3, 0.9, 40, 512)
    assert (train.patience, train.seeds) == (5, (1, 2))


@pytest.mark.parametrize(
    ("text", "flags", "told"),
    [
        (FILE, {}, "several values of n_ui_layers, reg_weight: choose by --n-ui-layers ... --reg-weight ...$"),
        ("a: 1\nweight_size: [64, 64]\nhyper_parameters: []", {}, "no such setting here: a, weight_size$"),
        ("n_layers: [1, 2]\nb: 2\nhyper_parameters: [n_layers]", {}, "--n-mm-layers ...; no such setting here: b$"),
        ("learning_rate_scheduler: 3\nhyper_parameters: []", {}, "no such setting here: learning_rate_scheduler"),
        ("embedding_size: wide\nhyper_parameters: []", {}, "expected a valid integer, got 'wide'"),
        ("lambda_coeff: 1\nhyper_parameters: []", {"model": "LightGCN"}, "no such setting here: lambda_coeff"),
        ("embedding_size: 32", {}, "did you mean 'embedding_dim'"),  # no file of MMRec's: names are ours
    ],
)
def test_what_is_unclear_is_said_at_once(text: str, flags: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        resolve(flags, config_file=write(tmp_path, text))
