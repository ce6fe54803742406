"""What a model may have beyond embeddings and a loss: epoch hooks, target copies, closed form, scores, notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from torch import Tensor, nn

from smore_ext import SMORE, Batch, Dataset, Graph, LightGCN, Recommender, SMOREConfig, ops
from smore_ext.models import MODELS
from smore_ext.models.notices import EarlyLosses, Occasion, RunBegins
from smore_ext.runs import RunFolder
from smore_ext.training import checkpoint
from smore_ext.training import step as steps
from smore_ext.training.events import EpochDone, Event
from smore_ext.training.progress import Progress
from smore_ext.training.step import CapturedStep, Step

BUILT_IN = list(MODELS)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)  # also puts back what `tiny.trainer` registers
    with tiny.one_thread():
        yield


# How a model is made


@pytest.mark.parametrize("model", sorted(BUILT_IN))
def test_every_model_names_arguments_of_another_type(model: str) -> None:
    cls, data = MODELS[model], tiny.tiny_dataset()
    config = cls.config_class.__name__
    with pytest.raises(TypeError, match=rf"{model}: config must be a {config} or None, got dict: {config}\(\*\*sett"):
        cls(data, {"knn_k": 3})
    with pytest.raises(TypeError, match=rf"{model}: config must be a {config} or None, got int"):
        cls(data, config=3)
    with pytest.raises(TypeError, match=rf"{model}: dataset must be a Dataset, got str"):
        cls("baby", cls.config_class())


# The batch


def test_loss_takes_a_batch_or_its_parts() -> None:
    data = tiny.tiny_dataset()
    features = {"image": torch.randn(40, 6)}
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    data = Dataset.from_pairs("tiny", 30, 40, features=features, graphs={}, **splits)
    parts = data.train.users[:20], data.train.items[:20], torch.arange(20)
    for model in (SMORE(data, SMOREConfig(embedding_dim=4, knn_k=3)), LightGCN(data)):
        whole = model.loss(Batch(*parts))
        named = dict(zip(("users", "positives", "negatives"), parts, strict=True))
        assert whole == model.loss(*parts) == model.loss(**named) == model.loss(*Batch(*parts))
        with pytest.raises(TypeError, match="expected a Batch, or users, positives and negatives"):
            model.loss(parts[0])
        with pytest.raises(ValueError, match=r"expected one negative a positive, of shape \(20,\), got none"):
            model.loss(Batch(*parts[:2], None))
        with pytest.raises(ValueError, match=r"one negative a positive, of shape \(20,\), got shape \(20, 2\)"):
            model.loss(Batch(*parts[:2], torch.zeros(20, 2, dtype=torch.int64)))


@pytest.mark.parametrize("model", ["SMORE", "LightGCN", "Tiny"])
def test_every_loss_refuses_ids_that_nobody_has_and_an_empty_batch(model: str) -> None:
    data = tiny.tiny_dataset()
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    data = Dataset.from_pairs("tiny", 30, 40, features={"image": torch.randn(40, 6)}, graphs={}, **splits)
    configs = {
        "SMORE": lambda: SMOREConfig(embedding_dim=4, knn_k=3),
        "LightGCN": lambda: None,
        "Tiny": tiny.TinyConfig,
    }
    made = MODELS[model](data, configs[model]())
    good = Batch(data.train.users[:4], data.train.items[:4], torch.arange(4))
    assert made.loss(good).isfinite()
    for part, wrong, message in (
        ("users", 30, r"users must be in 0\.\.29, got 30 at position 2"),
        ("users", -1, r"users must be in 0\.\.29, got -1 at position 2"),
        ("positives", 40, r"positives must be in 0\.\.39, got 40 at position 2"),
        ("negatives", -1, r"negatives must be in 0\.\.39, got -1 at position 2"),
        ("negatives", 2**40, r"negatives must be in 0\.\.39, got 1099511627776 at position 2"),
    ):
        ids = getattr(good, part).clone()
        ids[2] = wrong
        for call in (lambda b: made.loss(b), lambda b: made.loss(*b)) if model != "Tiny" else (made.loss,):
            with pytest.raises(IndexError, match=rf"{model}\.loss: {message}"):
                call(good._replace(**{part: ids}))
    with pytest.raises(ValueError, match=rf"{model}\.loss: expected at least one interaction, got an empty batch"):
        made.loss(good.map(lambda t: t[:0]))


def test_ids_that_a_sampler_draws_wrongly_are_found_before_the_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny.trainer(tiny.Tiny, tmp_path)
    monkeypatch.setattr(trainer, "sampler", lambda users, epoch: torch.full_like(users, 40))
    with pytest.raises(IndexError, match="negatives must be in 0..39, got 40 at position 0"):
        trainer.run()


@pytest.mark.parametrize(
    ("sampler", "n", "shape"), [("uniform", 1, (16,)), ("popularity", 3, (16, 3)), ("none", 1, ())]
)
def test_a_model_names_its_sampler(tmp_path: Path, sampler: str, n: int, shape: tuple[int, ...]) -> None:
    class Sampled(tiny.Tiny):
        n_negatives = n

        def loss(self, batch: Batch) -> Tensor:
            self.batches.append(batch)
            return (self.user[batch.users] * self.item[batch.positives]).sum()

    Sampled.sampler = sampler
    run = tiny.trainer(Sampled, tmp_path, epochs=1)
    run.run()
    first, last = run.model.batches[0], run.model.batches[-1]
    assert (first.users.shape, first.positives.shape) == ((16,), (16,)) and len(last.users) == 6
    if sampler == "none":
        assert first.negatives is None
    else:
        assert first.negatives.shape == shape and last.negatives.shape == (6, *shape[1:])


def test_a_model_without_a_loss_says_so(tmp_path: Path) -> None:
    class Lossless(tiny.Tiny):
        loss = Recommender.loss

    with pytest.raises(NotImplementedError, match=r"Lossless has trainable parameters but no loss\(batch\)"):
        tiny.trainer(Lossless, tmp_path).run()
    with pytest.raises(ValueError, match="n_negatives must be at least 1, got 0"):
        tiny.trainer(type("Zero", (tiny.Tiny,), {"n_negatives": 0}), tmp_path)
    with pytest.raises(ValueError, match="unknown sampler 'unifrm' .*did you mean 'uniform'"):
        tiny.trainer(type("Wrong", (tiny.Tiny,), {"sampler": "unifrm"}), tmp_path)


# Epoch hooks


class Redrawn(tiny.Tiny):
    """Trains on half of the interactions as a graph, drawn each epoch; ranks without it."""

    capturable = True

    def __init__(self, dataset: Dataset, config: tiny.TinyConfig) -> None:
        super().__init__(dataset, config)
        self.all = dataset.seen
        self.part = dataset.seen
        self.drawn: list[Tensor] = []
        self.modes: list[tuple[bool, bool]] = []

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool:
        self.modes.append((self.training, torch.is_grad_enabled()))
        kept = torch.randperm(self.all.n_edges, generator=generator)[:75]
        self.drawn.append(kept)
        self.part = Graph.from_edges(self.all.row[kept], self.all.col[kept], None, self.all.shape)
        return True

    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) + 0.01 * ops.spmm(self.part, self.item).square().mean()


def test_begin_epoch_gets_a_generator_of_seed_and_epoch(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[Tensor]:
        run = tiny.trainer(Redrawn, tmp_path / str(seed), seed=seed)
        torch.manual_seed(77)  # whatever the global generator does
        run.run()
        assert run.model.modes == [(True, False)] * 4  # in training mode, without gradients
        return run.model.drawn

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert len(first) == 4 and all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


def test_a_resumed_run_redraws_the_same(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.record["epoch"] == 2:
            raise KeyboardInterrupt

    tiny.trainer(Redrawn, tmp_path / "whole", epochs=6).run()
    with pytest.raises(KeyboardInterrupt):
        tiny.trainer(Redrawn, tmp_path / "run", listeners=[stop], epochs=6).run()
    resumed = tiny.trainer(Redrawn, tmp_path / "run", epochs=6)
    resumed.run(resume=True)
    assert len(resumed.model.drawn) == 4  # epochs 2 to 5: the line of epoch 2 came before its checkpoint
    whole, again = (checkpoint.load(RunFolder(tmp_path / name).last)[0] for name in ("whole", "run"))
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


def moving(what: str) -> type[Redrawn]:
    class Moving(Redrawn):
        def __init__(self, dataset: Dataset, config: tiny.TinyConfig) -> None:
            super().__init__(dataset, config)
            self.register_buffer("table", torch.zeros(3))
            self.graphs = {"one": [self.all]}

        def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool | None:
            if what == "part":
                super().begin_epoch(epoch, generator)
            elif what == "table":
                self.table = torch.ones(3)
            elif what == "user":
                self.user.data = self.user.data.clone()
            elif what == "graphs":
                self.graphs["one"][0] = Graph.from_edges(self.all.row, self.all.col, None, self.all.shape)
            else:
                self.table.copy_(torch.ones(3))
            return None

    return Moving


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("part", "part.rowptr, part.col, part.weight"),
        ("table", "table"),
        ("user", "user"),
        ("graphs", r"graphs\[one\]\[0"),
    ],
)
def test_what_moves_unsaid_is_an_error(tmp_path: Path, what: str, names: str) -> None:
    with pytest.raises(RuntimeError, match=rf"Moving: begin_epoch \(which did not return True\) moved {names}"):
        tiny.trainer(moving(what), tmp_path).run()


def test_what_is_written_in_place_is_not(tmp_path: Path) -> None:
    tiny.trainer(moving("in place"), tmp_path).run()


def test_a_model_that_is_never_captured_moves_what_it_likes(tmp_path: Path) -> None:
    tiny.trainer(type("Free", (moving("part"),), {"capturable": False}), tmp_path).run()


def test_ranking_with_what_no_checkpoint_holds_is_said(tmp_path: Path) -> None:
    class Hidden(tiny.Tiny):
        """Items outside the epoch's sample are pushed to the end; the sample is no buffer."""

        def begin_epoch(self, epoch: int, generator: torch.Generator) -> None:
            self.bonus = torch.rand(len(self.item), 1, generator=generator) * 10

        def embeddings(self) -> tuple[Tensor, Tensor]:
            ones = torch.ones(len(self.user), 1)
            return torch.cat([self.user, ones], 1), torch.cat([self.item, self.bonus], 1)

    result = tiny.trainer(Hidden, tmp_path, epochs=5, lr=1e-9).run()
    if result["best_epoch"] == 4:
        pytest.fail("the last epoch is the best: choose another seed")
    assert len(result["warnings"]) == 1
    assert "Hidden evaluates with something that its state dict lacks" in result["warnings"][0]
    assert tiny.trainer(Redrawn, tmp_path / "sound").run()["warnings"] == []


