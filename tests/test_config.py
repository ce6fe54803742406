"""Settings: types, layers, nearest names, presets."""

from __future__ import annotations

import dataclasses
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from annotated_types import Ge

from smore_ext.runs.config_files import preset_names, read_yaml, resolve
from smore_ext.settings.config import RunConfig, TrainConfig, changed_settings
from smore_ext.settings.fields import ConfigError, Setting, metavar, settings_of


def declared(hint: Any) -> Setting:
    """A setting of that type."""
    return settings_of(make_dataclass("Config", [("x", hint, None)]))["x"]


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ("7", int, 7),
        (7, float, 7.0),
        ("1e-5", float, 1e-5),  # YAML 1.1 reads this as text
        ("true", bool, True),
        ("off", bool, False),
        ("16", bool | int, 16),
        ("1", bool | int, 1),
        ("false", bool | int, False),
        (True, bool | int, True),
        ("none", int | None, None),
        (None, int | None, None),
        ("40", int | dict[str, int], 40),
        ("image=40, text=10", int | dict[str, int], {"image": 40, "text": 10}),
        ({"image": "40"}, int | dict[str, int], {"image": 40}),
        ("1,2,3", tuple[int, ...], (1, 2, 3)),
        ([1, 2], tuple[int, ...], (1, 2)),
        (5, tuple[int, ...], (5,)),
        ("image,text", tuple[str, ...] | None, ("image", "text")),
        ("none", tuple[str, ...] | None, None),
        ("strict", Literal["mmrec", "strict"], "strict"),
        ("a/b", Path | None, Path("a/b")),
        (
            "noise=2.5,seed=3,mode=x,step=1e-3",
            dict[str, Any],
            {"noise": 2.5, "seed": 3, "mode": "x", "step": 1e-3},
        ),
        ("{noise: 2, bins: [1, 8]}", dict[str, Any], {"noise": 2, "bins": [1, 8]}),
        ("n=2,m=x", dict[str, str], {"n": "2", "m": "x"}),
        ("123", str, "123"),
        ("none", str, "none"),
        ("123", int | str, 123),
        ("1,b", tuple[str, ...], ("1", "b")),
        ("a,b", set[str], {"a", "b"}),
        ("~/a", Path, Path.home() / "a"),
        ("#1", Path | None, Path("#1")),
        ("3", Annotated[int, Ge(1)] | None, 3),
    ],
)
def test_convert(value: Any, hint: Any, expected: Any) -> None:
    got = declared(hint).convert(value, "x")
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("0.5", int),
        (0.5, int),
        (True, int),
        (True, float),
        ("yes", float),
        (1, bool),
        ("1", bool),
        (3, str),
        ("", str),
        ("image", int | dict[str, int]),
        ("image=x", int | dict[str, int]),
        ("a,b", tuple[int, ...]),
        ("other", Literal["mmrec", "strict"]),
        (None, float),
        ([1], float),
        ("2", Annotated[int, Ge(3)]),
        ("a=1,b", dict[str, Any]),
        ("{a: &x 1, b: *x}", dict[str, Any]),
        (10**30, int),
        ("1" + "0" * 30, int),
        (-(2**63), int),
        ({"a": [2**63]}, dict[str, Any]),
        (float("nan"), float),
        ("1e999", float),
    ],
)
def test_convert_refuses(value: Any, hint: Any) -> None:
    with pytest.raises(ConfigError, match="^x: expected .*, got "):
        declared(hint).convert(value, "x")


def test_metavar() -> None:
    assert metavar(int | dict[str, int]) == "INT|NAME=INT,..."
    assert metavar(int | None) == "INT"
    assert metavar(Annotated[int, Ge(1)]) == "INT"
    assert metavar(tuple[str, ...] | None) == "TEXT,..."
    assert metavar(dict[str, Any]) == metavar(dict) == "NAME=VALUE,..."
    assert metavar(Literal["a", "b"]) == "a|b"


