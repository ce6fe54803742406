"""A trained model asked by raw ids: what is the same whatever a score is made of.

`factors.py` and `item_weights.py` are the two kinds of models. Shapes: U users, I items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from smore_ext.data.dataset import DatasetError, number_of
from smore_ext.data.messages import shown
from smore_ext.graph import Graph

Id = str | int
BLOCK = 4096  # users ranked at once


class QuestionError(ValueError):
    """What was asked cannot be; the message says what was expected and what came. Unknown ids are `DatasetError`."""


class Similar(NamedTuple):
    """An item, and how near it is to the one asked about (a cosine, or a weight), or its score for a user."""

    item: Id
    value: float


@dataclass(frozen=True)
class Explanation:
    """Why an item has its score for a user.

    Attributes:
        score: the score.
        contributions: by part of the item; their sum is the score.
        nearest: by part, the user's items most like this one there; of weights between items, those that vote most.
        seen: whether the user has had the item.
    """

    score: float
    contributions: dict[str, float]
    nearest: dict[str, list[Similar]]
    seen: bool


@dataclass(frozen=True)
class Served:
    """A trained model, with what its users have had. A kind says how it ranks, what is similar, and why.

    Attributes:
        seen: [U, I], the interactions of all splits.
        known: [K] int64, ascending: the items that there are, others being gaps between ids.
        trained: [U] bool, users with a train interaction: the model knows nothing of others.
        user_ids, item_ids: raw ids by number; None where ids are the numbers.
        about: what it is: model, data set, fingerprint.
        nearness: what `similar` and the nearest items of `explain` are measured by.
        whole: what `similar` goes by when no part is named.
    """

    seen: Graph
    known: Tensor
    trained: Tensor
    user_ids: tuple[str, ...] | None
    item_ids: tuple[str, ...] | None
    about: dict[str, str]

    nearness: ClassVar[str]
    whole: ClassVar[str]

    # What a kind has.

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts by which items may be compared."""
        return ()

    def similar(self, items: Sequence[Id], k: int = 10, by: str | None = None) -> dict[Id, list[Similar]]:
        """The k items nearest to each, itself left out."""
        raise NotImplementedError

    def explain(self, user: Id, item: Id, k: int = 3) -> Explanation:
        """What a score is made of, and which k of the user's items are nearest to the item."""
        raise NotImplementedError

    def with_items(self, features: Mapping[str, Tensor], ids: Sequence[str] | None = None) -> Served:
        """The same model with n items more, placed by their features alone."""
        raise NotImplementedError

    def to(self, device: str | torch.device) -> Self:
        """With what it computes with on a device; what was seen, and lists, are on the CPU."""
        raise NotImplementedError

    def _ranked(self, users: Tensor, k: int, masked: Graph | None, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        """What `ranked` returns, without the items in the rows of `masked` [B, I]."""
        raise NotImplementedError

    def _ranked_for(
        self, items: list[int], k: int, masked: Graph | None, candidates: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The same for somebody who has had `items`, each once: [1, k'] both."""
        raise NotImplementedError

    # Ids.

    def user_number(self, user: Id) -> int:
        """The number of a user with train interactions. Raises `DatasetError`."""
        number = number_of(user, "user", self._user_numbers, self.seen.n_rows)
        if not self.trained[number]:
            raise DatasetError(f"user: expected one with train interactions, got {shown(user)}, who has none")
        return number

    def item_number(self, item: Id) -> int:
        """The number of an item that the model knows. Raises `DatasetError`."""
        number = number_of(item, "item", self._item_numbers, self.seen.n_cols)
        if not self._is_known[number]:
            raise DatasetError(f"item: expected one with interactions or features, got {shown(item)}, which has none")
        return number

    @cached_property
    def _is_known(self) -> Tensor:
        """[I] bool: what a gap between numbers stands for is no item."""
        known = torch.zeros(self.seen.n_cols, dtype=torch.bool)
        known[self.known] = True
        return known

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

    # Lists.

    def recommend(
        self,
        users: Sequence[Id],
        k: int = 10,
        filter_seen: bool = True,
        allow: Sequence[Id] | None = None,
        deny: Sequence[Id] | None = None,
    ) -> dict[Id, list[Similar]]:
        """The items ranked first for each user, best first; fewer than k where no more are left.

        Args:
            users: raw ids.
            filter_seen: leaves out what the user has had, in any split.
            allow: the items that may be recommended, all if None.
            deny: those that may not.

        Raises `DatasetError` for an id that the data lacks, and a user without train interactions.
        """
        return dict(self.lists(users, k, filter_seen, allow, deny))

    def lists(
        self,
        users: Sequence[Id],
        k: int = 10,
        filter_seen: bool = True,
        allow: Sequence[Id] | None = None,
        deny: Sequence[Id] | None = None,
    ) -> Iterator[tuple[Id, list[Similar]]]:
        """The same, streamed: (user, list) in the order asked for."""
        numbers = torch.tensor([self.user_number(user) for user in users], dtype=torch.int64)
        return self._lists(numbers, k, filter_seen, self._candidates(allow, deny))

    def recommend_for(
        self,
        items: Sequence[Id],
        k: int = 10,
        filter_seen: bool = True,
        allow: Sequence[Id] | None = None,
        deny: Sequence[Id] | None = None,
    ) -> list[Similar]:
        """The items ranked first for somebody who has had `items`, whom the model does not know.

        Raises `DatasetError` for an item that the data lacks, `QuestionError` for none.
        """
        candidates = self._candidates(allow, deny)
        numbers = self._distinct(items)
        score, index = self._ranked_for(numbers, k, self._row_of(numbers) if filter_seen else None, candidates)
        return self.named(score[0], index[0])

    def all_lists(
        self, k: int, filter_seen: bool = True, allow: Sequence[Id] | None = None, deny: Sequence[Id] | None = None
    ) -> Iterator[tuple[Id, list[Similar]]]:
        """Lists of all users with train interactions, streamed, by number."""
        yield from self._lists(self.trained.nonzero()[:, 0], k, filter_seen, self._candidates(allow, deny))

    def _lists(
        self, users: Tensor, k: int, filter_seen: bool, candidates: Tensor | None
    ) -> Iterator[tuple[Id, list[Similar]]]:
        for block in users.split(BLOCK) if len(users) else ():
            score, index = self.ranked(block, k, filter_seen, candidates)
            for number, scores, items in zip(block.tolist(), score, index, strict=True):
                yield self.user(number), self.named(scores, items)

    def ranked(
        self, users: Tensor, k: int, filter_seen: bool = True, candidates: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(score [B, k'], item [B, k']) of users [B] among candidates, on the CPU; -inf and -1 where none is left."""
        return self._ranked(users, k, self.seen.rows(users) if filter_seen else None, candidates)

    def named(self, scores: Tensor, items: Tensor) -> list[Similar]:
        """A row of what `ranked` returns, by raw ids."""
        pairs = zip(items.tolist(), scores.tolist(), strict=True)
        return [Similar(self.item(item), value) for item, value in pairs if item >= 0]

    def _candidates(self, allow: Sequence[Id] | None, deny: Sequence[Id] | None) -> Tensor | None:
        """What may be recommended, by number, ascending; None for all that there is."""
        if allow is None and not deny:
            return None
        keep = torch.zeros(self.seen.n_cols, dtype=torch.bool)
        keep[self.known if allow is None else [self.item_number(item) for item in allow]] = True
        keep[[self.item_number(item) for item in deny or ()]] = False
        if not bool(keep.any()):
            raise QuestionError("allow, deny: expected to leave an item to recommend, got none")
        return keep.nonzero()[:, 0]

    def _distinct(self, items: Sequence[Id]) -> list[int]:
        numbers = list(dict.fromkeys(self.item_number(item) for item in items))
        if not numbers:
            raise QuestionError("items: expected at least one that somebody has had, got none")
        return numbers

    def _row_of(self, items: Sequence[int]) -> Graph:
        """[1, I] of the items of somebody."""
        numbers = torch.tensor(items, dtype=torch.int64)
        return Graph.from_edges(torch.zeros_like(numbers), numbers, None, (1, self.seen.n_cols))

    # What was had.

    def history(self, user: Id) -> list[Id]:
        """What a user has had, in any split, by number."""
        row = self.seen.rows(torch.tensor([self.user_number(user)]))
        return [self.item(number) for number in row.col.tolist()]

    def interactions_of(self, item: Id) -> int:
        """How many users have had an item."""
        return int(self._popularity[self.item_number(item)])

    @cached_property
    def _popularity(self) -> Tensor:
        return torch.bincount(self.seen.col.long(), minlength=self.seen.n_cols)

    def warm_up(self) -> None:
        """Computes now what the first question would otherwise wait for."""
        _ = self._popularity, self._user_numbers, self._item_numbers


def check_k(k: int) -> None:
    if k < 1:
        raise QuestionError(f"k must be at least 1, got {k}")


def numbers_of(index: Tensor, chosen: Tensor) -> Tensor:
    """Places among the items `chosen` [C], ascending, as numbers of items; -1 stays."""
    if len(chosen) and int(chosen[-1]) == len(chosen) - 1:  # all up to there: places are numbers
        return index
    return torch.where(index < 0, index, chosen[index.clamp(min=0)])