# Steps


class Target(tiny.Tiny):
    """A slow copy of the items, moved after each step."""

    capturable = True

    def __init__(self, dataset: Dataset, config: tiny.TinyConfig) -> None:
        super().__init__(dataset, config)
        self.register_buffer("target", self.item.detach().clone())
        self.expected = self.target.clone()
        self.n_steps = 0

    def after_step(self) -> None:
        assert not torch.is_grad_enabled()
        self.n_steps += 1
        self.target.lerp_(self.item, 0.1)


def test_after_step_follows_every_step(tmp_path: Path) -> None:
    run = tiny.trainer(Target, tmp_path, epochs=2)
    before = run.model.target.clone()
    items: list[Tensor] = []
    take = run.optimizer.step
    run.optimizer.step = lambda *args: (take(*args), items.append(run.model.item.detach().clone()))[0]
    run.run()
    assert run.model.n_steps == len(items) == 20
    for item in items:
        before.lerp_(item, 0.1)
    assert torch.equal(checkpoint.load(RunFolder(tmp_path).last)[0]["model.target"], before)


def test_a_step_that_moves_a_tensor_is_an_error(tmp_path: Path) -> None:
    class Rebinding(Target):
        def after_step(self) -> None:
            self.target = torch.lerp(self.target, self.item.detach(), 0.1)

    with pytest.raises(RuntimeError, match=r"Rebinding: a step \(loss, after_step\) moved target"):
        tiny.trainer(Rebinding, tmp_path).run()


