"""A tree of the MMRec kind with and without the patch: the same losses, gradients, rankings, and nothing left over."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmrec_tools import ROOT, load, names, run, tree

from smore_ext import ops
from smore_ext.compat import mmrec
from smore_ext.compat.mmrec import deferred, evaluate
from smore_ext.graph import Graph

MODELS = [
    "propagating.Propagating",
    "frozen.Frozen",
    "relearning.Relearning",
    "noisy.Noisy",
    "noisy.Biased",
    "noisy.Contrasted",
]
SAME_DRAWS = [piece for piece in mmrec.PIECES if piece not in ("sampler", "dropout")]
TORCH_NAMES = {
    "torch.sparse.mm",
    "torch.mm",
    "torch.spmm",
    "torch.matmul",
    "torch.Tensor.__matmul__",
    "torch.Tensor.mm",
}


@pytest.fixture(autouse=True)
def tiny_tree(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(deferred, "LEAST", 8)
    with tree():
        yield
        mmrec.undo()


def check_same(ours: list[Any], theirs: list[Any]) -> None:
    for (losses, *metrics), (own, *own_metrics) in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(own, losses, rtol=2e-6)
        for a, b in zip(metrics, own_metrics, strict=True):
            assert list(a) == list(b)
            assert a == b


@pytest.mark.parametrize("model", MODELS)
def test_losses_and_rankings_are_the_same(model: str) -> None:
    _, theirs = run(model)
    with mmrec.patch(SAME_DRAWS, ROOT):
        _, ours = run(model)
    check_same(ours, theirs)


@pytest.mark.parametrize("model", MODELS[:3])
def test_gradients_are_the_same(model: str) -> None:
    def gradients() -> dict[str, torch.Tensor]:
        trainer, _ = run(model, epochs=1)
        module = trainer.model.train()
        module.pre_epoch_processing()
        trainer.optimizer.zero_grad()
        batch = torch.arange(60)
        module.calculate_loss(torch.stack([batch, batch, (batch + 7) % 60])).backward()
        return {name: p.grad.to_dense() if p.grad.is_sparse else p.grad for name, p in module.named_parameters()}

    theirs = gradients()
    with mmrec.patch(SAME_DRAWS, ROOT):
        ours = gradients()
    assert ours.keys() == theirs.keys()
    for name, grad in theirs.items():
        got = ours[name].dense() if hasattr(ours[name], "dense") else ours[name]
        torch.testing.assert_close(got, grad, rtol=1e-4, atol=float(1e-5 * grad.abs().max()), msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_every_name_is_restored(model: str) -> None:
    run(model, epochs=1)
    before = names()
    report = mmrec.patch(root=ROOT)
    run(model, epochs=1)
    assert report.replaced
    during = names()
    assert {
        f"{owner.removeprefix('.')}.{name}"
        for (owner, name) in during
        if during[owner, name] != before.get((owner, name))
    }
    report.undo()
    assert names() == before


def test_modules_imported_under_the_patch_are_as_they_would_have_been() -> None:
    with mmrec.patch(root=ROOT):
        run("frozen.Frozen", epochs=1)
        run("propagating.Propagating", epochs=1)
        copied = load("models.frozen").build_knn_normalized_graph
        assert copied is load("utils.utils").build_knn_normalized_graph
        assert load("models.propagating").matmul is torch.matmul
    assert load("models.frozen").build_knn_normalized_graph is not copied
    assert load("models.frozen").build_knn_normalized_graph is load("utils.utils").build_knn_normalized_graph
    assert load("models.propagating").matmul is torch.matmul
    assert not hasattr(load("models.frozen").build_knn_normalized_graph, "__wrapped__")
    for name in ("models.frozen", "common.trainer"):
        assert "Watched" not in type(load(name).__spec__.loader).__name__


def test_names_copied_before_are_rebound() -> None:
    for name in ("models.frozen", "models.propagating"):
        load(name)
    with mmrec.patch(root=ROOT):
        assert load("models.frozen").build_knn_normalized_graph is load("utils.utils").build_knn_normalized_graph
        assert load("models.propagating").matmul is torch.matmul
        _, ours = run("frozen.Frozen", negatives=True)
    assert ours


def test_users_are_ranked_once_for_validation_and_test(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked: list[int] = []
    whole = ops.masked_topk

    def watched(users: Any, *more: Any) -> Any:
        ranked.append(len(users))
        return whole(users, *more)

    monkeypatch.setattr(ops, "masked_topk", watched)
    with mmrec.patch("evaluation", ROOT):
        trainer, _ = run("frozen.Frozen", epochs=3)
    _, valid, test = load("utils.dataset").make_loaders(trainer.config)
    only_in_test = len({*test.eval_u.tolist()} - {*valid.eval_u.tolist()})
    assert only_in_test < len(test.eval_u)
    expected = [len(valid.eval_u), only_in_test] if only_in_test else [len(valid.eval_u)]
    assert ranked[-3 * len(expected) :] == expected * 3


def test_whose_list_is_known() -> None:
    def lists(users: list[int], seen: list[tuple[int, int]]) -> Any:
        rows, cols = torch.tensor(seen).T
        return evaluate._Lists(torch.tensor(users), Graph.from_edges(rows, cols, None, (len(users), 9)))

    known = lists([4, 7, 2, 5], [(0, 1), (0, 3), (1, 2), (3, 8), (3, 0)])
    asked = lists([5, 4, 7, 2, 9, 1], [(0, 0), (0, 8), (1, 1), (1, 4), (2, 2), (2, 3), (4, 2)])
    assert evaluate._rows_of(known, asked).tolist() == [3, -1, -1, 2, -1, -1]
    assert evaluate._rows_of(known, known).tolist() == [0, 1, 2, 3]


def test_every_product_is_found() -> None:
    report = mmrec.patch("products", ROOT)
    run("propagating.Propagating", epochs=1)
    assert {name.partition(" of ")[0] for name in report.replaced} == TORCH_NAMES


def test_report_names_what_is_left_and_why() -> None:
    report = mmrec.patch(root=ROOT)
    run("noisy.Noisy", epochs=1)
    run("noisy.Biased", epochs=1)
    assert "random numbers" in report.left["Trainer.evaluate of Noisy"]
    assert "no product" in report.left["Trainer.evaluate of Biased"]
    assert "left" in str(report) and "TopKEvaluator.evaluate" in report.replaced


def test_frozen_uses_every_piece() -> None:
    report = mmrec.patch(root=ROOT)
    run("frozen.Frozen", epochs=1)
    others = {"messages", "scatter"}  # of trees with torch_geometric, torch_scatter
    assert {entry.piece for entry in report.entries if entry.replaced} == set(mmrec.PIECES) - others
    assert not report.left


def test_one_forward_pass_for_validation_and_test() -> None:
    mmrec.patch(root=ROOT)
    trainer, _ = run("propagating.Propagating", epochs=1)
    config = load("utils.dataset").settings()
    _, valid, test = load("utils.dataset").make_loaders(config)
    calls = 0
    forward = trainer.model.forward

    def counted() -> Any:
        nonlocal calls
        calls += 1
        return forward()

    trainer.model.forward = counted
    first = trainer.evaluate(valid), trainer.evaluate(test), trainer.evaluate(valid)
    assert calls == 0  # nothing changed since fit
    trainer.optimizer.step()  # a fused step raises no version
    assert (trainer.evaluate(valid), calls) != (first[0], 0) and calls == 1
    with torch.no_grad():
        trainer.model.user.weight.mul_(-1)
    assert trainer.evaluate(valid) != first[0] and calls == 2
    trainer.model.train()
    trainer.evaluate(test)
    assert calls == 3


def test_negatives_are_seeded_by_random_and_never_seen() -> None:
    mmrec.patch("sampler", ROOT)
    train = load("utils.dataset").make_loaders(load("utils.dataset").settings())[0]
    users = np.repeat(np.arange(70), 20)

    def drawn(seed: int) -> torch.Tensor:
        random.seed(seed)
        return train._sample_neg_ids(users)

    first = drawn(1)
    assert torch.equal(first, drawn(1)) and not torch.equal(first, drawn(2))
    assert all(int(item) not in train.history_items_per_u[user] for user, item in zip(users, first, strict=True))
    random.seed(1)
    assert torch.equal(first, train._sample_neg_ids(users))
    assert not torch.equal(first, train._sample_neg_ids(users))  # another batch, other negatives


def test_batches_without_negatives() -> None:
    _, theirs = run("propagating.Propagating", epochs=1)
    train = load("utils.dataset").make_loaders(load("utils.dataset").settings(negatives=False))[0]
    np.random.seed(5)
    plain = [batch.clone() for batch in train]
    report = mmrec.patch("batches", ROOT)
    np.random.seed(5)
    train.pretrain_setup()
    assert all(torch.equal(a, b) for a, b in zip(plain, train, strict=True))
    assert report.replaced == ["TrainLoader._get_non_neg_sample"]


def test_forks_that_do_something_else_keep_it() -> None:
    loader, trainer = load("utils.dataloader").TrainLoader, load("common.trainer").Trainer
    frozen, utils = load("models.frozen").Frozen, load("utils.utils")
    evaluator = load("utils.topk_evaluator")

    def popular(self: Any, u_ids: Any) -> torch.Tensor:
        return torch.tensor([min(set(range(12)) - set(self.history_items_per_u[u])) for u in u_ids])

    def doubled(self: Any, view1: torch.Tensor, view2: torch.Tensor, temperature: float) -> torch.Tensor:
        return 2 * plain(self, view1, view2, temperature)

    def shifted(adj: torch.Tensor, topk: int, is_sparse: bool, norm_type: str) -> torch.Tensor:
        return graph(adj, topk, is_sparse, norm_type) * 1.01

    def half(hits: Any, lengths: Any) -> Any:
        return hits.cumsum(1).mean(0) / 2

    def unmasked(self: Any, eval_data: Any, is_test: bool = False, idx: int = 0) -> Any:
        self.model.eval()
        with torch.no_grad():
            ranked = [torch.topk(self.model.full_sort_predict(b), 5, dim=-1)[1] for b in eval_data]
        return self.evaluator.evaluate(ranked, eval_data, is_test=is_test, idx=idx)

    plain, graph = frozen.InfoNCE, utils.build_knn_normalized_graph
    loader._sample_neg_ids, frozen.InfoNCE, trainer.evaluate = popular, doubled, unmasked
    shifted.__module__ = "utils.utils"
    utils.build_knn_normalized_graph = load("models.frozen").build_knn_normalized_graph = shifted
    evaluator.METRICS["recall"] = half
    _, theirs = run("frozen.Frozen")
    report = mmrec.patch(root=ROOT)
    _, ours = run("frozen.Frozen")
    check_same(ours, theirs)
    assert report.left.keys() == {
        "TrainLoader._sample_neg_ids",
        "Frozen.InfoNCE",
        "utils.utils.build_knn_normalized_graph",
        "TopKEvaluator.evaluate",
        "Trainer.evaluate of Frozen",
    }


def test_a_loss_against_keys_is_tried_with_the_temperature_that_the_model_holds() -> None:
    views = [torch.randn(n, 8, requires_grad=True) for n in (20, 20, 33)]
    trainer, _ = run("noisy.Contrasted", epochs=1)
    model = trainer.model
    model.temperature = model.tau  # another number of that value, which the method does not read

    def results() -> list[torch.Tensor]:
        loss, margin = model.ssl_all(*views), model.ssl_margin(*views)
        return [loss, margin, *torch.autograd.grad(loss + margin, views)]

    theirs = results()
    report = mmrec.patch("contrast", ROOT)
    torch.testing.assert_close(results(), theirs)
    model.tau = 0.5  # it is read at each call
    with_other = results()
    assert report.replaced == ["Contrasted.ssl_all"] and "Contrasted.ssl_margin" in report.left
    mmrec.undo()
    torch.testing.assert_close(with_other, results())


def test_what_is_asked_wrongly() -> None:
    with pytest.raises(ValueError, match="pieces must be of .*, got loader"):
        mmrec.patch(["loader"])
    with mmrec.patch(root=ROOT), pytest.raises(RuntimeError, match="undo"):
        mmrec.patch(root=ROOT)
    mmrec.undo()  # of nothing


@pytest.mark.parametrize("options", [["--without", "sampler"], ["--pieces", "evaluation,products"]])
def test_command_around_an_untouched_tree(options: list[str], tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT.parents[1]), "OMP_NUM_THREADS": "1"}
    plain = [sys.executable, "main.py", "-m", "Propagating"]
    command = [sys.executable, "-m", "smore_ext.compat.mmrec", *options, str(ROOT / "main.py"), "-m", "Propagating"]
    theirs = subprocess.run(plain, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    ours = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    check_same(eval(ours.stdout), eval(theirs.stdout))
    assert "replaced" in ours.stderr and "torch.sparse.mm of sparse_coo 130 x 130" in ours.stderr


def test_command_names_what_it_does_not_know() -> None:
    command = [sys.executable, "-m", "smore_ext.compat.mmrec"]
    for arguments, told in ((["--pieces", "x", "main.py"], "unknown piece x"), (["none.py"], "none.py does not exist")):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and told in done.stderr
