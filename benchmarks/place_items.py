"""Items that a model has never seen, placed by their features: recall, where it fails, and the time of one.

`python -m benchmarks.place_items -d lfm2k --data-path data -m SMORE`. A tenth of the items is kept out altogether.
Each user who has one of them in test is given 20 of these items; recall is of those that the user has there:

- placed: a model of the other items, `Served.with_items`;
- through the model, SMORE's: by its own graphs, projections, filters and gates (`through_model.py`);
- in the graphs: a model trained with these items' features in its item graphs, but none of their interactions;
- retrained: a model trained with their interactions too, but for those of test;
- content: the items nearest to the mean of the user's by raw features (cosine);
- popularity: by their train interactions, which only the retrained model may know.

Data that `prepare --split item_cold` made bring the items that are kept out; nobody can train with their interactions,
so the last three ways but content are left out there, and in their place is chance: the items in a random order.
Where it fails: the share of test pairs found, by quartile of items, from the least to the most alike to an item that
the model knows (cosine of features), and from the least to the most often had in test.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.fold_in import asked, trained, trained_run
from benchmarks.through_model import placed
from smore_ext import SMORE, serving
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


@dataclass(frozen=True)
class Question:
    """Which of the held items [H] each user [V] with one in test wants, [V, H] bool, and what is known of these."""

    held: Tensor
    users: Tensor
    wanted: Tensor
    nearest: Tensor  # [H], cosine to the most alike item that is known

    @classmethod
    def of(cls, data: Dataset, held: Tensor, kept: Tensor, content: Tensor) -> Question:
        place = torch.full((data.n_items,), -1)
        place[held] = torch.arange(len(held))
        inside = place[data.test.items] >= 0
        wanted = torch.zeros(data.n_users, len(held), dtype=torch.bool)
        wanted[data.test.users[inside], place[data.test.items[inside]]] = True
        users = wanted.any(dim=1).nonzero()[:, 0]
        rows = F.normalize(content, dim=1)
        nearest = (rows[held] @ rows[kept].T).max(dim=1).values
        return cls(held, users, wanted[users], nearest)

    def answered(self, scores: Tensor) -> dict[str, np.ndarray]:
        """Recall@20 of each user, and the share of pairs found by quartile of items, from scores [U, H]."""
        best = scores[self.users].sort(dim=1, descending=True, stable=True).indices[:, :K]
        given = torch.zeros_like(self.wanted).scatter_(1, best, True) & self.wanted
        out = {"recall": (given.sum(dim=1) / self.wanted.sum(dim=1)).numpy()}
        for name, known in (("likeness", self.nearest), ("times in test", self.wanted.sum(dim=0).double())):
            part = known.argsort(stable=True).argsort() * 4 // len(known)
            shares = [given[:, part == n].sum() / self.wanted[:, part == n].sum().clamp(min=1) for n in range(4)]
            out[name] = torch.stack(shares).numpy()
        return out


def is_cold(data: Dataset) -> bool:
    """Whether no item of test is in train or validation, as `prepare --split item_cold` has it."""
    return not bool(torch.isin(data.test.items, torch.cat([data.train.items, data.valid.items])).any())


def held_out(data: Dataset, seed: int) -> tuple[Dataset, Tensor, Tensor]:
    """The data, items that are asked for [H], and which the models may know [I] bool.

    A tenth of the items is asked for; where the data are cold, the items of test. Those of validation are then unknown
    too, and of the train pairs a twentieth validates and one tests: on unknown items no epoch is better than another.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.ones(data.n_items, dtype=torch.bool)
    if not is_cold(data):
        held = torch.randperm(data.n_items, generator=generator)[: max(2, int(SHARE * data.n_items))].sort().values
        kept[held] = False
        return data, held, kept
    held = torch.unique(data.test.items)
    kept[torch.unique(torch.cat([data.test.items, data.valid.items]))] = False
    place = torch.rand(len(data.train.users), generator=generator)
    parts = (place >= SHARE, place < SHARE / 2, (place >= SHARE / 2) & (place < SHARE))
    train, valid, test = (Pairs(data.train.users[part], data.train.items[part]) for part in parts)
    both = (torch.cat([one, more]) for one, more in ((test.users, data.test.users), (test.items, data.test.items)))
    splits = (train, valid, Pairs(*both))
    return Dataset.from_pairs(data.name, data.n_users, data.n_items, *splits, features=data.features), held, kept


