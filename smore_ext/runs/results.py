"""The content of `result.json`: everything that describes a result, of one run and of several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from smore_ext.data import Dataset
from smore_ext.environment import versions
from smore_ext.evaluation.protocol import MASKED
from smore_ext.settings.config import RunConfig


def run_result(
    config: RunConfig,
    dataset: Dataset,
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
        "selected_by": f"recall@{cfg.eval_k} on validation",
        "best_epoch": progress["best_epoch"],
        "epochs_run": progress["next_epoch"],
        "stopped": stopped,
        "validation": validation,
        "test": test,
        "backend": getattr(config.model, "backend", None),
        "seconds": seconds,
        "warnings": list(progress["warnings"]),
        "config": config.to_dict(),
        "settings_from": list(config.sources),
        "data": describe_data(dataset),
        "versions": versions(),
    }


def left_out(dataset: Dataset) -> list[str]:
    """One line of what the data set holds and training does not see; none when it sees all."""
    counts = [f"{name.replace('_', ' ')} {count:,}" for name, count in dataset.report.items() if count]
    return [f"not used or counted once: {', '.join(counts)}"] if counts else []


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
        "report": dict(dataset.report),
    }


def summarise(results: Sequence[dict[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds of every metric, beside the numbers of each seed."""
    first = results[0]
    same = ("model", "dataset", "protocol", "selected_by", "backend", "settings_from", "data", "versions")
    own = ("seed", "best_epoch", "epochs_run", "stopped", "validation", "test")
    return {name: first[name] for name in same} | {
        "seeds": [result["seed"] for result in results],
        "validation": _mean_and_std([result["validation"] for result in results]),
        "test": _mean_and_std([result["test"] for result in results]),
        "seconds": {name: sum(result["seconds"][name] for result in results) for name in first["seconds"]},
        "warnings": [f"seed {result['seed']}: {text}" for result in results for text in result["warnings"]],
        "config": config.to_dict(),
        "runs": [{"directory": f"seed-{result['seed']}"} | {name: result[name] for name in own} for result in results],
    }


def _mean_and_std(metrics: Sequence[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    out = {}
    for name in metrics[0]:
        values = [entry[name] for entry in metrics]
        std = statistics.stdev(values) if len(values) > 1 else None
        out[name] = {"mean": statistics.fmean(values), "std": std}
    return out
