"""Users whom a model was not trained on, folded in from a list of their items: recall, and the time of one.

`python -m benchmarks.fold_in -d lfm2k --data-path data -m LightGCN`. A tenth of the users is kept out of training. For
each, the train items say who they are, and recall@20 is that of the test items:

- fold-in: a model of the others, `Served.recommend_for`;
- retrained: a model of all users, their train items included;
- popularity: what the others had most;
- content: the items nearest to the mean of theirs by raw features (cosine), where there are features.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from smore_ext import runs, serving
from smore_ext.data import Dataset, Pairs
from smore_ext.serving import Served
from smore_ext.settings.config import without_places

K, SHARE = 20, 0.1


def without_users(data: Dataset, held: torch.Tensor) -> Dataset:
    """The data set without the interactions of some users, who keep their numbers."""

    def rest(pairs: Pairs) -> Pairs:
        kept = ~torch.isin(pairs.users, held)
        return Pairs(pairs.users[kept], pairs.items[kept])

    splits = (rest(data.train), rest(data.valid), rest(data.test))
    return Dataset.from_pairs(data.name, data.n_users, data.n_items, *splits, features=data.features)


def trained_run(data: Dataset, model: str, settings: dict[str, Any], seed: int) -> runs.LoadedRun:
    config = without_places(runs.resolve({"model": model, "seed": seed, **settings}))
    with tempfile.TemporaryDirectory() as place:
        runs.train(config, data, Path(place) / "run")
        return runs.load_run(Path(place) / "run", dataset=data)


def trained(data: Dataset, model: str, settings: dict[str, Any], seed: int) -> Served:
    return serving.load(trained_run(data, model, settings, seed))


def measure(data: Dataset, model: str, settings: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Recall@20 of each held-out user with test items, by way; and "seconds" of folding one in."""
    users = torch.unique(data.test.users)
    generator = torch.Generator().manual_seed(seed)
    held = users[torch.randperm(len(users), generator=generator)[: max(2, int(SHARE * len(users)))]].sort().values
    others = without_users(data, held)
    ours, whole = trained(others, model, settings, seed), trained(data, model, settings, seed)
    popular = torch.bincount(others.train.items, minlength=data.n_items).double()
    tables = [F.normalize(table.double(), dim=1) for table in data.features.values()]
    content = torch.cat(tables, dim=1) if tables else None
    out: dict[str, list[float]] = {"fold-in": [], "retrained": [], "popularity": [], "content": [], "seconds": []}
    ours.fold_in([int(data.train.items[0])])  # the regression, once
    for user in held.tolist():
        had = data.train.items[data.train.users == user].tolist()
        wanted = set(data.test.items[data.test.users == user].tolist())
        begin = time.perf_counter()
        lists = {"fold-in": [int(near.item) for near in ours.recommend_for(had, K)]}
        out["seconds"].append(time.perf_counter() - begin)
        lists["retrained"] = ranked(whole.items.double() @ whole.users[user].double(), had)
        lists["popularity"] = ranked(popular, had)
        if content is not None:
            lists["content"] = ranked(content @ content[had].mean(dim=0), had)
        for way, items in lists.items():
            out[way].append(len(wanted & set(items)) / len(wanted))
    return {way: np.array(values) for way, values in out.items() if values}


def ranked(scores: torch.Tensor, had: list[int]) -> list[int]:
    scores = scores.clone()
    scores[had] = -torch.inf
    return scores.sort(descending=True, stable=True).indices[:K].tolist()


def asked(description: str | None, model: str) -> tuple[Dataset, str, dict[str, Any], list[int]]:
    """What the flags name: the data with all its features, the model, settings of its runs, seeds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", default="synthetic")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("-m", "--model", default=model)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the runs")
    options = parser.parse_args()
    settings: dict[str, Any] = dict(text.split("=", 1) for text in options.set)
    place = {"dataset": options.dataset, **({"data_path": options.data_path} if options.data_path else {})}
    data = runs.open_dataset(runs.resolve({"model": "SMORE", **place}))  # a model that reads all features
    return data, options.model, settings, [int(seed) for seed in options.seeds.split(",")]


def main() -> None:
    data, model, settings, seeds = asked(__doc__, "LightGCN")
    found = [measure(data, model, settings, seed) for seed in seeds]
    print(f"{data.name}, {model}, seeds {seeds}, {len(found[0]['fold-in'])} held-out users a seed, recall@{K}")
    for way in found[0]:
        if way == "seconds":
            times = [value for one in found for value in one[way]]
            print(f"one user folded in and ranked: median {statistics.median(times) * 1e6:.0f} us")
        else:
            means = [float(one[way].mean()) for one in found]
            print(f"{way:10}  {statistics.mean(means):.4f}  (seeds {min(means):.4f} to {max(means):.4f})")


if __name__ == "__main__":
    main()
