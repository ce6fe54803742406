"""The training loop: batches, validation, early stopping, checkpoints. docs/spec.md, section 3 is the protocol.

The loop prints nothing and writes nothing but checkpoints (`keeper.py`), to where its store says; it tells its
listeners what happens (`events.py`). An epoch depends only on weights, optimizer, torch's generators and (seed, epoch),
all of which the last checkpoint holds, so a run that was killed and resumed gives the bits of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from smore_ext.data import Dataset
from smore_ext.environment import since_last_run, versions
from smore_ext.evaluation.metrics import parse_metric
from smore_ext.evaluation.protocol import KS, MASKED, Evaluator
from smore_ext.evaluation.ranking import evaluating
from smore_ext.models import MODELS, Batch, Recommender
from smore_ext.models.notices import EarlyLosses, Occasion, RunBegins
from smore_ext.settings.config import RunConfig, TrainConfig, changed_settings
from smore_ext.training import checkpoint
from smore_ext.training.device import deterministic, matrix_products, reuse_memory, usable_device
from smore_ext.training.events import EpochDone, Event, Listener, RunFinished, RunStarted, StepsDone, Warned
from smore_ext.training.keeper import Keeper, Snapshot
from smore_ext.training.metadata import About
from smore_ext.training.optimizers import adam, learning_rate, set_rate
from smore_ext.training.progress import EARLY_STEPS, LossWindow, Progress
from smore_ext.training.results import left_out, run_result
from smore_ext.training.samplers import make_sampler, stream_seed
from smore_ext.training.step import begin_epoch, make_step
from smore_ext.training.store import Store

READ_EVERY = 20  # steps between two reads of the losses: each read waits for the device


class TrainingDiverged(FloatingPointError):
    """The loss, the embeddings or the scores became NaN or infinite."""


class Trainer:
    """One run of one model with one seed.

    Args:
        config: settings; `config.train.seeds` is ignored, the seed is `config.train.seed`.
        dataset: the data; validation must hold at least one interaction.
        store: says where the checkpoints go; the folder is made when the run starts.
        listeners: called with every event, in order.
        notes: of what was found before, to be said with the warnings.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        store: Store,
        listeners: Sequence[Listener] = (),
        notes: Sequence[str] = (),
    ) -> None:
        cfg = config.train
        if not len(dataset.valid.users):
            raise ValueError(
                f"data set {dataset.name}: expected validation interactions (label 1), got {_why(dataset)}"
            )
        self.config, self.dataset, self.store = config, dataset, store
        self.listeners, self.notes = list(listeners), notes
        self.device = usable_device(cfg.device)
        torch.manual_seed(cfg.seed)
        self.model = build_model(config, dataset, self.device)
        trained = not self.model.closed_form and any(p.requires_grad for p in self.model.parameters())
        captured = cfg.cuda_graph and self.device.type == "cuda" and self.model.capturable
        self.optimizer = adam(self.model, cfg.lr, cfg.fused_adam, captured) if trained else None
        self.step = make_step(self.model, self.optimizer, cfg.amp, captured) if self.optimizer else None
        self.epochs = cfg.epochs if trained else 1  # a model without steps is evaluated once
        drawn = (self.model.sampler, self.model.n_negatives) if trained else ("none", 1)
        self.positives = dataset.train if drawn[0] == "none" else dataset.trained_on
        if not len(self.positives.users):
            raise ValueError(
                f"data set {dataset.name}: expected an item to draw as a negative, got users who saw them all"
            )
        self.n_steps = -(-len(self.positives.users) // cfg.batch_size) if trained else 0
        self.evaluator = make_evaluator(cfg, dataset, cfg.protocol)
        self.sampler = make_sampler(drawn[0], dataset, self.device, cfg.seed, drawn[1])
        self.progress = Progress()
        self.written_before = 0.0  # seconds, in other processes
        self.keeper = Keeper(store, cfg.checkpoint_seconds)

    def run(self, resume: bool = False) -> dict[str, Any]:
        """Trains until early stopping or the last epoch; returns what describes the result (`results.py`).

        With `resume` it goes on from the last checkpoint, when there is one. Raises `TrainingDiverged`
        (the checkpoints stay those of the last good epoch) and `CheckpointError`.
        """
        tf32 = self.config.train.tf32 and self.device.type == "cuda"
        with deterministic(), reuse_memory(), matrix_products(tf32=True) if tf32 else nullcontext():
            if resume and self.store.last.exists():
                self._restore(self.store.last)
            self.written_before = self.progress.seconds_writing
            self.progress.seconds_starting += since_last_run()
            self._emit(self._started())
            for note in self.notes:
                self._warn(note)
            self._take_note(RunBegins(self.dataset))
            if self.progress.next_epoch == 0:
                self.keeper.keep(self._last(), None, write=True, now=True)
            try:
                while not self.stopped:
                    self._epoch(self.progress.next_epoch)
            finally:
                self.keeper.close()
            result = self._result()
        self._emit(RunFinished(self.store.path, result))
        since_last_run()
        return result

    @property
    def stopped(self) -> str | None:
        """Why no epoch follows, or None while one does."""
        if self.progress.bad_epochs > self.config.train.patience:
            return "patience"
        if self.progress.next_epoch < self.epochs:
            return None
        if self.optimizer:
            return "epochs"
        return "closed form" if self.model.closed_form else "nothing to train"

    def _epoch(self, epoch: int) -> None:
        cfg, progress = self.config.train, self.progress
        begin = time.perf_counter()
        losses = self._train(epoch)
        trained = time.perf_counter()
        with self.model.one_forward():
            metrics = self._validation(epoch)
            with evaluating(self.model):
                statistics = self.model.statistics()
        improved = progress.observe(epoch, metrics, cfg.selection)
        evaluated = time.perf_counter()
        progress.seconds_training += trained - begin
        progress.seconds_evaluating += evaluated - trained
        progress.next_epoch = epoch + 1
        record = {
            "epoch": epoch,
            "seed": cfg.seed,
            "protocol": cfg.protocol,
            "lr": learning_rate(cfg, epoch),
            "loss": losses,
            "validation": metrics,
            "improved": improved,
            "best_epoch": progress.best_epoch,
            "seconds": {"training": trained - begin, "evaluating": evaluated - trained},
        }
        if statistics:
            record["statistics"] = statistics
        # The line goes first: should the process die in between, resuming cuts it off and repeats the epoch.
        self._emit(EpochDone(record))
        progress.seconds_writing = self.written_before + self.keeper.waited
        last = self._last()
        best = Snapshot(checkpoint.weights_of(self.model), last.metadata) if improved else None
        every = progress.next_epoch % cfg.checkpoint_every == 0
        self.keeper.keep(last, best, write=every, now=self.stopped is not None)

    def _validation(self, epoch: int) -> dict[str, float]:
        try:
            return self.evaluator(self.model, "valid")
        except FloatingPointError as error:
            raise TrainingDiverged(f"{error} after epoch {epoch}; {self._kept()}") from None

    def _train(self, epoch: int) -> dict[str, float]:
        if self.optimizer is not None:
            return self._train_epoch(epoch)
        if self.model.closed_form:
            with evaluating(self.model):
                self.model.fit(self.dataset)
        return {}

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the train interactions; means of the loss and its parts over the steps."""
        self.model.train()
        assert self.optimizer is not None and self.step is not None
        set_rate(self.optimizer, learning_rate(self.config.train, epoch))
        generator = torch.Generator().manual_seed(stream_seed(self.config.train.seed, epoch, stream=1))
        begin_epoch(self.model, self.step, epoch, generator)
        window = LossWindow()
        begin = time.perf_counter()
        done = 0
        for step, batch in enumerate(batches(self._order(epoch), self.config.train.batch_size)):
            window.add(self.step(batch))
            done += len(batch.users)
            if len(window) == READ_EVERY or step + 1 == self.n_steps:
                newest = self._read(window, epoch, step)
                speed = done / (time.perf_counter() - begin)
                self._emit(StepsDone(epoch, step + 1, self.n_steps, newest, speed))
        return window.means()

    def _order(self, epoch: int) -> Batch:
        """The train interactions in this epoch's order, with their negatives: (seed, epoch) alone decide."""
        train = self.positives
        generator = torch.Generator().manual_seed(stream_seed(self.config.train.seed, epoch))
        order = torch.randperm(len(train.users), generator=generator)
        users = train.users[order].to(self.device)
        batch = Batch(users, train.items[order].to(self.device), self.sampler(users, epoch))
        self.model.check_batch(batch)  # once for a captured step, which does not
        return batch

    def _read(self, window: LossWindow, epoch: int, last_step: int) -> dict[str, float]:
        """The newest losses, after a check that those since the last read are finite."""
        rows = window.read()
        for row, step in zip(rows, range(last_step + 1 - len(rows), last_step + 1), strict=True):
            if not all(map(math.isfinite, row.values())):
                parts = ", ".join(f"{name} {value:.6g}" for name, value in row.items())
                raise TrainingDiverged(
                    f"the loss is not finite at epoch {epoch}, step {step}: {parts}; {self._kept()}; "
                    f"a lower learning rate than {self.config.train.lr:g} may help"
                )
            if (means := self.progress.early_means(row)) is not None:
                self._take_note(EarlyLosses(EARLY_STEPS[0] + 1, EARLY_STEPS[1], means))
        return rows[-1]

    def _take_note(self, occasion: Occasion) -> None:
        """Hands on what the model makes of it."""
        for message in self.model.notices(occasion):
            self._warn(message)

    def _kept(self) -> str:
        last = self.progress.next_epoch - 1
        if last < 0:
            return f"no epoch is done, so {self.store.path} holds the weights at the start"
        return f"checkpoints up to epoch {last} are kept in {self.store.path}"

    def _warn(self, message: str) -> None:
        if message in self.progress.warnings:  # said before the run was resumed
            return
        self.progress.warnings.append(message)
        self._emit(Warned(message))

    def _emit(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    def _started(self) -> RunStarted:
        cfg = self.config.train
        return RunStarted(
            run_dir=self.store.path,
            config=self.config.to_dict(),
            sources=self.config.sources,
            dataset="\n".join([str(self.dataset), *left_out(self.dataset)]),
            protocol=f"{cfg.protocol} ({MASKED[cfg.protocol]})",
            n_parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            first_epoch=self.progress.next_epoch,
            epochs=self.epochs,
            n_steps=self.n_steps,
        )

    def _last(self) -> Snapshot:
        """What the next epoch begins with."""
        stepped = checkpoint.stepped(self.model, self.optimizer)
        about = About.of(self.config, self.dataset, self.progress, stepped)
        return Snapshot(checkpoint.pack(self.model, self.optimizer), about.to_dict())

    def _restore(self, path: Path) -> None:
        tensors, metadata = checkpoint.load(path)
        about = About.read(metadata, path)
        check_data(about.data.fingerprint, self.dataset, str(path))
        check_settings(about.config, self.config, str(path))
        self._check_best(about.progress)
        if about.stepped is None and about.progress.steps and not any(k.startswith("optimizer.") for k in tensors):
            raise checkpoint.CheckpointError(f"{path} holds no moments, and {about.progress.steps} steps were taken")
        checkpoint.unpack(tensors, self.model, self.optimizer, about.stepped, path)
        self.progress = about.progress
        then, now = about.versions, versions()
        for name in ("torch", "smore_ext"):
            if then.get(name) != now[name]:
                self._warn(
                    f"resumed with {name} {now[name]}, the checkpoint is of {then.get(name)}: "
                    f"results may differ from those of an uninterrupted run"
                )

    def _check_best(self, progress: Progress) -> None:
        """The best checkpoint so far must be there when a run goes on: its weights are what the run ends with."""
        if progress.best_epoch < 0:
            return
        if (key := self.config.train.selection) not in progress.validation:
            raise checkpoint.CheckpointError(f"{self.store.last} is damaged: its metadata lack validation {key}")
        found = self._read_best(progress)[1]
        if found < progress.best_epoch:  # it is newer where the process died between the two
            raise checkpoint.CheckpointError(f"{self.store.best} is of epoch {found}, expected {progress.best_epoch}")

    def _read_best(self, progress: Progress) -> tuple[dict[str, torch.Tensor], int]:
        """Its weights and its epoch. Raises `CheckpointError` where it is another run's."""
        weights, metadata = checkpoint.load(self.store.best)
        about = About.read(metadata, self.store.best)
        check_settings(about.config, self.config, str(self.store.best))
        check_data(about.data.fingerprint, self.dataset, str(self.store.best))
        check_value(self.store, about.progress, progress)
        return weights, about.progress.best_epoch

    def _result(self) -> dict[str, Any]:
        """Test metrics of the best validation epoch, and all that describes the run."""
        cfg, progress, data = self.config.train, self.progress, self.dataset
        if progress.best_epoch < 0:
            raise TrainingDiverged(f"no epoch reached a valid {cfg.selection}; {self._kept()}")
        weights, epoch = self._read_best(progress)
        if epoch != progress.best_epoch:
            raise checkpoint.CheckpointError(f"{self.store.best} is of epoch {epoch}, expected {progress.best_epoch}")
        checkpoint.load_weights(self.model, weights, self.store.best)
        self._check_what_is_stored()
        begin = time.perf_counter()
        test = self.evaluator(self.model, "test")
        seconds = {
            "training": progress.seconds_training,
            "evaluating": progress.seconds_evaluating,
            "writing": self.written_before + self.keeper.waited,
            "starting": progress.seconds_starting,
            "testing": time.perf_counter() - begin,
        }
        state, why = asdict(progress), self.stopped
        return run_result(self.config, data, self.model, cfg.protocol, state, progress.validation, test, seconds, why)

    def _check_what_is_stored(self) -> None:
        """Warns when a model with hooks ranks otherwise with the weights of the best epoch than it did then."""
        kind = type(self.model)
        if (kind.begin_epoch, kind.after_step) == (Recommender.begin_epoch, Recommender.after_step):
            return
        then, key = self.progress.validation, self.config.train.selection
        now = self.evaluator(self.model, "valid")
        if now[key] != then[key]:
            self._warn(
                f"validation {key} of epoch {self.progress.best_epoch} was {then[key]:.6f} and is {now[key]:.6f} with "
                f"what its checkpoint holds: {kind.__name__} evaluates with something that its state dict lacks"
            )


def _why(dataset: Dataset) -> str:
    """Why there is no validation pair."""
    if dropped := dataset.report["valid_pairs_dropped"]:
        return f"none that counts: all {dropped:,} were dropped, as their users have no train interaction (label 0)"
    return "none"


def batches(order: Batch, size: int) -> Iterator[Batch]:
    """`size` interactions at a time, the last batch may be smaller."""
    for first in range(0, len(order.users), size):
        yield order.map(itemgetter(slice(first, first + size)))


def make_evaluator(cfg: TrainConfig, dataset: Dataset, protocol: str) -> Evaluator:
    """What a run is evaluated by: the metrics of its settings, and the one that chooses the best epoch."""
    name, k = parse_metric(cfg.selection)
    metrics = tuple(dict.fromkeys([*cfg.metrics, name]))
    return Evaluator(dataset, protocol, tuple({*KS, k}), cfg.eval_batch_size, usable_device(cfg.device), metrics)


def check_settings(stored: dict[str, Any], config: RunConfig, where: str) -> None:
    """Raises `CheckpointError` when a setting that alters the result differs from the stored one."""
    changed = changed_settings(RunConfig.from_dict(stored, where), config)
    if changed:
        listed = ", ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changed.items())
        raise checkpoint.CheckpointError(f"{where}: settings changed since: {listed}; start a new run")


def check_data(fingerprint: str, dataset: Dataset, where: str) -> None:
    if fingerprint != dataset.fingerprint:
        raise checkpoint.CheckpointError(
            f"{where}: not made on this data ({dataset.name}): expected fingerprint {fingerprint[:12]}, "
            f"got {dataset.fingerprint[:12]}"
        )


def check_value(store: Store, best: Progress, last: Progress) -> None:
    """Raises `CheckpointError` unless the best checkpoint's epoch has the value that the last one remembers of it."""
    if best.best_epoch == last.best_epoch and best.best_value != last.best_value:
        raise checkpoint.CheckpointError(
            f"{store.best} and {store.last} are of different runs: epoch {best.best_epoch} has a value of "
            f"{best.best_value} in the one, of {last.best_value} in the other"
        )


def build_model(config: RunConfig, dataset: Dataset, device: torch.device) -> Recommender:
    """The model of a run on `device`."""
    return MODELS[config.train.model].on_device(dataset, config.model, device)