def test_defaults_are_the_published_protocol() -> None:
    cfg = TrainConfig()
    assert (cfg.lr, cfg.lr_decay, cfg.lr_decay_epochs) == (1e-3, 0.96, 50)
    assert (cfg.epochs, cfg.patience, cfg.eval_k, cfg.protocol) == (1000, 20, 20, "mmrec")
    assert resolve({"dataset": "x"}).model.batch_size == 2048


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("cl_weight: 0.5\nreg-weight: 1e-5\nlr: 0.1\n")
    config = resolve({"lr": "0.2"}, preset="smore-sports", config_file=file)
    assert config.model.n_ui_layers == 3  # preset over default 4
    assert config.model.cl_weight == 0.5  # file over preset
    assert config.model.reg_weight == 1e-5
    assert config.train.lr == 0.2  # flag over file
    assert config.sources == ("preset smore-sports", f"file {file}", "flags")


def test_model_sections_apply_to_their_model_only(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("epochs: 7\nSMORE: {cl_weight: 0.5}\nLightGCN: {n_ui_layers: 1}\n")
    assert resolve({"model": "LightGCN", "dataset": "x"}, config_file=file).model.n_ui_layers == 1
    smore = resolve({"dataset": "x"}, config_file=file)
    assert (smore.model.cl_weight, smore.model.n_ui_layers, smore.train.epochs) == (0.5, 4, 7)
    file.write_text("LightGCN: {n_ui_layer: 1}\n")  # checked even where it is not used
    with pytest.raises(ConfigError, match="LightGCN: n_ui_layer: unknown setting; did you mean 'n_ui_layers'"):
        resolve({"dataset": "x"}, config_file=file)


def test_a_section_of_a_model_may_hold_settings_of_the_loop(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("train: {lr: 1e-4, epochs: 7}\nLightGCN: {lr: 0.5, batch-size: 64, train: {seed: 3}}\n")
    tuned, other = (resolve({"model": name, "dataset": "x"}, config_file=file).train for name in ("LightGCN", "SMORE"))
    assert (tuned.lr, tuned.batch_size, tuned.seed, tuned.epochs) == (0.5, 64, 3, 7)
    assert (other.lr, other.batch_size, other.seed, other.epochs) == (1e-4, 2048, 999, 7)


def test_sections(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("train: {model: LightGCN, dataset: x, lr: 1e-4}\nmodel: {n-ui-layers: 1}\nepochs: 3\n")
    config = resolve({"train.seed": "5", "model.embedding_dim": "8"}, config_file=file)
    assert (config.train.model, config.train.lr, config.train.epochs, config.train.seed) == ("LightGCN", 1e-4, 3, 5)
    assert (config.model.n_ui_layers, config.model.embedding_dim) == (1, 8)
    file.write_text("train:\nmodel:\nSMORE:\n")  # empty sections
    assert resolve({"dataset": "x"}, config_file=file).train == resolve({"dataset": "x"}).train


def test_builtin_dataset_brings_its_preset() -> None:
    automatic = resolve()
    assert automatic.sources == ("preset synthetic (automatic for this data set)",)
    assert automatic.train.epochs < TrainConfig().epochs
    assert resolve({"epochs": "3"}).train.epochs == 3
    assert resolve({"dataset": "baby"}).sources == ("flags",)
    assert resolve({"dataset": "synthetic", "data_path": "x"}).sources == ("flags",)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"cl_wieght": "1"}, "--cl-wieght: unknown setting; did you mean 'cl_weight'"),
        ({"learning_rate": "1"}, "did you mean 'lr'"),
        ({"cl_loss": "1"}, "did you mean 'cl_weight'"),
        ({"model": "LightGCN", "cl_weight": "1"}, r"--cl-weight: LightGCN has no such setting \(SMORE, MGCN have\)"),
        ({"model": "smore"}, "unknown model 'smore' .*did you mean 'SMORE'"),
        ({"lr": "fast"}, "--lr: expected a valid number, got 'fast'"),
        ({"knn_k": "image=x"}, "--knn-k: expected a valid integer or name=value pairs, got 'image=x'"),
        ({"protocol": "other"}, "--protocol: expected 'mmrec' or 'strict', got 'other'"),
        ({"epochs": "0"}, "--epochs: expected at least 1, got '0'"),
        ({"lr": "-1"}, "--lr: expected greater than 0, got '-1'"),
        ({"lr_decay": "1.5"}, "--lr-decay: expected at most 1, got '1.5'"),
        ({"reg_weight": "1e999"}, "--reg-weight: expected finite numbers, got inf"),
        ({"embedding_dim": "0"}, "--embedding-dim: embedding_dim must be at least 1 and finite, got 0"),
        ({"dataset_options": "noise=inf"}, "--dataset-options: expected finite numbers"),
        ({"seed": str(2**63)}, "--seed: expected integers below 2\\^63, got 9223372036854775808"),
        ({"eval_k": "1" + "0" * 30}, "--eval-k: expected integers below 2\\^63, got 10{30}"),
        ({"threads": "100000"}, "--threads: expected at most 4096"),
        ({"device": ""}, "--device: expected a value, got ''"),
        ({"train.epoch": "3"}, "--train.epoch: unknown setting; did you mean 'train.epochs'"),
        ({"train.knn_k": "3"}, "--train.knn-k: unknown setting; did you mean 'model.knn_k'"),
        ({"dataset": "a/b"}, "dataset: expected a name, got the path 'a/b'"),
        ({"dataset": ".."}, "dataset: expected a name"),
        ({"seeds": "1,1"}, "seeds: expected different numbers"),
    ],
)
def test_errors_name_the_setting(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "epoch: unknown setting; did you mean 'epochs'"),
        ("lr: [1]", r"lr: expected a valid number, got \[1\]"),
        ("- a\n- b", "expected settings as `name: value`, got list"),
        ("a: [", "not valid YAML"),
        ("smore: {dropout: 0.1}", "smore: unknown setting; did you mean 'SMORE'"),
        ("cl_weight: .inf", "cl_weight: expected finite numbers, got inf"),
        ("SMORE: 3", "SMORE: expected settings as `name: value`, got 3"),
        ("train: [lr]", r"train: expected settings as `name: value`, got \['lr'\]"),
        ("train: {epoch: 3}", "train.epoch: unknown setting; did you mean 'train.epochs'"),
        ("train: {learning_rate: 3}", "train.learning_rate: unknown setting; did you mean 'train.lr'"),
        ("train: {knn_k: 3}", "train.knn_k: unknown setting; did you mean 'model.knn_k'"),
        ("model: {lr: 3}", "model.lr: unknown setting; did you mean 'train.lr'"),
        ("model: {batch_size: 3}", "model.batch_size: unknown setting; did you mean 'train.batch_size'"),
        ("model: {cl_loss: 3}", "model.cl_loss: unknown setting; did you mean 'model.cl_weight'"),
        ("{train: {model: LightGCN}, model: {cl_weight: 3}}", "model.cl_weight: LightGCN has no such .*, MGCN have"),
        ("model: [SMORE]", r"model: expected settings as `name: value`, got \['SMORE'\]"),
        ("train: {model: {a: 1}}", "train.model: expected a valid string, got {'a': 1}"),
        ("lr: 1\nlr: 2", "not valid YAML: 'lr' given twice"),
        ("train: {lr: 1, lr: 2}", "not valid YAML: 'lr' given twice"),
        ("a: &x [1]\nb: *x", "not valid YAML: anchors and aliases"),
        ("a: " + "[" * 50_000, "not valid YAML: nested too deep"),
        ("dataset: " + "x/" * 500, "dataset: expected a name, got the path '(x/){38}"),
        ("x" * 500 + ": 1", ": x{80}: unknown setting$"),
        ("lr: " + "x" * 500, "got 'x{76}[.][.][.]$"),
        ("lr: [" + "1, " * 5000 + "]", r"got \[1, .{70,76}[.][.][.]$"),
    ],
)
def test_errors_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        resolve({}, config_file=file)
    assert str(file) in str(caught.value)


