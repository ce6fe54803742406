"""MMRec's files of settings for our own commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smore_ext.models.freedom import FREEDOMConfig
from smore_ext.models.lattice import LATTICEConfig
from smore_ext.runs.config_files import resolve
from smore_ext.settings.fields import ConfigError
from smore_ext.settings.foreign import own_settings

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
        (
            "learner: sgd\neval_step: 2\nhyper_parameters: []",
            {},
            "learner: expected adam, got sgd; eval_step: expected 1, got 2",
        ),
        ("cf_model: ngcf\nhyper_parameters: []", {"model": "LATTICE"}, "cf_model: expected lightgcn, got ngcf"),
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


FREEDOM = """
embedding_size: 64
feat_embed_dim: 64
weight_size: [64, 64]
lambda_coeff: 0.9
reg_weight: [0.0, 1e-05]
n_mm_layers: 1
n_ui_layers: 2
knn_k: 7
mm_image_weight: 0.2
dropout: [0.8, 0.9]
hyper_parameters: ["dropout", "reg_weight"]
"""
BM3 = """
embedding_size: 64
feat_embed_dim: 64
n_layers: [1, 2]
dropout: [0.3, 0.5]
reg_weight: [0.1, 0.01]
cl_weight: 1.5
use_neg_sampling: False
hyper_parameters: ["n_layers", "reg_weight", "dropout"]
"""
LATTICE = """
embedding_size: 64
feat_embed_dim: 32
weight_size: [64, 64, 64]
learning_rate_scheduler: [0.96, 50]
lambda_coeff: 0.8
reg_weight: [0.0, 1e-05]
cf_model: lightgcn
mess_dropout: [0.1, 0.1]
n_layers: 2
knn_k: 10
learning_rate: [0.0001, 0.0005]
hyper_parameters: ["reg_weight", "learning_rate"]
"""


def test_files_of_other_models(tmp_path: Path) -> None:
    place: dict[str, Any] = {"dataset": "baby", "data_path": str(tmp_path)}
    grid = {"edge_dropout": "0.9", "feature_weight": "1e-5"}
    model = resolve({**place, "model": "FREEDOM", **grid}, config_file=write(tmp_path, FREEDOM)).model
    assert (model.edge_dropout, model.feature_weight, model.knn_k, model.image_weight) == (0.9, 1e-5, 7, 0.2)
    grid = {"n_ui_layers": "2", "reg_weight": "0.01", "dropout": "0.3"}
    model = resolve({**place, "model": "BM3", **grid}, config_file=write(tmp_path, BM3)).model
    assert (model.n_ui_layers, model.reg_weight, model.dropout, model.feature_weight) == (2, 0.01, 0.3, 1.5)
    grid = {"reg_weight": "0", "lr": "5e-4"}
    config = resolve({**place, "model": "LATTICE", **grid}, config_file=write(tmp_path, LATTICE))
    model = config.model
    assert (model.n_ui_layers, model.n_mm_layers, model.initial_weight, model.feature_dim) == (3, 2, 0.8, 32)
    assert config.train.lr == 5e-4


def test_files_of_the_loop_and_of_data_sets(tmp_path: Path) -> None:
    place: dict[str, Any] = {"dataset": "baby", "data_path": str(tmp_path)}
    loop = "use_gpu: True\ngpu_id: 0\nseed: [999]\nepochs: 30\nstopping_step: 4\ntrain_batch_size: 256\nlearner: adam\n"
    loop += "weight_decay: 0.0\neval_step: 1\ntopk: [5, 10]\nmetrics: [Recall, NDCG]\nvalid_metric: NDCG@10\n"
    loop += "vocab_size: 30522\nend2end: False\nUSER_ID_FIELD: user_id:token\nhyper_parameters: [seed]"
    train = resolve(place, config_file=write(tmp_path, loop)).train
    assert (train.epochs, train.patience, train.batch_size, train.seed) == (30, 4, 256, 999)
    assert (train.metrics, train.select_by, train.device) == (("recall", "ndcg"), "ndcg@10", "cpu")
    fields = "USER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\ninter_file_name: 'baby.inter'\nfield_separator: '\\t'\n"
    resolve(place, config_file=write(tmp_path, fields + "vision_feature_file: image_feat.npy"))


def test_a_trees_configuration_reaches_every_model() -> None:
    tree = {"dropout": 0.9, "reg_weight": 1e-3, "feat_embed_dim": 64, "embedding_size": 64}
    assert own_settings(FREEDOMConfig, Given(tree)) == {
        "edge_dropout": 0.9, "feature_weight": 1e-3, "embedding_dim": 64,
    }  # fmt: skip
    tree = {"n_layers": 3, "weight_size": [64, 64], "lambda_coeff": 0.7}
    assert own_settings(LATTICEConfig, Given(tree)) == {"n_mm_layers": 3, "n_ui_layers": 2, "initial_weight": 0.7}
    assert own_settings(LATTICEConfig, Given(tree), ["n_layers"]) == {"n_mm_layers": 3}


class Given(dict[str, Any]):
    """As MMRec's configuration: None for what is not there."""

    def __missing__(self, name: str) -> None:
        return None
