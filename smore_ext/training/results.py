"""What describes a result: the numbers of a run with the protocol, settings, data and versions behind them."""

from __future__ import annotations

from typing import Any

from smore_ext.data import Dataset
from smore_ext.environment import versions
from smore_ext.evaluation.protocol import MASKED
from smore_ext.models import Recommender
from smore_ext.settings.config import RunConfig

UNMADE = ("given", "label", "files")  # splits that the data brings


def run_result(
    config: RunConfig,
    dataset: Dataset,
    model: Recommender,
    protocol: str,
    progress: dict[str, Any],
    validation: dict[str, float],
    test: dict[str, float],
    seconds: dict[str, float],
    stopped: str | None,
) -> dict[str, Any]:
    """One run's numbers with the protocol that made them, its settings, data, times and versions."""
    cfg = config.train
    return {
        "model": cfg.model,
        "dataset": dataset.name,
        "seed": cfg.seed,
        "protocol": {"name": protocol, "masked": MASKED[protocol]},
        "selected_by": f"{cfg.selection} on validation",
        "best_epoch": progress["best_epoch"],
        "epochs_run": progress["next_epoch"],
        "stopped": stopped,
        "validation": validation,
        "test": test,
        "backend": model.backend,
        "seconds": seconds,
        "warnings": list(progress["warnings"]),
        "config": config.to_dict(),
        "settings_from": list(config.sources),
        "data": describe_data(dataset),
        "versions": versions(),
    }


def left_out(dataset: Dataset) -> list[str]:
    """A line of what the data set holds and training does not see, none when it sees all; and what a reader notes."""
    counts = [f"{name.replace('_', ' ')} {count:,}" for name, count in dataset.report.items() if count]
    made = [] if dataset.split["rule"] in UNMADE else [f"split: {split_text(dataset.split)}"]
    return [*([f"not used or counted once: {', '.join(counts)}"] if counts else []), *made, *dataset.notes]


def split_text(split: dict[str, Any]) -> str:
    """`random, ratios [0.8, 0.1, 0.1], seed 0`"""
    return ", ".join([split["rule"], *(f"{name} {value}" for name, value in split.items() if name != "rule")])


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Sizes, contents and fingerprint of a data set."""
    splits = {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "n_users": dataset.n_users,
        "n_items": dataset.n_items,
        "interactions": {name: len(pairs.users) for name, pairs in splits.items()},
        "features": {name: list(feature.shape) for name, feature in dataset.features.items()},
        "graphs": sorted(dataset.graphs),
        "split": dict(dataset.split),
        "ids": "index" if dataset.user_ids is None and dataset.item_ids is None else "raw",
        "report": dict(dataset.report),
        "notes": list(dataset.notes),
    }
