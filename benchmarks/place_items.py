"""Items that a model has never seen, placed by their features: recall, and the time of one.

`python -m benchmarks.place_items -d lfm2k --data-path data -m SMORE`. A tenth of the items is kept out altogether.
Each user who has one of them in test is given 20 of these items; recall is of those that the user has there:

- placed: a model of the other items, `Served.with_items`;
- in the graphs: a model trained with these items' features in its item graphs, but none of their interactions;
- retrained: a model trained with their interactions too, but for those of test;
- content: the items nearest to the mean of the user's by raw features (cosine);
- popularity: by their train interactions, which only the retrained model may know.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.fold_in import asked, trained
from smore_ext.data import Dataset, Pairs

K, SHARE = 20, 0.1


def without_items(data: Dataset, kept: Tensor, renumbered: bool) -> Dataset:
    """The data without the interactions of items that are not `kept` [I] bool; renumbered, without these items."""
    number = torch.cumsum(kept, 0) - 1 if renumbered else torch.arange(data.n_items)

    def rest(pairs: Pairs) -> Pairs:
        inside = kept[pairs.items]
        return Pairs(pairs.users[inside], number[pairs.items[inside]])

    splits = (rest(data.train), rest(data.valid), rest(data.test))
    features = {name: table[kept] if renumbered else table for name, table in data.features.items()}
    return Dataset.from_pairs(data.name, data.n_users, int(number.max()) + 1, *splits, features=features)


def measure(data: Dataset, model: str, settings: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Recall of each user with a held-out item in test, by way; "seconds" of placing one, and of a model with it."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.randperm(data.n_items, generator=generator)[: max(2, int(SHARE * data.n_items))].sort().values
    kept = torch.ones(data.n_items, dtype=torch.bool)
    kept[held] = False
    few = trained(without_items(data, kept, renumbered=True), model, settings, seed)
    begin = time.perf_counter()
    _ = few.placing
    fitting = time.perf_counter() - begin
    fresh = {name: table[held] for name, table in data.features.items()}
    grown = few.with_items(fresh)
    one = {name: table[:1] for name, table in fresh.items()}
    seconds, growing = [], []
    for _ in range(20):
        begin = time.perf_counter()
        few.placing.rows(one, 1)
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        few.with_items(one)
        growing.append(time.perf_counter() - begin)
    graphs = trained(without_items(data, kept, renumbered=False), model, settings, seed)
    whole = trained(data, model, settings, seed)
    content = torch.cat([F.normalize(table.double(), dim=1) for table in data.features.values()], dim=1)
    had = torch.zeros(data.n_users, data.n_items, dtype=torch.float64)
    had[data.train.users, data.train.items] = 1
    profile = (had * kept) @ content
    scores = {
        "placed": grown.users.double() @ grown.items[-len(held) :].double().T,
        "in the graphs": graphs.users.double() @ graphs.items[held].double().T,
        "retrained": whole.users.double() @ whole.items[held].double().T,
        "content": F.normalize(profile, dim=1) @ content[held].T,
        "popularity": had[:, held].sum(dim=0).expand(data.n_users, -1),
    }
    place = torch.full((data.n_items,), -1)
    place[held] = torch.arange(len(held))
    inside = ~kept[data.test.items]
    wanted = torch.zeros(data.n_users, len(held), dtype=torch.float64)
    wanted[data.test.users[inside], place[data.test.items[inside]]] = 1
    users = (wanted.sum(dim=1) > 0).nonzero()[:, 0]
    out = {}
    for way, table in scores.items():
        best = table[users].sort(dim=1, descending=True, stable=True).indices[:, :K]
        out[way] = (wanted[users].gather(1, best).sum(dim=1) / wanted[users].sum(dim=1)).numpy()
    times = {"seconds": seconds, "with_items": growing, "fit": [fitting], "error": [few.placing.error]}
    return out | {name: np.array(values) for name, values in times.items()}


def main() -> None:
    data, model, settings, seeds = asked(__doc__, "SMORE")
    found = [measure(data, model, settings, seed) for seed in seeds]
    print(f"{data.name}, {model}, seeds {seeds}, {int(SHARE * data.n_items)} items a seed, recall@{K} among these")
    for way in found[0]:
        values = [float(one[way].mean()) for one in found]
        if way in ("seconds", "with_items", "fit"):
            print(f"{way}: median {statistics.median(float(np.median(one[way])) for one in found) * 1e6:.0f} us")
        else:
            print(f"{way:14} {statistics.mean(values):.4f}  (seeds {min(values):.4f} to {max(values):.4f})")


if __name__ == "__main__":
    main()
