"""A data set and a model small enough for tests of the training loop; the model uses plain PyTorch only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext.data import Dataset, Pairs
from smore_ext.models import MODELS, Batch, Recommender
from smore_ext.models.multi_view import pinned_cause
from smore_ext.models.notices import Occasion, ranking_notices
from smore_ext.runs import RunFolder
from smore_ext.runs.folder import BEST, LAST
from smore_ext.settings.config import RunConfig, TrainConfig
from smore_ext.training import checkpoint
from smore_ext.training.events import Listener
from smore_ext.training.loop import Trainer


@dataclass(frozen=True)
class TinyConfig:
    embedding_dim: int = 4
    dropout: float = 0.0
    cl_weight: float = 0.0


class Tiny(Recommender):
    """Matrix factorisation with dropout on the users; `batches` records what the loop asked for."""

    config_class: ClassVar[type] = TinyConfig

    def __init__(self, dataset: Dataset, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.user = nn.Parameter(torch.randn(dataset.n_users, config.embedding_dim) * 0.1)
        self.item = nn.Parameter(torch.randn(dataset.n_items, config.embedding_dim) * 0.1)
        self.batches: list[Batch] = []
        self.n_embeddings = 0

    def embeddings(self) -> tuple[Tensor, Tensor]:
        self.n_embeddings += 1
        return self.user, self.item

    def loss(self, batch: Batch) -> Tensor:
        self.batches.append(batch)
        users, positives, negatives = batch
        rows = F.dropout(self.user[users], self.config.dropout, self.training)
        difference = (rows * (self.item[positives] - self.item[negatives])).sum(1)
        bpr = -F.logsigmoid(difference).mean()
        reg = 1e-4 * rows.square().sum()
        self.loss_parts = {"bpr": bpr.detach(), "reg": reg.detach()}
        return bpr + reg

    def notices(self, occasion: Occasion) -> list[str]:
        return ranking_notices(occasion, *pinned_cause(self.config.cl_weight))

    def statistics(self) -> dict[str, float]:
        return {"norm": float(self.user.norm())}


def pairs(*items: tuple[int, int]) -> Pairs:
    table = torch.tensor(items, dtype=torch.int64).reshape(-1, 2)
    return Pairs(table[:, 0], table[:, 1])


def interactions(n_users: int = 30, n_items: int = 40) -> dict[str, list[tuple[int, int]]]:
    """Each user likes the items of one half; five train, one validation and one test item a user."""
    generator = torch.Generator().manual_seed(3)
    out: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in range(n_users):
        liked = torch.randperm(n_items // 2, generator=generator)[:7] * 2 + user % 2
        for place, item in enumerate(liked.tolist()):
            split = "train" if place < 5 else "valid" if place == 5 else "test"
            out[split].append((user, item))
    return out


def tiny_dataset() -> Dataset:
    splits = {name: pairs(*items) for name, items in interactions().items()}
    return Dataset.from_pairs("tiny", 30, 40, features={}, graphs={}, **splits)


def write_dataset(folder: Path, name: str = "tiny", features: bool = False, **size: int) -> Path:
    """The same interactions as a data set folder `<folder>/<name>`, on request with random features."""
    lines = ["userID\titemID\tx_label"]
    for label, items in enumerate(interactions(**size).values()):
        lines += [f"{user}\t{item}\t{label}" for user, item in items]
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.inter").write_text("\n".join(lines) + "\n")
    if features:
        random = np.random.default_rng(5)
        for modality, width in (("image", 7), ("text", 6)):
            table = random.standard_normal((40, width), dtype=np.float32)
            np.save(folder / name / f"{modality}_feat.npy", table)
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """More would only wait for each other on sizes like these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tiny_config(model: TinyConfig | None = None, **settings: object) -> RunConfig:
    """Settings of a short run of the model registered as `Tiny`."""
    defaults = {"model": "Tiny", "dataset": "tiny", "epochs": 4, "batch_size": 16, "lr": 0.05, "seed": 1}
    return RunConfig(TrainConfig(**{**defaults, **settings}), model or TinyConfig())


def trainer(
    model: type[Recommender],
    run_dir: Path,
    config: TinyConfig | None = None,
    listeners: Sequence[Listener] = (),
    **settings: object,
) -> Trainer:
    """A short run of a model of one's own, which is then registered as `Tiny`."""
    MODELS["Tiny"] = model
    return Trainer(tiny_config(config, **settings), tiny_dataset(), RunFolder(run_dir), listeners)


def comparable(run_dir: Path) -> tuple[Any, ...]:
    """All that a run leaves, without times and places."""
    result = json.loads((run_dir / "result.json").read_text())
    for name in ("seconds", "config", "settings_from", "versions"):
        del result[name]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    tensors = {}
    for file in (LAST, BEST):
        for name, tensor in checkpoint.load(run_dir / file)[0].items():
            tensors[f"{file} {name}"] = tensor.numpy().tobytes()
    return result, lines, tensors
