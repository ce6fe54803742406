"""The loop: protocol, early stopping, learning rate, batches, notices, results."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rich.console import Console
from torch import Tensor, nn

from smore_ext import runs
from smore_ext.console import ConsoleReport, bar_text, result_table, seeds_table
from smore_ext.data import Dataset
from smore_ext.evaluation.protocol import Evaluator
from smore_ext.evaluation.ranking import embeddings
from smore_ext.graph import Graph
from smore_ext.models import MODELS, Batch
from smore_ext.models.smore import SMOREConfig
from smore_ext.runs import RunFolder, folder, summarise, write_json
from smore_ext.runs.records import JsonReport
from smore_ext.settings.config import RunConfig, TrainConfig
from smore_ext.training import checkpoint
from smore_ext.training.device import deterministic
from smore_ext.training.events import EpochDone, Event, RunFinished, RunStarted, StepsDone, Warned
from smore_ext.training.loop import Trainer, TrainingDiverged
from smore_ext.training.optimizers import learning_rate


@pytest.fixture(autouse=True)
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(MODELS, "Tiny", tiny.Tiny)
    with tiny.one_thread():
        yield


class Scripted:
    """Stands in for the evaluator: validation values from a list, and a record of what was asked."""

    def __init__(self, values: list[float]) -> None:
        self.values = iter(values)
        self.asked: list[tuple[str, Tensor]] = []

    def __call__(self, model: nn.Module, split: str) -> dict[str, float]:
        self.asked.append((split, model.user.detach().clone()))
        value = next(self.values) if split == "valid" else 0.5
        return {f"{name}@{k}": value for name in ("recall", "ndcg") for k in (5, 10, 20, 50)}


def scripted_run(tmp_path: Path, values: list[float], **settings: Any) -> tuple[dict[str, Any], Scripted]:
    run = Trainer(tiny.tiny_config(**{"epochs": 100, **settings}), tiny.tiny_dataset(), RunFolder(tmp_path))
    run.evaluator = Scripted(values)
    return run.run(), run.evaluator


# Early stopping


def test_stops_when_more_than_patience_epochs_bring_nothing(tmp_path: Path) -> None:
    result, _ = scripted_run(tmp_path, [0.1, 0.2, 0.2, 0.1, 0.19, 0.9], patience=2)
    assert (result["best_epoch"], result["epochs_run"], result["stopped"]) == (1, 5, "patience")


def test_an_improvement_resets_the_count(tmp_path: Path) -> None:
    result, _ = scripted_run(tmp_path, [0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1], patience=2)
    assert (result["best_epoch"], result["epochs_run"]) == (3, 7)


def test_stops_at_the_last_epoch(tmp_path: Path) -> None:
    result, _ = scripted_run(tmp_path, [0.1, 0.2, 0.3], epochs=3)
    assert (result["best_epoch"], result["epochs_run"], result["stopped"]) == (2, 3, "epochs")


def test_the_test_split_is_seen_once_with_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    _, evaluator = scripted_run(tmp_path, [0.1, 0.3, 0.2, 0.2], epochs=4)
    assert [split for split, _ in evaluator.asked] == ["valid"] * 4 + ["test"]
    assert torch.equal(evaluator.asked[-1][1], evaluator.asked[1][1])
    assert not torch.equal(evaluator.asked[-1][1], evaluator.asked[3][1])


def test_eval_k_chooses_the_metric(tmp_path: Path) -> None:
    run = Trainer(tiny.tiny_config(eval_k=7, epochs=1), tiny.tiny_dataset(), RunFolder(tmp_path))
    result = run.run()
    assert result["selected_by"] == "recall@7 on validation"
    assert run.progress.best_value == round(result["validation"]["recall@7"], 4)


def test_any_metric_at_any_rank_selects(tmp_path: Path) -> None:
    config = tiny.tiny_config(select_by="mrr@3", metrics=("recall", "hit_rate"), epochs=3)
    run = Trainer(config, tiny.tiny_dataset(), RunFolder(tmp_path))
    result = run.run()
    assert result["selected_by"] == "mrr@3 on validation"
    assert run.progress.best_value == round(result["validation"]["mrr@3"], 4)
    ks = (3, 5, 10, 20, 50)
    assert set(result["test"]) == {f"{name}@{k}" for name in ("recall", "hit_rate", "mrr") for k in ks}
    text = printed(result_table(result))
    assert "by mrr@3 on validation" in text and "hit_rate" in text and "ndcg" not in text
    assert RunConfig.from_dict(result["config"]).train == config.train


# Epochs


def test_learning_rate_is_that_of_lambda_lr(tmp_path: Path) -> None:
    config = tiny.tiny_config(lr=0.01, lr_decay_epochs=3)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.96 ** (epoch / 3))
    rates = []
    run = Trainer(config, tiny.tiny_dataset(), RunFolder(tmp_path))
    run.listeners.append(
        lambda event: (
            rates.append((event.record["lr"], run.optimizer.param_groups[0]["lr"]))
            if isinstance(event, EpochDone)
            else None
        )
    )
    run.run()
    assert len(rates) == 4
    for epoch, (reported, used) in enumerate(rates):
        assert reported == used == learning_rate(config.train, epoch) == schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()


def test_an_epoch_takes_every_interaction_once_in_a_new_order(tmp_path: Path) -> None:
    dataset = tiny.tiny_dataset()
    run = Trainer(tiny.tiny_config(epochs=2), dataset, RunFolder(tmp_path))
    run.run()
    sizes = [len(users) for users, _, _ in run.model.batches]
    n_train = len(dataset.train.users)  # 150: nine batches of 16, and the short one is kept
    assert sizes == ([16] * 9 + [6]) * 2
    users, positives, negatives = (torch.cat(column) for column in zip(*run.model.batches, strict=True))
    expected = sorted((dataset.train.users * 100 + dataset.train.items).tolist())
    first, second = (users * 100 + positives).split(n_train)
    assert sorted(first.tolist()) == sorted(second.tolist()) == expected
    assert not torch.equal(first, second)
    seen = set((dataset.train.users * 100 + dataset.train.items).tolist())
    assert not seen & set((users * 100 + negatives).tolist())
    assert set(negatives.tolist()) <= set(dataset.candidates.tolist())


def test_batches_follow_from_seed_and_epoch(tmp_path: Path) -> None:
    def batches(seed: int) -> list[Batch]:
        run = Trainer(tiny.tiny_config(seed=seed, epochs=2), tiny.tiny_dataset(), RunFolder(tmp_path / str(seed)))
        return [run._order(epoch) for epoch in (0, 1)]

    first, again, other = batches(1), batches(1), batches(2)
    for a, b in zip(first, again, strict=True):
        assert all(map(torch.equal, a, b))
    for column in range(3):
        assert not torch.equal(first[0][column], first[1][column])
        assert not torch.equal(first[0][column], other[0][column])


def test_training_learns(tmp_path: Path) -> None:
    result = Trainer(tiny.tiny_config(epochs=20), tiny.tiny_dataset(), RunFolder(tmp_path)).run()
    assert result["test"]["recall@20"] > 0.8  # half of the 40 items are right for a user; chance is about 0.5


# Protocols


class Fixed(tiny.Tiny):
    """Ranks items 0, 1, 2, ... for every user."""

    def embeddings(self) -> tuple[Tensor, Tensor]:
        self.n_embeddings += 1
        return torch.ones(len(self.user), 1), torch.arange(len(self.item), 0, -1).float()[:, None]


@pytest.fixture
def ranked() -> Dataset:
    """User 0: train 0, validation 1, test 3. User 1: train 5, validation 0 and 2, no test. User 2: test 1."""
    return Dataset.from_pairs(
        "ranked",
        4,
        6,
        train=tiny.pairs((0, 0), (1, 5), (2, 4), (3, 3)),
        valid=tiny.pairs((0, 1), (1, 0), (1, 2)),
        test=tiny.pairs((0, 3), (2, 1)),
        features={},
        graphs={},
    )


def test_protocols_by_hand(ranked: Dataset) -> None:
    model = Fixed(ranked, tiny.TinyConfig())
    mmrec, strict = (Evaluator(ranked, protocol, ks=(1, 2)) for protocol in ("mmrec", "strict"))
    # Validation: user 0 ranks 1, 2, 3, ... (0 is masked) and has 1; user 1 ranks 0, 1, 2, ..., has 0 and 2.
    for evaluator in (mmrec, strict):
        valid = evaluator(model, "valid")
        assert valid["recall@1"] == pytest.approx((1 + 0.5) / 2)
        assert valid["recall@2"] == pytest.approx((1 + 0.5) / 2)
    # Test, mmrec: user 0 ranks 1, 2, 3 and has 3: found at rank 3. User 2 ranks 0, 1 and has 1.
    assert mmrec(model, "test")["recall@2"] == pytest.approx((0 + 1) / 2)
    # Test, strict: validation item 1 of user 0 is masked too, so 3 comes second.
    assert strict(model, "test")["recall@2"] == pytest.approx(1.0)
    assert strict(model, "test")["recall@1"] == 0.0


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_embeddings_are_computed_once_per_evaluation(ranked: Dataset, batch_size: int) -> None:
    model = Fixed(ranked, tiny.TinyConfig())
    evaluator = Evaluator(ranked, "mmrec", ks=(1, 2), batch_size=batch_size)
    assert evaluator(model, "valid")["recall@2"] == pytest.approx(0.75)
    assert model.n_embeddings == 1


def test_evaluation_leaves_mode_and_generator_alone(ranked: Dataset) -> None:
    model = tiny.Tiny(ranked, tiny.TinyConfig(dropout=0.5)).train()
    before = torch.get_rng_state()
    Evaluator(ranked)(model, "valid")
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_embeddings_must_be_finite(ranked: Dataset) -> None:
    model = tiny.Tiny(ranked, tiny.TinyConfig())
    model.item.data[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="item embeddings hold NaN or infinity"):
        embeddings(model)


def test_unknown_protocol(ranked: Dataset) -> None:
    with pytest.raises(ValueError, match="protocol: expected one of mmrec, strict, got 'other'"):
        Evaluator(ranked, "other")


def test_no_test_interactions_give_no_test_metrics(ranked: Dataset) -> None:
    empty = Dataset.from_pairs(
        "e", 4, 6, train=ranked.train, valid=ranked.valid, test=tiny.pairs(), features={}, graphs={}
    )
    assert Evaluator(empty)(Fixed(empty, tiny.TinyConfig()), "test") == {}


def test_no_validation_interactions_is_an_error(ranked: Dataset, tmp_path: Path) -> None:
    empty = Dataset.from_pairs(
        "e", 4, 6, train=ranked.train, valid=tiny.pairs(), test=ranked.test, features={}, graphs={}
    )
    with pytest.raises(ValueError, match="expected validation interactions"):
        Trainer(tiny.tiny_config(), empty, RunFolder(tmp_path))


@pytest.mark.parametrize("protocol", ["mmrec", "strict"])
def test_protocol_is_named_in_every_output(tmp_path: Path, protocol: str) -> None:
    result = Trainer(
        tiny.tiny_config(protocol=protocol, epochs=1), tiny.tiny_dataset(), RunFolder(tmp_path), [JsonReport(tmp_path)]
    ).run()
    assert json.loads((tmp_path / "result.json").read_text())["protocol"]["name"] == protocol
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["protocol"] == protocol
    assert f"protocol {protocol}" in printed(result_table(result))
    assert f"protocol {protocol}" in printed(seeds_table(summarise([result], tiny.tiny_config(seeds=(1,)))))


def printed(content: Any) -> str:
    console = Console(file=io.StringIO(), width=110)
    console.print(content)
    return console.file.getvalue()


# What goes wrong


def diverging(step: int, value: float = math.nan) -> type[nn.Module]:
    class Diverging(tiny.Tiny):
        def loss(self, batch: Batch) -> Tensor:
            loss = super().loss(batch)
            if len(self.batches) == step + 1:
                self.loss_parts["bpr"] = self.loss_parts["bpr"] * value
                return loss * value
            return loss

    return Diverging


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setitem(MODELS, "Tiny", diverging(10 + 3, value))  # ten steps an epoch
    run = Trainer(tiny.tiny_config(), tiny.tiny_dataset(), RunFolder(tmp_path))
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step 3: loss (nan|inf), bpr (nan|inf), reg \d") as caught:
        run.run()
    assert f"checkpoints up to epoch 0 are kept in {tmp_path}" in str(caught.value)
    tensors, metadata = checkpoint.load(tmp_path / folder.LAST)
    assert metadata["progress"]["next_epoch"] == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_weights_that_are_not_finite_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(event: Event) -> None:
        if isinstance(event, EpochDone):
            run.optimizer.param_groups[0]["lr"] = 0.0

    run = Trainer(tiny.tiny_config(), tiny.tiny_dataset(), RunFolder(tmp_path), [spoil])
    train_epoch = run._train_epoch

    def train_then_spoil(epoch: int) -> dict[str, float]:
        losses = train_epoch(epoch)
        if epoch == 1:
            run.model.user.data[0, 0] = math.inf
        return losses

    monkeypatch.setattr(run, "_train_epoch", train_then_spoil)
    with pytest.raises(TrainingDiverged, match="user embeddings hold NaN or infinity after epoch 1"):
        run.run()
    assert checkpoint.load_metadata(tmp_path / folder.LAST)["progress"]["next_epoch"] == 1


def bpr_of(value: float) -> type[nn.Module]:
    class Constant(tiny.Tiny):
        def loss(self, batch: Batch) -> Tensor:
            loss = super().loss(batch)
            self.loss_parts["bpr"] = torch.tensor(value)
            return loss

    return Constant


@pytest.mark.parametrize(
    ("bpr", "cl_weight", "said"),
    [
        (0.6925, 0.01, "the likely cause is cl_weight 0.01"),
        (0.75, 0.01, "the likely cause is cl_weight 0.01"),
        (0.6925, 0.0, "the learning rate may be too low"),
        (0.68, 0.01, None),  # more than 1 % below ln 2
    ],
)
def test_a_bpr_term_pinned_at_ln_2_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bpr: float, cl_weight: float, said: str | None
) -> None:
    monkeypatch.setitem(MODELS, "Tiny", bpr_of(bpr))
    events: list[Event] = []
    config = tiny.tiny_config(tiny.TinyConfig(cl_weight=cl_weight), epochs=35, patience=100)  # 350 steps
    result = Trainer(config, tiny.tiny_dataset(), RunFolder(tmp_path), [events.append]).run()
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert result["warnings"] == warned
    assert len(warned) == (1 if said else 0)
    if said:
        assert "over steps 201-300" in warned[0] and said in warned[0]
        assert "warning: the BPR term" in printed(result_table(result))


def test_a_short_run_says_nothing_about_bpr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "Tiny", bpr_of(math.log(2)))
    assert Trainer(tiny.tiny_config(epochs=29), tiny.tiny_dataset(), RunFolder(tmp_path)).run()["warnings"] == []


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device: 'nowhere' cannot be used"):
        Trainer(tiny.tiny_config(device="nowhere"), tiny.tiny_dataset(), RunFolder(tmp_path))


def test_deterministic_mode_is_put_back() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before


# Results


def test_records_and_result(tmp_path: Path) -> None:
    events: list[Event] = []
    config = tiny.tiny_config(epochs=3)
    result = Trainer(config, tiny.tiny_dataset(), RunFolder(tmp_path), [events.append, JsonReport(tmp_path)]).run()
    records = [event.record for event in events if isinstance(event, EpochDone)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == records
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert set(lines[0]["loss"]) == {"loss", "bpr", "reg"}
    assert set(lines[0]["statistics"]) == {"norm"}
    assert lines[result["best_epoch"]]["validation"] == result["validation"]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert isinstance(events[-1], RunFinished) and events[-1].result == result
    metrics = {f"{name}@{k}" for name in ("recall", "precision", "ndcg", "map") for k in (5, 10, 20, 50)}
    assert set(result["validation"]) == set(result["test"]) == metrics
    assert result["data"]["fingerprint"] == tiny.tiny_dataset().fingerprint
    assert result["versions"]["torch"] == torch.__version__
    assert result["versions"]["smore_ext"] and result["versions"]["build"]
    assert result["config"] == config.to_dict()
    assert RunConfig.from_dict(result["config"]).train == config.train


def test_popularity_is_evaluated_once(tmp_path: Path) -> None:
    dataset = tiny.tiny_dataset()
    config = RunConfig(tiny.tiny_config().train, MODELS["Popularity"].config_class()).replace(model="Popularity")
    result = Trainer(config, dataset, RunFolder(tmp_path), [JsonReport(tmp_path)]).run()
    assert (result["epochs_run"], result["stopped"]) == (1, "nothing to train")
    assert result["test"]["recall@50"] == pytest.approx(1.0)  # 40 items
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / folder.BEST).is_file()
    assert "nothing to train" in printed(result_table(result))


@pytest.fixture
def results(tmp_path: Path) -> Iterator[Callable[[int, float], dict[str, Any]]]:
    result = Trainer(tiny.tiny_config(epochs=1), tiny.tiny_dataset(), RunFolder(tmp_path)).run()

    def make(seed: int, value: float) -> dict[str, Any]:
        metrics = {"recall@20": value}
        return result | {
            "seed": seed,
            "validation": metrics,
            "test": metrics,
            "warnings": ["x"] * (seed == 2),
        }

    yield make


def test_seeds_are_summarised(results: Callable[[int, float], dict[str, Any]]) -> None:
    summary = summarise([results(1, 0.1), results(2, 0.2), results(3, 0.6)], tiny.tiny_config(seeds=(1, 2, 3)))
    assert summary["seeds"] == [1, 2, 3]
    assert summary["test"]["recall@20"]["mean"] == pytest.approx(0.3)
    assert summary["test"]["recall@20"]["std"] == pytest.approx(math.sqrt(0.07))  # of a sample: divided by n - 1
    assert [run["test"]["recall@20"] for run in summary["runs"]] == [0.1, 0.2, 0.6]
    assert summary["warnings"] == ["seed 2: x"]
    assert "0.3000 ±0.2646" in printed(seeds_table(summary))


def test_one_seed_has_no_deviation(results: Callable[[int, float], dict[str, Any]]) -> None:
    summary = summarise([results(1, 0.1)], tiny.tiny_config(seeds=(1,)))
    assert summary["test"]["recall@20"] == {"mean": 0.1, "std": None}
    assert "0.1000 " in printed(seeds_table(summary))


# The console and the files


def test_a_console_that_fails_is_dropped(tmp_path: Path) -> None:
    class Gone(io.StringIO):
        calls = 0

        def write(self, text: str) -> int:
            Gone.calls += 1
            raise OSError("gone")

    report = ConsoleReport(Console(file=Gone(), width=80))
    result = Trainer(tiny.tiny_config(), tiny.tiny_dataset(), RunFolder(tmp_path), [report]).run()
    assert result["epochs_run"] == 4 and Gone.calls == 1


def test_files_come_before_listeners(tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, RunFinished):
            raise SystemExit(1)

    with pytest.raises(SystemExit):
        runs.train(tiny.tiny_config(), tiny.tiny_dataset(), tmp_path, [listen])
    assert json.loads((tmp_path / "result.json").read_text())["epochs_run"] == 4


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_bar_fits_80_columns() -> None:
    loss = {"loss": 0.693147, "bpr": 0.693147, "cl": 7.123456, "reg": 0.000123456}
    text = bar_text(StepsDone(999, 3456, 3456, loss, 123_456.0))
    assert text == "loss 0.693 bpr 0.693 cl 7.12 reg 0.000123 123k/s"
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with ConsoleReport(console) as report:
        report(RunStarted(Path("r"), {"train": {"model": "m", "seed": 1}}, (), "d", "p", 1, 999, 1000, 3456))
        report(StepsDone(999, 3456, 3456, loss, 123_456.0))
        bar = report._bar
        assert bar is not None
        plain = Console(file=io.StringIO(), width=80)
        plain.print(bar.get_renderable())
    assert len(plain.file.getvalue().splitlines()) == 1 and "123k/s" in plain.file.getvalue()


def test_graphs_of_the_data_leave_knn_k_unused(tmp_path: Path) -> None:
    base = tiny.tiny_dataset()
    features = {"image": torch.randn(40, 3), "text": torch.randn(40, 4)}
    splits = {"train": base.train, "valid": base.valid, "test": base.test}
    graphs = {name: Graph.knn(feature, 3) for name, feature in features.items()}

    def warnings(knn_k: int, brought: list[str]) -> list[str]:
        own = {name: graphs[name] for name in brought}
        data = Dataset.from_pairs("tiny", 30, 40, features=features, graphs=own, **splits)
        settings = SMOREConfig(embedding_dim=4, batch_size=64, knn_k=knn_k)
        config = RunConfig(TrainConfig(epochs=1), settings)
        return Trainer(config, data, RunFolder(tmp_path)).run()["warnings"]

    assert warnings(4, ["image", "text"]) == [
        "knn_k 4 is not used: the data set brings the item graphs of image, text",
    ]
    assert warnings(4, ["image"]) == []
    assert warnings(SMOREConfig().knn_k, ["image", "text"]) == []
