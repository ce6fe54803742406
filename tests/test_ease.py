"""EASE: the dense closed form in numpy, and what the commands do with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from smore_ext import Dataset, evaluate, train
from smore_ext.models.ease import EASE, EASEConfig
from smore_ext.training import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with tiny.one_thread():
        yield


def closed_form(dataset: Dataset, reg_weight: float) -> tuple[NDArray, NDArray]:
    """X [U, I] and B [I, I], by the formulas of the paper (section 3.1)."""
    x = np.zeros((dataset.n_users, dataset.n_items))
    x[dataset.train.users.numpy(), dataset.train.items.numpy()] = 1
    p = np.linalg.inv(x.T @ x + reg_weight * np.eye(dataset.n_items))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    return x, b


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("reg_weight", [1e-3, 0.5, 100.0])
def test_weights_and_scores_are_those_of_the_closed_form(reg_weight: float, backend: str, device: torch.device) -> None:
    dataset = tiny.tiny_dataset()
    model = EASE(dataset, EASEConfig(reg_weight, backend)).to(device)
    model.fit(dataset)
    x, b = closed_form(dataset, reg_weight)
    assert model.weight.device.type == device.type and model.weight.dtype == torch.float32
    assert bool((model.weight.diagonal() == 0).all())
    np.testing.assert_allclose(model.weight.cpu().numpy(), b, rtol=1e-6, atol=1e-7)
    users = torch.tensor([7, 0, 29], device=device)
    np.testing.assert_allclose(model.scores(users).cpu().numpy(), (x @ b)[[7, 0, 29]], rtol=1e-5, atol=1e-6)


def test_weights_are_the_least_squares_answer() -> None:
    """The loss that B minimises among matrices of zero diagonal: no small step makes it less."""
    dataset = tiny.tiny_dataset()
    model = EASE(dataset, EASEConfig(2.0))
    model.fit(dataset)
    x, b = torch.from_numpy(closed_form(dataset, 2.0)[0]), model.weight.double().requires_grad_()
    loss = (x - x @ b).square().sum() + 2.0 * b.square().sum()
    gradient = torch.autograd.grad(loss, b)[0].fill_diagonal_(0)
    assert gradient.abs().max() < 1e-5


def test_items_nobody_has_predict_nothing() -> None:
    some = tiny.tiny_dataset()
    dataset = Dataset.from_pairs("one more item", 30, 41, some.train, some.valid, some.test, {}, {})
    model = EASE(dataset, EASEConfig())
    model.fit(dataset)
    assert bool((model.weight[40] == 0).all()) and bool((model.weight[:, 40] == 0).all())


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf")])
def test_the_bound_of_the_weight_is_said(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"reg_weight must be at least 0.001 and finite, got"):
        EASEConfig(wrong)


def test_it_goes_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = tiny.write_dataset(tmp_path / "data"), tmp_path / "run"
    flags = ["-d", "tiny", "--data-path", str(data), "-q", "-o", str(run)]
    assert train.main(["-m", "EASE", *flags, "--reg-weight", "5", "--metrics", "recall"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert (result["stopped"], result["backend"], result["warnings"]) == ("closed form", "native", [])
    dataset = tiny.tiny_dataset()
    x, b = closed_form(dataset, 5.0)
    weight = checkpoint.load(run / "best.safetensors")[0]["weight"]
    np.testing.assert_allclose(weight.numpy(), b, rtol=1e-6, atol=1e-7)
    ranked = np.argsort(-np.where(x > 0, -np.inf, x @ b), axis=1, kind="stable")[:, :20]  # train items masked
    test = dataset.test
    hits = [item in ranked[user] for user, item in zip(test.users.tolist(), test.items.tolist(), strict=True)]
    assert result["test"]["recall@20"] == pytest.approx(np.mean(hits))  # one test item a user
    capsys.readouterr()
    assert evaluate.main([str(run), "--data-path", str(data)]) == 0
    assert f"{result['test']['recall@20']:.4f}" in capsys.readouterr().out
