"""Faults that an audit found after the others: memory of a factored gradient, numbers that would get no gradient,
batches that are none, damaged metadata, another run's result, settings without bounds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_checks import dataset_with_features
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import write_dataset
from torch import Tensor, nn
from torch.autograd import forward_ad

from smore_ext import Graph, ops, train
from smore_ext.data import DatasetError, ReadOptions, kept, load_dataset
from smore_ext.evaluation.metrics import ranking_metrics
from smore_ext.models import MODELS
from smore_ext.models.factored_grad import FactoredGrad
from smore_ext.models.table_linear import FactoredAdam, TableLinear
from smore_ext.training.digest import digest_tensors, digest_text

DATA = dataset_with_features()
GRAPH = Graph.from_edges(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 0]), None, (3, 3))
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([0, 1, 2])


def factored() -> tuple[nn.Module, FactoredGrad, Tensor]:
    """A module with a table whose gradient is factored, that gradient, and its elements."""
    torch.manual_seed(0)
    module = nn.Module()
    module.table, module.layer = nn.Parameter(torch.randn(20, 12)), TableLinear(12, 4)
    module.optimizer_made = FactoredAdam(module.parameters(), [(module.table, module.layer)])
    module.layer(module.table).square().sum().backward()
    grad = module.table.grad
    assert isinstance(grad, FactoredGrad) and grad.factors is not None
    rows, factor = grad.factors
    return module, grad, rows @ factor


@pytest.mark.parametrize(
    "use",
    [
        lambda g: g.share_memory_().is_shared(),
        lambda g: g.untyped_storage().nbytes() == 20 * 12 * 4,
        lambda g: len(g.tolist()) == 20,
        lambda g: torch.from_dlpack(g).shape == (20, 12),
        lambda g: g.storage().nbytes() == 20 * 12 * 4,
    ],
)
def test_what_asks_for_the_memory_of_a_factored_gradient_gets_the_products(use: Callable[[Tensor], bool]) -> None:
    _, grad, wanted = factored()
    assert use(grad)
    assert torch.equal(grad.dense(), wanted)


def test_functions_of_elements_change_a_factored_gradient() -> None:
    _, grad, wanted = factored()
    grad.apply_(lambda value: 2 * value)
    torch.testing.assert_close(grad.dense(), 2 * wanted)
    grad.map_(torch.ones(20, 12), lambda a, b: a + b)
    torch.testing.assert_close(grad.dense(), 2 * wanted + 1)


def test_a_module_with_a_factored_gradient_is_shared_and_converted() -> None:
    module, _, wanted = factored()
    module.share_memory()
    assert module.table.is_shared() and module.table.grad.is_shared()
    module, _, wanted = factored()
    module.double()
    assert module.table.dtype == torch.float64 and module.table.grad.dtype == torch.float64
    torch.testing.assert_close(torch.as_tensor(module.table.grad) + 0, wanted.double())


def test_transforms_of_a_table_have_ordinary_gradients() -> None:
    module, _, _ = factored()
    detached = {name: p.detach() for name, p in module.named_parameters()}

    def loss(given: dict[str, Tensor]) -> Tensor:
        layer = {"weight": given["layer.weight"], "bias": given["layer.bias"]}
        return torch.func.functional_call(module.layer, layer, (given["table"],)).square().sum()

    grads = torch.func.grad(loss)(detached)
    leaves = {name: p.clone().requires_grad_() for name, p in detached.items()}
    nn.functional.linear(leaves["table"], leaves["layer.weight"], leaves["layer.bias"]).square().sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(grads[name], leaf.grad)


def test_numbers_that_require_grad_get_one_or_are_refused() -> None:
    one = torch.tensor(0.5, requires_grad=True)
    calls: dict[str, Callable[[], object]] = {
        "gamma": lambda: ops.bpr_loss(X, X, IDS, IDS, IDS + 1, gamma=one),
        "p": lambda: ops.dropout(X, one, 1),
        "p of preference": lambda: ops.modality_preference(X[:, :2], X[None, :, :1], X[:, 2:], one, 1),
    }
    for name, call in calls.items():
        with pytest.raises(
            TypeError, match=f"{name.partition(' ')[0]} must be a number, got a tensor that requires grad"
        ):
            call()
    with torch.no_grad():
        ops.dropout(X, one, 1)
    both = Graph.weighted_sum([GRAPH, GRAPH], [one, 2.0])
    (grad,) = torch.autograd.grad(both.weight.sum(), one)
    assert float(grad) == 3.0


def test_tangents_are_not_dropped() -> None:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(0.5), torch.tensor(1.0))
        for call in (
            lambda: ops.info_nce(X, X, dual),
            lambda: ops.bpr_loss(X, X, IDS, IDS, IDS + 1, gamma=dual),
            lambda: ops.dropout(X, dual, 1),
            lambda: ops.poly_filter(
                GRAPH, X[:3], [1.0, 2.0], weight=forward_ad.make_dual(torch.ones(3), torch.ones(3))
            ),
        ):
            with pytest.raises(RuntimeError, match="tangent"):
                call()


TRAINED = ["BM3", "FREEDOM", "LightGCN", "MGCN", "SMORE", "VBPR"]


@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_is_one_of_ids(name: str) -> None:
    model = MODELS[name](DATA)
    good = [IDS, IDS, IDS + 1]
    for place, field in enumerate(("users", "positives", "negatives")):
        wrong: list[tuple[Any, type[Exception], str]] = [
            (good[place].numpy(), TypeError, f"{field} must be a torch.Tensor of ids, got ndarray"),
            (good[place].tolist(), TypeError, f"{field} must be a torch.Tensor of ids, got list"),
            (good[place].bool(), TypeError, f"{field} must be int64 or int32, got torch.bool"),
            (good[place].float(), TypeError, f"{field} must be int64 or int32, got torch.float32"),
            (good[place].to("meta"), ValueError, f"{field} must be on the model's device, cpu, got meta"),
            (good[place][None, :, None], ValueError, f"{field} must have shape"),
        ]
        if place:
            wrong.append((good[place].repeat(2), ValueError, f"{field} must be as many as users, 3, got 6"))
        for ids, error, message in wrong:
            with pytest.raises(error, match=f"{name}.loss: {message}"):
                model.loss(*[ids if n == place else one for n, one in enumerate(good)])
    with pytest.raises(ValueError, match="users must have shape .B., got .3, 1."):
        model.loss(*[one[:, None] for one in good])


def test_metrics_of_what_is_no_ranking() -> None:
    with pytest.raises(TypeError, match="expected ranked to be a Tensor, got list"):
        ranking_metrics([0, 1], GRAPH)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected relevant to be a Graph, got list"):
        ranking_metrics(torch.zeros(1, 20, dtype=torch.int64), [0])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs that differ by their seed."""
    place = tmp_path_factory.mktemp("runs")
    data = write_dataset(place / "data")
    for seed in (1, 2):
        flags = ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "--epochs", "2", "--embedding-dim", "8"]
        assert train.main([*flags, "--seed", str(seed), "-o", str(place / str(seed)), "--quiet"]) == 0
    return place


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> None:
    """A checkpoint whose metadata and tensors were changed, with digests that fit."""
    with safe_open(path, framework="pt") as file:
        header, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata = json.loads(header["smore_ext"])
    change(metadata, tensors)
    header["smore_ext"] = json.dumps(metadata)
    header |= {"smore_ext_digest": digest_text(header["smore_ext"]), "tensors_digest": digest_tensors(tensors)}
    save_file(tensors, path, metadata=header)