def test_missing_files() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.yaml does not exist"):
        resolve(config_file=Path("nowhere.yaml"))
    with pytest.raises(ConfigError, match="unknown preset 'smor-baby' .*did you mean 'smore-baby'"):
        resolve(preset="smor-baby")


@pytest.mark.parametrize(
    ("name", "n_ui_layers", "k_image", "k_text", "cl_weight", "reg_weight", "dropout"),
    [
        ("baby", 4, 40, 15, 0.01, 1e-4, 0.1),
        ("sports", 3, 10, 10, 0.03, 1e-4, 0.0),
        ("clothing", 3, 40, 10, 0.01, 1e-5, 0.0),
    ],
)
def test_presets_are_the_published_settings(
    name: str,
    n_ui_layers: int,
    k_image: int,
    k_text: int,
    cl_weight: float,
    reg_weight: float,
    dropout: float,
) -> None:
    config = resolve(preset=f"smore-{name}")
    model = config.model
    assert (config.train.model, config.train.dataset) == ("SMORE", name)
    assert (model.n_ui_layers, model.n_mm_layers) == (n_ui_layers, 1)
    assert model.knn_k == {"image": k_image, "text": k_text}
    assert (model.cl_weight, model.reg_weight, model.dropout) == (cl_weight, reg_weight, dropout)
    assert (model.batch_size, model.embedding_dim) == (2048, 64)
    assert (config.train.epochs, config.train.patience) == (1000, 20)


