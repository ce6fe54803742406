"""The content of `result.json` of a run of several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from smore_ext.settings.config import RunConfig


def summarise(results: Sequence[dict[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Mean and sample standard deviation over seeds of every metric, beside the numbers of each seed."""
    first = results[0]
    same = ("model", "dataset", "protocol", "selected_by", "backend", "settings_from", "data", "versions")
    spans = dict.fromkeys(name for result in results for name in result["seconds"])  # earlier versions have fewer
    own = ("seed", "best_epoch", "epochs_run", "stopped", "validation", "test")
    return {name: first[name] for name in same} | {
        "seeds": [result["seed"] for result in results],
        "validation": _mean_and_std([result["validation"] for result in results]),
        "test": _mean_and_std([result["test"] for result in results]),
        "seconds": {name: sum(result["seconds"].get(name, 0.0) for result in results) for name in spans},
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