def no_moments(metadata: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    metadata["stepped"] = []
    for name in [name for name in tensors if name.startswith("optimizer.")]:
        del tensors[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, _: m.update(progress={}), "expected progress.next_epoch, got nothing"),
        (lambda m, _: m["progress"].pop("best_epoch"), "expected progress.best_epoch, got nothing"),
        (lambda m, _: m["progress"].update(next_epoch=10**30), "expected at most 1,000,000,000 as next_epoch"),
        (lambda m, _: m.pop("stepped"), "expected stepped, got nothing"),
        (no_moments, "as stepped, got none"),
    ],
)
def test_metadata_that_say_too_little_are_damaged(
    runs: Path, tmp_path: Path, change: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "1", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    rewritten(tmp_path / "run" / "last.safetensors", change)
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    assert train.main(["--resume", str(tmp_path / "run"), "--epochs", "4"]) == 2
    told = capsys.readouterr().err
    assert "is damaged" in told and message in told
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before


def test_a_result_of_another_run_is_not_believed(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "1", tmp_path / "run")
    shutil.copy(runs / "2" / "result.json", tmp_path / "run" / "result.json")
    assert train.main(["--resume", str(tmp_path / "run")]) == 2
    assert "is of another run: its seed is 2, that of" in capsys.readouterr().err


def test_a_kept_table_that_makes_no_sense_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = write_dataset(tmp_path / "data") / "tiny"
    options = ReadOptions(table_cache=tmp_path / "cache")
    wanted = load_dataset(place, options=options).fingerprint
    (file,) = (tmp_path / "cache").iterdir()
    changes: list[Callable[[dict[str, Tensor]], None]] = [
        lambda parts: parts.update(form=parts["form"]) or parts.__delitem__("labels"),
        lambda parts: parts.update(form=torch.tensor(list(b"{}"), dtype=torch.uint8)),
        lambda parts: parts.update(form=torch.tensor(list(b"[]"), dtype=torch.uint8)),
        lambda parts: parts.update(labels=parts["labels"] + 7),
        lambda parts: parts.update(users=parts["users"] - 5),
    ]
    for change in changes:
        with safe_open(file, framework="pt") as stored:
            parts = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            header = dict(stored.metadata())
        change(parts)
        save_file(parts, file, metadata=header | {"content_sha256": kept.content_hash(parts)})
        caplog.clear()
        assert load_dataset(place, options=options).fingerprint == wanted
        assert "table rebuilt, the cached file is not usable" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n-ui-layers", str(2**62)], "n_ui_layers must be in 0..100, got 4611686018427387904"),
        (["--n-mm-layers", "1000000000"], "n_mm_layers must be in 0..100, got 1000000000"),
        (["--knn-k", "image=3,image=4,text=2"], "--knn-k: expected each name once, got image twice"),
        (["--dataset-options", "n_users=5,n_users=6"], "expected each name once, got n_users twice"),
        (["--metrics", ","], "--metrics: expected different ones, at least one, got []"),
        (["--metrics", "recall,recall"], "--metrics: expected different ones"),
    ],
)
def test_settings_without_sense(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*flags, "-o", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_path_that_the_locale_cannot_spell_is_named(tmp_path: Path) -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import sys; from smore_ext import train; sys.exit(train.main(['--epochs', '1', '-o', sys.argv[1]]))"
    asked = [sys.executable.encode(), b"-c", code.encode(), os.fsencode(tmp_path) + "/é".encode()]
    done = subprocess.run(asked, env=env, capture_output=True)
    assert done.returncode == 2 and b"--output-dir: expected text in the locale's encoding" in done.stderr


def test_options_of_reading_name_themselves() -> None:
    with pytest.raises(DatasetError, match="split_seed: expected a number from 0"):
        ReadOptions(split_seed=-1)
    with pytest.raises(DatasetError, match="split_ratios: expected three numbers, got 'abc'"):
        ReadOptions(split_ratios="abc")  # type: ignore[arg-type]


def test_sizes_may_be_numpys() -> None:
    index = torch.tensor([[0, 1], [1, 2]])
    assert Graph.from_edge_index(index, np.int64(3)).shape == (3, 3)  # type: ignore[arg-type]


def test_a_number_that_nothing_has_is_no_item() -> None:
    from smore_ext.serving import Factors

    items, users = torch.randn(6, 4), torch.randn(2, 4)
    seen = Graph.from_edges(torch.tensor([0, 1]), torch.tensor([0, 5]), None, (2, 6))
    model = Factors(
        seen=seen, known=torch.tensor([0, 1, 5]), trained=torch.ones(2, dtype=torch.bool), user_ids=None,
        item_ids=None, about={}, users=users, items=items, parts={"all": items}, features={},
    )  # fmt: skip
    for ask in (
        lambda: model.similar([3]),
        lambda: model.explain(0, 3),
        lambda: model.recommend_for([3], 2),
        lambda: model.recommend([0], 2, allow=[3]),
    ):
        with pytest.raises(
            DatasetError, match="item: expected one with interactions or features, got 3, which has none"
        ):
            ask()