class Counted(nn.Module):
    """Stands in for a model whose loss can be recorded without a batch in place."""

    capturable = True
    loss_parts: dict[str, Tensor] = {}
    addresses = Recommender.addresses
    _tensors = Recommender._tensors

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.answer: bool | None = None

    def loss(self, batch: Batch) -> Tensor:
        return (self.weight * len(batch.users)).sum()

    def after_step(self) -> None:
        pass

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool | None:
        if self.answer:
            self.weight.data = self.weight.data.clone()
        return self.answer


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A CPU that pretends to capture: what the step did, as "record" and "replay"."""
    done: list[str] = []
    stream = SimpleNamespace(wait_stream=lambda _: None)
    graph = SimpleNamespace(replay=lambda: done.append("replay"), pool=lambda: None)

    @contextmanager
    def record(*_: Any, **__: Any) -> Iterator[None]:
        done.append("record")
        yield

    for name, fake in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": nullcontext,
        "CUDAGraph": lambda: graph,
        "graph": record,
    }.items():
        monkeypatch.setattr(steps.torch.cuda, name, fake)
    take = Step._take

    def noted(self: Step, batch: Batch) -> dict[str, Tensor]:
        done.append("step")
        return take(self, batch)

    monkeypatch.setattr(Step, "_take", noted)
    return done


def test_the_model_decides_when_a_step_is_captured_again(recorded: list[str]) -> None:
    model = Counted()
    step = CapturedStep(model, torch.optim.SGD(model.parameters(), 0.1))

    def epoch(answer: bool | None) -> list[str]:
        recorded.clear()
        model.answer = answer
        steps.begin_epoch(model, step, 0, torch.Generator())
        for size in (4, 4, 4, 4, 4, 2):
            step(Batch(torch.zeros(size, dtype=torch.int64), torch.zeros(size, dtype=torch.int64), None))
        return list(recorded)

    once = ["record", "step", "replay"]  # the step that is recorded is not taken
    assert epoch(None) == [*["step"] * steps.WARM_UP, *once, "replay", *once]
    assert epoch(False) == ["replay"] * 6
    assert epoch(True) == [*["step"] * steps.WARM_UP_AGAIN, *once, *["replay"] * 3, *once]
    assert epoch(None) == ["replay"] * 6


# Notices


def test_a_model_says_what_it_makes_of_an_occasion(tmp_path: Path) -> None:
    told: list[Occasion] = []

    class Talking(tiny.Tiny):
        def notices(self, occasion: Occasion) -> list[str]:
            told.append(occasion)
            return ["begins"] if isinstance(occasion, RunBegins) else [f"reg {occasion.means['reg']:.1f}"]

    run = tiny.trainer(Talking, tmp_path, epochs=30, patience=100)
    assert run.run()["warnings"] == ["begins", "reg 0.0"]
    begins, early = told
    assert isinstance(begins, RunBegins) and begins.dataset is run.dataset
    assert isinstance(early, EarlyLosses) and (early.first, early.last) == (201, 300)
    assert set(early.means) == {"loss", "bpr", "reg"}
    resumed = tiny.trainer(Talking, tmp_path, epochs=31, patience=100)
    assert resumed.run(resume=True)["warnings"] == ["begins", "reg 0.0"]  # said once a run


def test_progress_of_an_older_checkpoint() -> None:
    stored = Progress.of_any_version({"steps": 250, "early_bpr": 30.0})
    assert Progress(**stored) == Progress(steps=250, early={"bpr": 30.0})


# Graphs that follow


class Pair(NamedTuple):
    left: Graph
    right: Any


def test_graphs_follow_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tiny.tiny_dataset().seen

    def moved(self: Graph, target: Any) -> Any:
        return ("moved", target)

    monkeypatch.setattr(Graph, "to", moved)
    model = tiny.Tiny(tiny.tiny_dataset(), tiny.TinyConfig())
    model.seen = graph
    model.layer = nn.Linear(1, 1)
    model.layer.graph = graph
    model.pairs, model.listed, model.plain = {"a": Pair(graph, [graph])}, [(graph, 3)], [1, 2]
    plain = model.plain
    model.float()
    there = ("moved", torch.device("cpu"))
    assert model.seen == model.layer.graph == there
    assert model.pairs == {"a": Pair(there, [there])} and isinstance(model.pairs["a"], Pair)
    assert model.listed == [(there, 3)] and model.plain is plain
