"""The training loop: batches, validation, early stopping, checkpoints. docs/spec.md, section 3 is the protocol.

The loop prints nothing and writes nothing but checkpoints; it tells its listeners what happens (`events.py`).
An epoch depends only on weights, optimizer, torch's generators and (seed, epoch), all of which `last` holds,
so a run that was killed and resumed gives the bits of one that was not.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smore_ext import ops
from smore_ext._native import set_host_cache
from smore_ext.data import Dataset
from smore_ext.environment import versions
from smore_ext.evaluation.protocol import KS, MASKED, Evaluator
from smore_ext.models import MODELS, FactoredAdam, Recommender
from smore_ext.runs.results import left_out, run_result
from smore_ext.settings.config import RunConfig, TrainConfig, changed_settings
from smore_ext.training import checkpoint
from smore_ext.training.events import EpochDone, Event, Listener, RunFinished, RunStarted, StepsDone, Warned
from smore_ext.training.progress import LossWindow, Progress
from smore_ext.training.step import make_step

READ_EVERY = 20  # steps between two reads of the losses: each read waits for the device
# The ranking loss of random scores is ln 2. A run whose BPR term, over steps 201 to 300, has not fallen at
# least 1 % below that is not learning to rank.
PINNED_STEPS = (200, 300)
PINNED_BELOW = 0.99 * math.log(2)


class TrainingDiverged(FloatingPointError):
    """The loss or the embeddings became NaN or infinite."""


class Trainer:
    """One run of one model with one seed.

    Args:
        config: settings; `config.train.seeds` is ignored, the seed is `config.train.seed`.
        dataset: the data; validation must hold at least one interaction.
        run_dir: where the checkpoints go, made when the run starts.
        listeners: called with every event, in order.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, run_dir: Path, listeners: Sequence[Listener] = ()) -> None:
        cfg = config.train
        if not len(dataset.valid.users):
            raise ValueError(f"data set {dataset.name}: expected validation interactions (label 1), got none")
        self.config, self.dataset, self.run_dir = config, dataset, Path(run_dir)
        self.listeners = list(listeners)
        self.device = usable_device(cfg.device)
        torch.manual_seed(cfg.seed)
        self.model = build_model(config, dataset, self.device)
        trainable = any(parameter.requires_grad for parameter in self.model.parameters())
        captured = cfg.cuda_graph and self.device.type == "cuda" and self.model.capturable
        self.optimizer = adam(self.model, cfg.lr, cfg.fused_adam, captured) if trainable else None
        self.step = make_step(self.model, self.optimizer, cfg.amp, captured) if self.optimizer else None
        self.epochs = cfg.epochs if trainable else 1  # a model without parameters is evaluated once
        self.batch_size: int = cfg.batch_size
        self.n_steps = -(-len(dataset.train.users) // self.batch_size) if trainable else 0
        ks = {*KS, cfg.eval_k}
        self.evaluator = Evaluator(dataset, cfg.protocol, tuple(ks), cfg.eval_batch_size, self.device)
        self.seen, self.candidates = dataset.seen.to(self.device), dataset.candidates.to(self.device)
        self.progress = Progress()

    def run(self, resume: bool = False) -> dict[str, Any]:
        """Trains until early stopping or the last epoch; returns the content of `result.json`.

        With `resume` it goes on from the `last` checkpoint, when there is one. Raises `TrainingDiverged`
        (the checkpoints stay those of the last good epoch) and `CheckpointError`.
        """
        tf32 = self.config.train.tf32 and self.device.type == "cuda"
        with deterministic(), reuse_memory(), matrix_products(tf32=True) if tf32 else nullcontext():
            last = self.run_dir / checkpoint.LAST
            if resume and last.is_file():
                self._restore(last)
            self._emit(self._started())
            if (unused := unused_setting(config=self.config, dataset=self.dataset, model=self.model)) is not None:
                self._warn(unused)
            if self.progress.next_epoch == 0:
                self._save_last()
            while not self.stopped:
                self._epoch(self.progress.next_epoch)
            result = self._result()
        self._emit(RunFinished(self.run_dir, result))
        return result

    @property
    def stopped(self) -> str | None:
        """Why no epoch follows, or None while one does."""
        if self.progress.bad_epochs > self.config.train.patience:
            return "patience"
        if self.progress.next_epoch < self.epochs:
            return None
        return "epochs" if self.optimizer else "nothing to train"

    def _epoch(self, epoch: int) -> None:
        cfg, progress = self.config.train, self.progress
        begin = time.perf_counter()
        losses = self._train_epoch(epoch) if self.optimizer else {}
        trained = time.perf_counter()
        try:
            metrics = self.evaluator(self.model, "valid")
        except FloatingPointError as error:
            raise TrainingDiverged(f"{error} after epoch {epoch}; {self._kept()}") from None
        improved = progress.observe(epoch, metrics, f"recall@{cfg.eval_k}")
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
        self.model.eval()
        with torch.no_grad():
            statistics = self.model.statistics()
        if statistics:
            record["statistics"] = statistics
        # The line goes first: should the process die in between, resuming cuts it off and repeats the epoch.
        self._emit(EpochDone(record))
        if improved:
            checkpoint.save(self.run_dir / checkpoint.BEST, self.model.state_dict(), self._metadata())
        if self.stopped or progress.next_epoch % cfg.checkpoint_every == 0:
            self._save_last()

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the train interactions; means of the loss and its parts over the steps."""
        self.model.train()
        assert self.optimizer is not None and self.step is not None
        set_rate(self.optimizer, learning_rate(self.config.train, epoch))
        triples = self._triples(epoch)
        window = LossWindow()
        begin = time.perf_counter()
        done = 0
        for step, batch in enumerate(triples.split(self.batch_size, dim=1)):
            window.add(self.step(batch))
            done += batch.shape[1]
            if len(window) == READ_EVERY or step + 1 == self.n_steps:
                newest = self._read(window, epoch, step)
                speed = done / (time.perf_counter() - begin)
                self._emit(StepsDone(epoch, step + 1, self.n_steps, newest, speed))
        return window.means()

    def _triples(self, epoch: int) -> Tensor:
        """Users, items and one negative each of the train interactions, `[3, E]`, in this epoch's order.

        They depend on (seed, epoch) only.
        """
        train, seed = self.dataset.train, self.config.train.seed
        generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
        order = torch.randperm(len(train.users), generator=generator)
        users = train.users[order].to(self.device)
        negatives = ops.sample_negatives(users, self.seen, self.candidates, seed=seed, offset=epoch)
        return torch.stack([users, train.items[order].to(self.device), negatives])

    def _read(self, window: LossWindow, epoch: int, last_step: int) -> dict[str, float]:
        """The newest losses, after a check that those since the last read are finite and that BPR moves."""
        rows = window.read()
        for row, step in zip(rows, range(last_step + 1 - len(rows), last_step + 1), strict=True):
            if not all(map(math.isfinite, row.values())):
                parts = ", ".join(f"{name} {value:.6g}" for name, value in row.items())
                raise TrainingDiverged(
                    f"the loss is not finite at epoch {epoch}, step {step}: {parts}; {self._kept()}; "
                    f"a lower learning rate than {self.config.train.lr:g} may help"
                )
            self._watch_bpr(row.get("bpr"))
        return rows[-1]

    def _watch_bpr(self, bpr: float | None) -> None:
        progress = self.progress
        progress.steps += 1
        first, last = PINNED_STEPS
        if bpr is None or not first < progress.steps <= last:
            return
        progress.early_bpr += bpr
        mean = progress.early_bpr / (last - first)
        if progress.steps == last and mean > PINNED_BELOW:
            self._warn(pinned_message(mean, getattr(self.config.model, "cl_weight", 0.0)))

    def _kept(self) -> str:
        return f"checkpoints up to epoch {self.progress.next_epoch - 1} are kept in {self.run_dir}"

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
            run_dir=self.run_dir,
            config=self.config.to_dict(),
            sources=self.config.sources,
            dataset="\n".join([str(self.dataset), *left_out(self.dataset)]),
            protocol=f"{cfg.protocol} ({MASKED[cfg.protocol]})",
            n_parameters=sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            first_epoch=self.progress.next_epoch,
            epochs=self.epochs,
            n_steps=self.n_steps,
        )

    def _metadata(self) -> dict[str, Any]:
        return {
            "config": self.config.to_dict(),
            "data": {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint},
            "progress": asdict(self.progress),
            "settings_from": list(self.config.sources),
            "versions": versions(),
        }

    def _save_last(self) -> None:
        path = self.run_dir / checkpoint.LAST
        checkpoint.save(path, checkpoint.pack(self.model, self.optimizer), self._metadata())

    def _restore(self, path: Path) -> None:
        tensors, metadata = checkpoint.load(path)
        check_data(metadata["data"]["fingerprint"], self.dataset, str(path))
        check_settings(metadata["config"], self.config, str(path))
        checkpoint.unpack(tensors, self.model, self.optimizer)
        self.progress = Progress(**metadata["progress"])
        then, now = metadata["versions"], versions()
        for name in ("torch", "smore_ext"):
            if then.get(name) != now[name]:
                self._warn(
                    f"resumed with {name} {now[name]}, the checkpoint is of {then.get(name)}: "
                    f"results may differ from those of an uninterrupted run"
                )

    def _result(self) -> dict[str, Any]:
        """Test metrics of the best validation epoch, and all that describes the run."""
        cfg, progress, data = self.config.train, self.progress, self.dataset
        if progress.best_epoch < 0:
            raise TrainingDiverged(f"no epoch reached a valid recall@{cfg.eval_k}; {self._kept()}")
        path = self.run_dir / checkpoint.BEST
        weights, metadata = checkpoint.load(path)
        if (epoch := metadata["progress"]["best_epoch"]) != progress.best_epoch:
            raise checkpoint.CheckpointError(f"{path} is of epoch {epoch}, expected {progress.best_epoch}")
        checkpoint.load_weights(self.model, weights)
        begin = time.perf_counter()
        test = self.evaluator(self.model, "test")
        seconds = {
            "training": progress.seconds_training,
            "evaluating": progress.seconds_evaluating,
            "testing": time.perf_counter() - begin,
        }
        state, why = asdict(progress), self.stopped
        return run_result(self.config, data, cfg.protocol, state, progress.validation, test, seconds, why)


def learning_rate(cfg: TrainConfig, epoch: int) -> float:
    """Rate in epoch `epoch` (from 0): `lr` times `lr_decay^(epoch / lr_decay_epochs)`, set once per epoch."""
    return cfg.lr * cfg.lr_decay ** (epoch / cfg.lr_decay_epochs)


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of an epoch's order: 32 mixed bits, since torch's CPU generator looks at no more."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def unused_setting(config: RunConfig, dataset: Dataset, model: nn.Module) -> str | None:
    """What to say when `knn_k` is not the default and the data set brings the item graphs of all modalities."""
    own, used = config.model, getattr(model, "modalities", ())
    k = getattr(own, "knn_k", None)
    if k is None or k == type(own).knn_k or not used or not set(used) <= set(dataset.graphs):
        return None
    return f"knn_k {k} is not used: the data set brings the item graphs of {', '.join(used)}"


def pinned_message(bpr: float, cl_weight: float) -> str:
    head = (
        f"the BPR term is {bpr:.4f} over steps {PINNED_STEPS[0] + 1}-{PINNED_STEPS[1]}, "
        f"random scores give ln 2 = {math.log(2):.4f}: the model has not begun to rank"
    )
    if not cl_weight:
        return f"{head}; the learning rate may be too low"
    return (
        f"{head}; the likely cause is cl_weight {cl_weight:g}, whose term outweighs the ranking loss "
        f"on small or narrow features: try --cl-weight 0"
    )


def check_settings(stored: dict[str, Any], config: RunConfig, where: str) -> None:
    """Raises `CheckpointError` when a setting that alters the result differs from the stored one."""
    changed = changed_settings(stored, config.to_dict())
    if changed:
        listed = ", ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changed.items())
        raise checkpoint.CheckpointError(f"{where}: settings changed since: {listed}; start a new run")


def check_data(fingerprint: str, dataset: Dataset, where: str) -> None:
    if fingerprint != dataset.fingerprint:
        raise checkpoint.CheckpointError(
            f"{where}: not made on this data ({dataset.name}): expected fingerprint {fingerprint[:12]}, "
            f"got {dataset.fingerprint[:12]}"
        )


def build_model(config: RunConfig, dataset: Dataset, device: torch.device) -> Recommender:
    """The model of a run on `device`."""
    return MODELS[config.train.model].on_device(dataset, config.model, device)


def adam(model: Recommender, lr: float, fused: bool, capturable: bool = False) -> torch.optim.Adam:
    """Adam over what is trained; with `fused`, feature tables are stepped without forming their gradient.

    With `capturable`, a captured step may hold its step: the rate is then a tensor beside the parameters.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = torch.tensor(lr, dtype=torch.float32, device=trainable[0].device) if capturable else lr
    if fused and (tables := model.feature_tables()):
        return FactoredAdam(trainable, tables, lr=rate, capturable=capturable)
    return torch.optim.Adam(trainable, lr=rate, fused=fused, capturable=capturable)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of all parameters; a captured step reads it where it stands."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def usable_device(name: str) -> torch.device:
    """The torch device of that name; `ValueError` when there is none on this machine."""
    # cuBLAS gives the same bits every time only with a workspace of fixed size, and reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device: {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return device


HOST_CACHE_BYTES = 1 << 30


@contextmanager
def reuse_memory() -> Iterator[None]:
    """Large CPU tensors of a step reuse the memory of the step before; what is kept is given back at the end."""
    set_host_cache(HOST_CACHE_BYTES)
    try:
        yield
    finally:
        set_host_cache(None)


@contextmanager
def matrix_products(tf32: bool) -> Iterator[None]:
    """torch's float32 matrix products in TF32 on GPUs that have it, or in full float32, whatever was set before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """torch's own ops deterministic where they can be: by default, indexing's backward adds atomically."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would write every output twice
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill
