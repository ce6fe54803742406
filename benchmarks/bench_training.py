"""Whole training steps with the published settings, an epoch, and everything before the first step.

"published" is the reference backend (torch.fft, COO products, eager losses, side information of every node) with
Adam's default loop. "csr-fused" has torch's CSR products and fused Adam instead; the third peer also keeps transposes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import floors
from benchmarks.ceilings import Floor
from benchmarks.inputs import (
    FEATURE_WIDTHS,
    PUBLISHED,
    Size,
    dataset,
    features,
    interactions,
    published_config,
    size_of,
)
from benchmarks.inputs import validation as validation_pairs
from benchmarks.interleave import Case, Comparison, Contender, Setting
from benchmarks.published import PublishedEpoch, before_the_first_step
from benchmarks.training import as_trained, make_step, step_floor
from smore_ext import SMORE, SMOREConfig, load_dataset
from smore_ext.runs import RunFolder
from smore_ext.settings.config import RunConfig, TrainConfig
from smore_ext.training.loop import Trainer

STEP_PEERS = {
    "published": ("reference", False),
    "csr-fused": ("csr", True),
    "csr-fused, stored transpose": ("csr-transpose", True),
}


def step(name: str) -> Case:
    def make(setting: Setting) -> Comparison:
        size, config = size_of(name, setting.shrink), published_config(name)
        data = dataset(size, config.knn_k)
        model, _, native = make_step(data, config, "native", True)
        peers = {peer: Contender(make_step(data, config, *how)[2]) for peer, how in STEP_PEERS.items()}
        return Comparison(Contender(native, as_trained, settle=True), peers, step_floor(model, size))

    return Case("training step", name, make, quick=name == "baby")


def epoch(name: str) -> Case:
    """Sampling, all steps and a validation; no checkpoint is written on either side."""

    def make(setting: Setting) -> Comparison:
        size, config = size_of(name, setting.shrink), published_config(name)
        data = dataset(size, config.knn_k)
        trainer = Trainer(RunConfig(TrainConfig(dataset="random"), config), data, RunFolder(setting.folder))

        def native() -> dict[str, float]:
            trainer._train_epoch(0)
            return trainer.evaluator(trainer.model, "valid")

        trainer.evaluator(trainer.model, "valid")  # its lists are built once a run; so are the peer's
        floor = step_floor(trainer.model, size) * trainer.n_steps
        floor += floors.sample_negatives(len(data.train.users), data.seen.n_edges)
        floor += floors.masked_topk(len(data.valid.users), size.items, config.embedding_dim, 50)
        peer = Contender(PublishedEpoch(data, config), rounds=2)
        return Comparison(Contender(native, as_trained, rounds=3), {"published": peer}, floor)

    return Case("epoch", name, make)


def write_folder(folder: Path, size: Size) -> None:
    """A data set as MMRec's users have it, float32 features."""
    folder.mkdir()
    train = interactions(size)
    later = validation_pairs(size, train)
    label = torch.arange(len(later.users)) % 2 + 1  # half validation, half test
    columns = [torch.cat(parts) for parts in zip(train, later, strict=True)]
    columns.append(torch.cat([torch.zeros_like(train.users), label]))
    table = torch.stack(columns, dim=1).numpy()
    table = np.concatenate([table, [[size.users - 1, size.items - 1, 0]]])  # the largest ids set the sizes
    table = np.unique(table, axis=0)
    _, first = np.unique(table[:, 0] * size.items + table[:, 1], return_index=True)  # one split a pair
    header = "userID\titemID\tx_label"
    np.savetxt(folder / f"{folder.name}.inter", table[first], "%d", delimiter="\t", header=header, comments="")
    for modality, values in features(size.items).items():
        np.save(folder / f"{modality}_feat.npy", values.numpy())


def load_and_build(folder: Path, config: SMOREConfig) -> SMORE:
    return SMORE(load_dataset(folder), config)


def before_first_step(name: str) -> Case:
    """Reading and checking a folder, all graphs (no cache), and the model."""

    def make(setting: Setting) -> Comparison:
        size, config = size_of(name, setting.shrink), published_config(name)
        folder = setting.folder / name
        write_folder(folder, size)
        floor = Floor()
        for width in FEATURE_WIDTHS.values():
            # The file is read once and the model's own copy written, besides the neighbours.
            floor += floors.knn(size.items, width) + Floor(floors.FLOAT * 2 * size.items * width)
        peer = Contender(partial(before_the_first_step, folder, config), rounds=2)
        return Comparison(Contender(partial(load_and_build, folder, config)), {"published": peer}, floor)

    return Case("before the first step", name, make)


CASES = [*(step(name) for name in PUBLISHED), epoch("baby"), before_first_step("baby")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training(measure, case: Case) -> None:
    measure(case)