def measure(data: Dataset, model: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Answers by way; "times" of fitting, placing one, and a model with it in seconds; "error" of the regression."""
    cold = is_cold(data)
    data, held, kept = held_out(data, seed)
    run = trained_run(without_items(data, kept, renumbered=True), model, settings, seed)
    few = serving.load(run)
    begin = time.perf_counter()
    _ = few.placing
    times: dict[str, list[float]] = {"fit": [time.perf_counter() - begin], "place one": [], "the model with it": []}
    fresh = {name: table[held] for name, table in data.features.items()}
    grown = few.with_items(fresh)
    one = {name: table[:1] for name, table in fresh.items()}
    for _ in range(20):
        begin = time.perf_counter()
        few.placing.rows(one, 1)
        times["place one"].append(time.perf_counter() - begin)
        begin = time.perf_counter()
        few.with_items(one)
        times["the model with it"].append(time.perf_counter() - begin)
    content = torch.cat([F.normalize(table.double(), dim=1) for table in data.features.values()], dim=1)
    had = torch.zeros(data.n_users, data.n_items, dtype=torch.float64)
    had[data.train.users, data.train.items] = 1
    graphs = trained(without_items(data, kept, renumbered=False), model, settings, seed)
    scores = {
        "placed": grown.users.double() @ grown.items[-len(held) :].double().T,
        "in the graphs": graphs.users.double() @ graphs.items[held].double().T,
        "content": F.normalize((had * kept) @ content, dim=1) @ content[held].T,
    }
    if isinstance(run.model, SMORE):
        scores["through the model"] = few.users.double() @ placed(run.model, fresh).double().T
    if cold:
        scores["chance"] = torch.rand(data.n_users, len(held), generator=torch.Generator().manual_seed(seed))
    else:
        whole = trained(data, model, settings, seed)
        scores["retrained"] = whole.users.double() @ whole.items[held].double().T
        scores["popularity"] = had[:, held].sum(dim=0).expand(data.n_users, -1)
    question = Question.of(data, held, kept, content)
    ways = {way: question.answered(table) for way, table in scores.items()}
    return {"ways": ways, "times": times, "error": few.placing.error, "items": len(held), "users": len(question.users)}


def main() -> None:
    data, model, settings, seeds = asked(__doc__, "SMORE")
    found = [measure(data, model, settings, seed) for seed in seeds]
    counts = f"{found[0]['items']} items and {found[0]['users']} users a seed"
    print(f"{data.name}, {model}, seeds {seeds}, {counts}, recall@{K} among these items; found by quartile of items:")
    print("| way | recall | (seeds) | least to most alike to a known item | least to most often in test |")
    print("|---|---|---|---|---|")
    for way in found[0]["ways"]:
        answers = [one["ways"][way] for one in found]
        recalls = [float(answer["recall"].mean()) for answer in answers]
        parts = [
            " ".join(f"{value:.3f}" for value in np.mean([answer[name] for answer in answers], axis=0))
            for name in ("likeness", "times in test")
        ]
        spread = f"{min(recalls):.4f} to {max(recalls):.4f}"
        print(f"| {way} | {statistics.mean(recalls):.4f} | {spread} | {' | '.join(parts)} |")
    for name in found[0]["times"]:
        print(f"{name}: median {statistics.median(t for one in found for t in one['times'][name]) * 1e6:.0f} us")
    print("error of the regression:", ", ".join(f"{one['error']:.3f}" for one in found))


if __name__ == "__main__":
    main()
