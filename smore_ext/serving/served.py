"""A trained model by its factors: lists, similar items, explanations.

A score is the dot product of a user's and an item's embedding, and the item's is a sum of parts (behaviour, each
modality, fusion; `Recommender.item_parts`), so a score is a sum of contributions. Shapes: U users, I items, d wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from smore_ext import ops
from smore_ext.data.dataset import DatasetError, number_of
from smore_ext.data.messages import listed, shown
from smore_ext.evaluation.ranking import among
from smore_ext.graph import Graph
from smore_ext.registry import did_you_mean
from smore_ext.serving.placing import Placing, fit

Id = str | int
BLOCK = 4096  # users ranked at once
RIDGE = 1e-3  # of the mean square of what is regressed on


class QuestionError(ValueError):
    """What was asked cannot be; the message says what was expected and what came. Unknown ids are `DatasetError`."""


class Similar(NamedTuple):
    """An item, and its cosine with the one asked about or its score for a user."""

    item: Id
    value: float


@dataclass(frozen=True)
class Explanation:
    """Why an item has its score for a user.

    Attributes:
        score: the dot product.
        contributions: by part of the item; their sum is the score.
        nearest: by part, the user's items most like this one there.
        seen: whether the user has had the item.
    """

    score: float
    contributions: dict[str, float]
    nearest: dict[str, list[Similar]]
    seen: bool


@dataclass(frozen=True)
class Served:
    """Factors of a trained model, with what its users have had.

    Attributes:
        users, items: final embeddings, [U, d] and [I, d].
        parts: by name, [I, d] each, of sum `items`.
        seen: [U, I], the interactions of all splits.
        known: [K] int64, ascending: the items that there are, others being gaps between ids.
        trained: [U] bool, users with a train interaction: the model knows nothing of others.
        user_ids, item_ids: raw ids by number; None where ids are the numbers.
        about: what it is: model, data set, fingerprint.
        features: raw features [I, D_m] of a run's data, by which new items are placed; of a file empty.
        fitted: how a file places new items, None where it does not, and for a run before it is asked.
    """

    users: Tensor
    items: Tensor
    parts: dict[str, Tensor]
    seen: Graph
    known: Tensor
    trained: Tensor
    user_ids: tuple[str, ...] | None
    item_ids: tuple[str, ...] | None
    about: dict[str, str]
    features: dict[str, Tensor] = field(default_factory=dict)
    fitted: Placing | None = None

    def user_number(self, user: Id) -> int:
        """The number of a user with train interactions. Raises `DatasetError`."""
        number = number_of(user, "user", self._user_numbers, len(self.users))
        if not self.trained[number]:
            raise DatasetError(f"user: expected one with train interactions, got {shown(user)}, who has none")
        return number

    def item_number(self, item: Id) -> int:
        """The number of an item. Raises `DatasetError`."""
        return number_of(item, "item", self._item_numbers, len(self.items))

    @cached_property
    def _user_numbers(self) -> dict[str, int] | None:
        return None if self.user_ids is None else {raw: number for number, raw in enumerate(self.user_ids)}

    @cached_property
    def _item_numbers(self) -> dict[str, int] | None:
        return None if self.item_ids is None else {raw: number for number, raw in enumerate(self.item_ids)}

    def item(self, number: int) -> Id:
        return number if self.item_ids is None else self.item_ids[number]

    def user(self, number: int) -> Id:
        return number if self.user_ids is None else self.user_ids[number]

    def recommend(
        self,
        users: Sequence[Id],
        k: int = 10,
        filter_seen: bool = True,
        allow: Sequence[Id] | None = None,
        deny: Sequence[Id] = (),
    ) -> dict[Id, list[Similar]]:
        """The items ranked first for each user, best first; fewer than k where no more are left.

        Args:
            users: raw ids.
            filter_seen: leaves out what the user has had, in any split.
            allow: the items that may be recommended, all if None.
            deny: those that may not.

        Raises `DatasetError` for an id that the data lacks, and a user without train interactions.
        """
        numbers = torch.tensor([self.user_number(user) for user in users], dtype=torch.int64)
        return dict(self._lists(numbers, k, filter_seen, self._candidates(allow, deny)))

    def recommend_for(
        self,
        items: Sequence[Id],
        k: int = 10,
        filter_seen: bool = True,
        allow: Sequence[Id] | None = None,
        deny: Sequence[Id] = (),
    ) -> list[Similar]:
        """The items ranked first for somebody who has had `items`, whom the model does not know; see `fold_in`."""
        candidates = self._candidates(allow, deny)
        own = self.fold_in(items).to(self.items.dtype)
        had = self._distinct(items) if filter_seen else []
        row = Graph.from_edges(torch.zeros(len(had)).long(), torch.tensor(had).long(), None, (1, len(self.items)))
        score, index = self._best(own[None], k, row, candidates)
        return self.named(score[0], index[0])

    def fold_in(self, items: Sequence[Id]) -> Tensor:
        """An embedding [d] float64 for somebody who has had `items`, in the place of one that was trained.

        It is what ridge regression says of the users that there are: their embeddings from the sum of those of their
        items, over the root of the number. One pass over the users, the first time; then a product of d x d.

        Raises `DatasetError` for an item that the data lacks, `QuestionError` for none.
        """
        numbers = self._distinct(items)
        rows = self.items[torch.tensor(numbers, device=self.items.device)].double()
        return self._regression @ (rows.sum(dim=0) / len(numbers) ** 0.5)

    @cached_property
    def _regression(self) -> Tensor:
        """[d, d] float64: from sums of items to users."""
        counts = self.seen.rowptr.long().diff()
        users = (self.trained & (counts > 0)).nonzero()[:, 0]
        width = self.items.shape[1]
        gram = torch.zeros(width, width, dtype=torch.float64)
        cross = torch.zeros(width, width, dtype=torch.float64)
        for block in users.split(BLOCK):
            sums = ops.spmm(self.seen.rows(block), self.items.cpu()).double()
            x = sums / counts[block].double().sqrt()[:, None]
            gram += x.T @ x
            cross += x.T @ self.users[block.to(self.users.device)].cpu().double()
        ridge = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
        return torch.linalg.solve(gram + ridge * torch.eye(width, dtype=torch.float64), cross).T.to(self.items.device)

    @cached_property
    def placing(self) -> Placing:
        """How items are placed by their features; fitted when first asked for. `QuestionError` without features."""
        if self.fitted is not None:
            return self.fitted
        if not self.features:
            raise QuestionError("expected a model whose data has features that it reads, got one that has none")
        features = {name: table[self.known] for name, table in self.features.items()}
        return fit(features, [part.cpu()[self.known] for part in self.parts.values()])

    def with_items(self, features: Mapping[str, Tensor], ids: Sequence[str] | None = None) -> Served:
        """The same model with n items more, placed by their features alone (`placing`), whom nobody has had.

        Args:
            features: by modality, [n, D_m], as raw as those of the data; a modality may be missing.
            ids: their raw ids, where the data has raw ones; else they get the next numbers.

        Raises `QuestionError` for ids that are there or missing, and features that do not fit.
        """
        count = len(next(iter(features.values()), ()))
        if (ids is None) != (self.item_ids is None) or len(ids or range(count)) != count:
            wanted = "none, as items go by numbers" if self.item_ids is None else f"{count}, as there are features"
            raise QuestionError(f"ids: expected {wanted}, got {'none' if ids is None else len(ids)}")
        names, there = [str(raw) for raw in ids or ()], set(self.item_ids or ())
        for raw in names:
            if raw in there:
                raise QuestionError(f"ids: expected new ones, each once, got {shown(raw)}")
            there.add(raw)
        try:
            rows = self.placing.rows(features, count).to(self.items)
        except ValueError as error:
            raise QuestionError(str(error)) from None
        widths = [part.shape[1] for part in self.parts.values()]
        placed = dict(zip(self.parts, rows.split(widths, dim=1), strict=True))
        total = len(self.items) + count
        return replace(
            self,
            items=torch.cat([self.items, torch.stack(list(placed.values())).sum(dim=0)]),
            parts={name: torch.cat([part, placed[name]]) for name, part in self.parts.items()},
            seen=Graph(self.seen.rowptr, self.seen.col, self.seen.weight, (len(self.users), total)),
            known=torch.cat([self.known, torch.arange(len(self.items), total)]),
            item_ids=None if self.item_ids is None else (*self.item_ids, *names),
            features={},
            fitted=self.placing,
        )

    def _distinct(self, items: Sequence[Id]) -> list[int]:
        numbers = list(dict.fromkeys(self.item_number(item) for item in items))
        if not numbers:
            raise QuestionError("items: expected at least one that somebody has had, got none")
        return numbers

    def all_lists(
        self, k: int, filter_seen: bool = True, allow: Sequence[Id] | None = None, deny: Sequence[Id] = ()
    ) -> Iterator[tuple[Id, list[Similar]]]:
        """Lists of all users with train interactions, streamed, by number."""
        yield from self._lists(self.trained.nonzero()[:, 0], k, filter_seen, self._candidates(allow, deny))

    def _lists(
        self, users: Tensor, k: int, filter_seen: bool, candidates: Tensor | None
    ) -> Iterator[tuple[Id, list[Similar]]]:
        for block in users.split(BLOCK):
            score, index = self.ranked(block, k, filter_seen, candidates)
            for number, scores, items in zip(block.tolist(), score, index, strict=True):
                yield self.user(number), self.named(scores, items)

    def ranked(
        self, users: Tensor, k: int, filter_seen: bool = True, candidates: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(score [B, k'], item [B, k']) of users [B] among candidates, on the CPU; -inf and -1 where none is left."""
        seen = self.seen.rows(users) if filter_seen else None
        return self._best(self.users[users.to(self.users.device)], k, seen, candidates)

    def _best(self, rows: Tensor, k: int, masked: Graph | None, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same for embeddings [B, d], without the items in the rows of `masked` [B, I]."""
        if candidates is None:
            return _best_of(rows, self._known_items, k, self.known, masked)
        return _best_of(rows, self.items[candidates.to(self.items.device)], k, candidates, masked)

    @cached_property
    def _known_items(self) -> Tensor:
        """Embeddings of the items that there are, [K, d]: the table itself where ids have no gaps."""
        whole = len(self.known) == len(self.items)
        return self.items if whole else self.items[self.known.to(self.items.device)]

    def named(self, scores: Tensor, items: Tensor) -> list[Similar]:
        """A row of what `ranked` returns, by raw ids."""
        pairs = zip(items.tolist(), scores.tolist(), strict=True)
        return [Similar(self.item(item), value) for item, value in pairs if item >= 0]

    def similar(self, items: Sequence[Id], k: int = 10, by: str | None = None) -> dict[Id, list[Similar]]:
        """The items of the largest cosine with each, itself left out. `by`: a part's name; None: final embeddings."""
        unit = self._directions(by)
        numbers = torch.tensor([self.item_number(item) for item in items], dtype=torch.int64)
        own = Graph.from_edges(torch.arange(len(numbers)), numbers, None, (len(numbers), len(self.items)))
        rows = F.normalize(self.space(by)[numbers.to(unit.device)].double(), dim=1)
        score, index = _best_of(rows, unit, k, self.known, own)
        return {self.item(n): self.named(s, i) for n, s, i in zip(numbers.tolist(), score, index, strict=True)}

    def _directions(self, by: str | None) -> Tensor:
        """Rows of length 1 of the items that there are, [K, d] float64; kept."""
        if by not in self._kept:
            self._kept[by] = F.normalize(self.space(by)[self.known.to(self.items.device)].double(), dim=1)
        return self._kept[by]

    @cached_property
    def _kept(self) -> dict[str | None, Tensor]:
        return {}

    def history(self, user: Id) -> list[Id]:
        """What a user has had, in any split, by number."""
        row = self.seen.rows(torch.tensor([self.user_number(user)]))
        return [self.item(number) for number in row.col.tolist()]

    def interactions_of(self, item: Id) -> int:
        """How many users have had an item."""
        return int(self._popularity[self.item_number(item)])

    @cached_property
    def _popularity(self) -> Tensor:
        return torch.bincount(self.seen.col.long(), minlength=len(self.items))

    def warm_up(self) -> None:
        """Computes now what the first question would otherwise wait for."""
        _ = self._popularity, self._regression, self._known_items, self._user_numbers, self._item_numbers

    def explain(self, user: Id, item: Id, k: int = 3) -> Explanation:
        """Contributions to a score, and which of the user's k items are nearest to the item, in each part."""
        row, number = self.user_number(user), self.item_number(item)
        theirs = self.seen.rows(torch.tensor([row])).col.long()
        own = self.users[row].double()
        contributions = {name: float(own @ table[number].double()) for name, table in self.parts.items()}
        others = theirs[theirs != number].to(self.items.device)
        nearest = {}
        for name, table in self.parts.items():
            cosine = F.cosine_similarity(table[others].double(), table[number].double()[None], dim=1)
            value, index = cosine.sort(descending=True, stable=True)
            pairs = zip(others[index[:k]].tolist(), value[:k].tolist(), strict=True)
            nearest[name] = [Similar(self.item(other), near) for other, near in pairs]
        score = float(own @ self.items[number].double())
        return Explanation(score, contributions, nearest, bool((theirs == number).any()))

    def space(self, by: str | None) -> Tensor:
        """The items' embeddings [I, d]: final, or a part of them."""
        if by is None:
            return self.items
        if by not in self.parts:
            hint = did_you_mean(by, self.parts)
            raise QuestionError(f"by: expected one of {listed(self.parts)}, got {shown(by)}{hint}")
        return self.parts[by]

    def to(self, device: str | torch.device) -> Served:
        """With its factors on a device; what was seen, and lists, are on the CPU."""
        moved = {name: table.to(device) for name, table in self.parts.items()}
        return replace(self, users=self.users.to(device), items=self.items.to(device), parts=moved)

    def _candidates(self, allow: Sequence[Id] | None, deny: Sequence[Id]) -> Tensor | None:
        """What may be recommended, by number, ascending; None for all that there is."""
        if allow is None and not deny:
            return None
        keep = torch.zeros(len(self.items), dtype=torch.bool)
        keep[self.known if allow is None else [self.item_number(item) for item in allow]] = True
        keep[[self.item_number(item) for item in deny]] = False
        if not bool(keep.any()):
            raise QuestionError("allow, deny: expected to leave an item to recommend, got none")
        return keep.nonzero()[:, 0]


def _best_of(rows: Tensor, items: Tensor, k: int, chosen: Tensor, masked: Graph | None) -> tuple[Tensor, Tensor]:
    """(score [B, k'], index [B, k']) of rows [B, d] among items [C, d], which are the numbers `chosen` [C] of all."""
    _check_k(k)
    if masked is not None and len(chosen) < masked.n_cols:
        masked = among(masked, chosen)
    score, index = ops.masked_topk(
        rows, items, min(k, len(chosen)), None if masked is None else masked.to(items.device)
    )
    score, index = score.cpu(), index.cpu()
    if len(chosen) and int(chosen[-1]) == len(chosen) - 1:  # all up to there: places are numbers
        return score, index
    return score, torch.where(index < 0, index, chosen[index.clamp(min=0)])


def _check_k(k: int) -> None:
    if k < 1:
        raise QuestionError(f"k must be at least 1, got {k}")
