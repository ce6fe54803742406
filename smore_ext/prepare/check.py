"""What is odd about a folder of data, in plain words; whatever made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.data.rows import groups, mean_cosine
from smore_ext.prepare.files import opened
from smore_ext.prepare.json_lines import json_object

SHARE = 0.01  # of items or interactions from which on something is odd
POPULAR = 0.5  # share of the interactions that the most popular 1 % of the items must have to be odd
LONG = 100  # times the median length of a row of features
ALIKE = 0.9  # mean cosine of two items, of so many
SOME = 512
FILLED = 0.2  # share of the items without features of their own from which on it is odd

COUNTED = {  # what reading counts; these are odd, but for those of `_HARMLESS`
    "train_duplicates": "repeated pairs in train",
    "valid_duplicates": "repeated pairs in validation",
    "test_duplicates": "repeated pairs in test",
    "pairs_in_two_splits": "pairs in two splits: what is tested would be trained on",
    "valid_pairs_dropped": "validation interactions of users without train, left out",
    "test_pairs_dropped": "test interactions of users without train, left out",
    "users_without_train": "users without a train interaction",
    "items_without_train": "items without a train interaction",
    "users_who_saw_every_item": "users who saw every item: no negative can be drawn for them",
}
_HARMLESS = ("items_without_train",)


@dataclass(frozen=True)
class Remark:
    """Something about the data. `odd`: it may make numbers wrong or surprising; else it is what they are."""

    odd: bool
    text: str


@dataclass
class _Remarks:
    made: list[Remark] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.made.append(Remark(False, text))

    def odd(self, text: str) -> None:
        self.made.append(Remark(True, text))


def check_folder(
    dataset: Dataset, texts: Path | None = None, filled: Mapping[str, Sequence[str]] | None = None
) -> list[Remark]:
    """Remarks on a data set that could be read: reading has refused what is broken. What is odd comes first.

    Args:
        dataset: as `smore_ext.data.load_dataset` gives it.
        texts: a file of a line of JSON an item with its "text", as `prepare` writes it.
        filled: by modality, raw ids of the items whose features were filled in, which are alike for that reason.
    """
    out = _Remarks()
    _interactions(dataset, out)
    for name, number in dataset.report.items():
        if number:
            say = out.note if name in _HARMLESS else out.odd
            say(f"{number:,} {COUNTED.get(name, name.replace('_', ' '))}")
    if not dataset.features:
        out.note("no features: models of interactions alone can be trained")
    row_of = {raw: row for row, raw in enumerate(dataset.item_ids or map(str, range(dataset.n_items)))}
    for name, rows in dataset.features.items():
        of_others = [row_of[raw] for raw in (filled or {}).get(name, ()) if raw in row_of]
        given = torch.ones(len(rows), dtype=torch.bool)
        given[of_others] = False
        if of_others:
            share = len(of_others) / len(rows)
            say = out.odd if share > FILLED else out.note
            say(f"features {name}: {len(of_others):,} items ({share:.1%}) have none of their own: they were filled in")
        if given.any():
            _features(f"features {name}", rows[given], out)
    if texts is not None and texts.is_file():
        _texts(texts, out)
    return sorted(out.made, key=lambda remark: not remark.odd)


def words(remarks: list[Remark]) -> str:
    """One line a remark."""
    return "\n".join(f"{'odd' if remark.odd else '':3}  {remark.text}" for remark in remarks)


def _interactions(data: Dataset, out: _Remarks) -> None:
    splits = {"train": data.train, "validation": data.valid, "test": data.test}
    sizes = {name: len(pairs.users) for name, pairs in splits.items()}
    total = sum(sizes.values())
    out.note(
        f"{data.n_users:,} users, {data.n_items:,} items, {total:,} interactions "
        f"({', '.join(f'{size:,} {name}' for name, size in sizes.items())}), "
        f"density {total / data.n_users / data.n_items:.4%}"
    )
    of_item = torch.bincount(data.train.items, minlength=data.n_items)
    of_user = torch.bincount(data.train.users, minlength=data.n_users)
    for name, why in (("validation", "no epoch can be chosen"), ("test", "no result can be reported")):
        if not sizes[name]:
            out.odd(f"there is no {name} interaction: {why}")
            continue
        cold = float((of_item[splits[name].items] == 0).double().mean())
        if cold:
            say = out.odd if cold > SHARE else out.note
            say(f"{cold:.1%} of {name} interactions are of items that train lacks: only content can find them")
    for who, counts in (("user", of_user), ("item", of_item)):
        out.note(f"train interactions of a {who}: median {int(counts.median())}, most {int(counts.max()):,}")
    top = of_item.sort(descending=True).values[: max(1, round(data.n_items / 100))].sum() / of_item.sum()
    if top > POPULAR:
        out.odd(f"the most popular 1 % of the items have {float(top):.0%} of train: popularity alone will score well")


def _features(name: str, rows: Tensor, out: _Remarks) -> None:
    out.note(f"{name}: {rows.shape[1]} wide")
    zero = int((rows == 0).all(dim=1).sum())
    if zero:
        out.odd(f"{name}: {zero:,} items ({zero / len(rows):.1%}) have rows of zeros: they are neighbours of nobody")
    counts = groups(rows)
    shared = int(counts[counts > 1].sum())
    if shared > max(zero, 1):
        most = int(counts.max())
        out.odd(
            f"{name}: {shared:,} items ({shared / len(rows):.1%}) have those of another, the largest group {most:,}"
        )
    constant = int((rows.amax(dim=0) == rows.amin(dim=0)).sum())
    if constant:
        out.odd(f"{name}: {constant} of {rows.shape[1]} columns are the same for all items")
    norms = rows.norm(dim=1)
    times = float(norms.max() / norms.median().clamp(min=1e-30))
    if norms.median() > 0 and times > LONG:
        out.odd(f"{name}: the longest row is {times:,.0f} times the median: features of one scale are usual")
    some = rows[torch.linspace(0, len(rows) - 1, min(len(rows), SOME)).long()]
    cosine = mean_cosine(some) if len(some) > 1 else 0.0
    if cosine > ALIKE:
        out.odd(f"{name}: two items have a mean cosine of {cosine:.2f}: subtracting the mean may help neighbours")


def _texts(path: Path, out: _Remarks) -> None:
    with opened(path, packed=False) as file:
        texts = [str(json_object(path, number, line).get("text", "")) for number, line in enumerate(file, 1)]
    if not texts:
        return
    out.note(f"texts: median {int(np.median([len(text.split()) for text in texts]))} words")
    there = [text for text in texts if text]
    if len(there) < len(texts):
        out.odd(f"texts: {len(texts) - len(there):,} of {len(texts):,} items have none")
    repeated = len(there) - len(set(there))
    if repeated > SHARE * len(texts):
        out.odd(f"texts: {repeated:,} items have the text of another")