@pytest.mark.parametrize(
    ("name", "model", "lr_decay", "settings"),
    [
        ("bm3", "BM3", 1.0, {"n_ui_layers": 1, "reg_weight": 0.1, "dropout": 0.5, "feature_weight": 2.0}),
        ("freedom", "FREEDOM", 1.0, {"n_ui_layers": 2, "knn_k": 10, "image_weight": 0.1, "edge_dropout": 0.8}),
        ("mgcn", "MGCN", 0.96, {"n_ui_layers": 2, "knn_k": 10, "cl_weight": 0.01, "reg_weight": 1e-4}),
        ("lattice", "LATTICE", 0.96, {"n_ui_layers": 2, "knn_k": 10, "initial_weight": 0.9}),
    ],
)
def test_presets_of_other_models(name: str, model: str, lr_decay: float, settings: dict) -> None:
    config = resolve(preset=f"{name}-baby")
    assert (config.train.model, config.train.dataset, config.train.lr_decay) == (model, "baby", lr_decay)
    assert {key: getattr(config.model, key) for key in settings} == settings


def test_every_preset_resolves() -> None:
    for name in preset_names():
        resolve(preset=name)


def test_stored_settings_read_back() -> None:
    config = resolve({"knn_k": "image=4", "seeds": "1,2", "data_path": "d", "dataset": "x", "reg_weight": "1e-5"})
    stored = config.to_dict()
    assert (stored["train"]["lr"], stored["model"]["knn_k"]) == (1e-3, {"image": 4})
    again = RunConfig.from_dict(yaml.safe_load(yaml.safe_dump(stored)))
    absolute = config.replace(data_path=Path("d").absolute())  # holds from any directory
    assert (again.train, again.model) == (absolute.train, config.model)


# as version 0.1 wrote config.yaml, result.json and checkpoints
FLAT = """
model: SMORE
dataset: x
data_path: /data
dataset_options: {}
output_dir: null
seed: 999
seeds: [1, 2]
epochs: 5
lr: 1.0e-05
fused_adam: true
threads: null
embedding_dim: 8
knn_k: {image: 4}
batch_size: 64
spectral: 3
modalities: [image]
backend: native
cache_dir: null
"""


def test_the_flat_form_of_earlier_versions_still_loads(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(FLAT)
    for flat in (RunConfig.from_dict(yaml.safe_load(FLAT)), resolve(config_file=tmp_path / "config.yaml")):
        assert (flat.train.model, flat.train.lr, flat.train.seeds, flat.train.threads) == ("SMORE", 1e-5, (1, 2), None)
        assert (flat.train.data_path, flat.train.output_dir) == (Path("/data"), None)
        assert flat.train.batch_size == flat.model.batch_size == 64
        assert (flat.model.knn_k, flat.model.spectral, flat.model.modalities) == ({"image": 4}, 3, ("image",))
        assert flat.model.cache_dir is None  # as it was, not this user's
        assert RunConfig.from_dict(flat.to_dict()) == dataclasses.replace(flat, sources=("stored settings",))


def test_a_setting_that_did_not_exist_had_its_default() -> None:
    now = resolve({"dataset": "x"})
    stored = now.to_dict()
    for name in ("amp", "metrics", "select_by"):
        del stored["train"][name]
    old = RunConfig.from_dict(stored)
    assert changed_settings(old, now) == {}
    assert changed_settings(old, now.replace(amp=True)) == {"amp": (False, True)}


def test_changed_settings() -> None:
    old = resolve({"dataset": "x"})
    changes = {"lr": "0.5", "epochs": "3", "threads": "1", "data_path": "y", "cache_dir": "none", "dropout": "0.5"}
    new = resolve({"dataset": "x", **changes})
    assert changed_settings(old, new) == {"lr": (1e-3, 0.5), "dropout": (0.0, 0.5)}
    assert changed_settings(old, resolve({"dataset": "x", "model": "LightGCN"}))["model"] == ("SMORE", "LightGCN")


def test_data_path_that_is_a_dataset_names_it(tmp_path: Path) -> None:
    (tmp_path / "lfm.inter").touch()
    assert resolve({"data_path": str(tmp_path)}).train.dataset == "lfm"
    (tmp_path / "other.inter").touch()
    with pytest.raises(ConfigError, match="holds 2 .inter files; name the data set with -d"):
        resolve({"data_path": str(tmp_path)})


def test_the_batch_size_is_the_loops() -> None:
    for model in ("SMORE", "LightGCN"):
        config = resolve({"dataset": "x", "model": model, "batch_size": "64"})
        assert config.train.batch_size == config.model.batch_size == 64
        assert config.replace(batch_size=32).model.batch_size == 32
        assert RunConfig.from_dict(config.to_dict()).train.batch_size == 64
    assert resolve({"dataset": "x", "model": "Popularity", "batch_size": "64"}).train.batch_size == 64
    with pytest.raises(ConfigError, match="--batch-size: expected at least 1, got '0'"):
        resolve({"batch_size": "0"})


def test_every_setting_of_the_loop_has_help() -> None:
    assert all(setting.help for setting in settings_of(TrainConfig).values())


def test_settings_built_by_hand_must_be_finite() -> None:
    config = resolve()
    with pytest.raises(ConfigError, match="dataset_options: expected finite numbers"):
        config.replace(dataset_options={"noise": float("nan")})


def test_a_far_name_is_no_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting$"):
        resolve({"colour": "1"})


def test_a_trailing_slash_is_no_part_of_the_name() -> None:
    assert resolve({"dataset": "baby/"}).train.dataset == "baby"
    assert resolve({"dataset": "synthetic/"}).sources[0].startswith("preset synthetic")


def test_the_cache_is_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve().model.cache_dir == str(Path("/cache/smore_ext/graphs"))
    none = resolve({"cache_dir": "none"})
    assert none.model.cache_dir is None
    assert RunConfig.from_dict(none.to_dict()).model.cache_dir is None
    assert resolve({"cache_dir": "~/graphs"}).model.cache_dir == "/home/me/graphs"


def test_a_folder_with_inter_csv_names_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "inter.csv").touch()
    assert resolve({"data_path": str(tmp_path / "mine")}).train.dataset == "mine"


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_bytes("a: \xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match="my.yaml: expected UTF-8 text"):
        resolve({}, config_file=tmp_path / "my.yaml")


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(b"#" * 200_000)
    with pytest.raises(ConfigError, match="my.yaml: expected settings, at most 100,000 bytes"):
        read_yaml(file)
    file.write_text("a: !!python/object/apply:os.getcwd []\non: 1\n1: x\n")
    assert read_yaml(file) == {"a": [], "on": "1", "1": "x"}  # texts: tags mean nothing, and names stay as written
    file.write_text("")
    assert read_yaml(file) == {}
