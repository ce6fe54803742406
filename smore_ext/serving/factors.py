"""A trained model by its factors: a score is the dot product of a user's and an item's embedding.

The item's is a sum of parts (behaviour, each modality, fusion; `Recommender.item_parts`), so a score is a sum of
contributions. Shapes: U users, I items, d wide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from smore_ext import ops
from smore_ext.data.messages import listed, shown
from smore_ext.evaluation.ranking import among
from smore_ext.graph import Graph
from smore_ext.registry import did_you_mean
from smore_ext.serving.placing import Placing, fit
from smore_ext.serving.served import BLOCK, Explanation, Id, QuestionError, Served, Similar, check_k, numbers_of

RIDGE = 1e-3  # of the mean square of what is regressed on


@dataclass(frozen=True)
class Factors(Served):
    """Factors of a trained model, with what its users have had.

    Attributes:
        users, items: final embeddings, [U, d] and [I, d].
        parts: by name, [I, d] each, of sum `items`.
        features: raw features [I, D_m] of a run's data, by which new items are placed; of a file empty.
        unread: reads those where the model itself reads none; None where there are none.
        fitted: how a file places new items, None where it does not, and for a run before it is asked.
    """

    users: Tensor
    items: Tensor
    parts: dict[str, Tensor]
    features: dict[str, Tensor] = field(default_factory=dict)
    unread: Callable[[], dict[str, Tensor]] | None = None
    fitted: Placing | None = None

    nearness: ClassVar[str] = "cosine"
    whole: ClassVar[str] = "final embeddings"

    @property
    def part_names(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def fold_in(self, items: Sequence[Id]) -> Tensor:
        """An embedding [d] float64 for somebody who has had `items`, in the place of one that was trained.

        It is what ridge regression says of the users that there are: their embeddings from the sum of those of their
        items, over the root of the number. One pass over the users, the first time; then a product of d x d.

        Raises `DatasetError` for an item that the data lacks, `QuestionError` for none.
        """
        return self._embedding_of(self._distinct(items))

    def _embedding_of(self, items: list[int]) -> Tensor:
        rows = self.items[torch.tensor(items, device=self.items.device)].double()
        return self._regression @ (rows.sum(dim=0) / len(items) ** 0.5)

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
        if not (found := self._raw_features):
            raise QuestionError("expected a model whose data has features, got one that has none")
        features = {name: table[self.known] for name, table in found.items()}
        return fit(features, [part.cpu()[self.known] for part in self.parts.values()])

    @property
    def can_place(self) -> bool:
        """Whether there are features, or what was made of them; they are read for the answer."""
        return self.fitted is not None or bool(self._raw_features)

    @cached_property
    def _raw_features(self) -> dict[str, Tensor]:
        return self.features or ({} if self.unread is None else self.unread())

    def with_items(self, features: Mapping[str, Tensor], ids: Sequence[str] | None = None) -> Factors:
        """The same model with n items more, placed by their features alone (`placing`), whom nobody has had.

        Args:
            features: by modality, [n, D_m], tensors or arrays of numpy, as raw as those of the data; a modality may be
                missing.
            ids: their raw ids, where the data has raw ones; else they get the next numbers.

        Raises `QuestionError` for ids that are there or missing, and features that do not fit.
        """
        features = {name: torch.as_tensor(table) for name, table in features.items()}
        count = next((len(table) if table.ndim else 0 for table in features.values()), 0)
        if (ids is None) != (self.item_ids is None) or len(ids or range(count)) != count:
            wanted = "none, as items go by numbers" if self.item_ids is None else f"{count}, as there are features"
            raise QuestionError(f"ids: expected {wanted}, got {'none' if ids is None else len(ids)}")
        names, there = [str(raw) for raw in ids or ()], set(self.item_ids or ())
        for raw in names:
            if raw in there:
                raise QuestionError(f"ids: expected new ones, each once, got {shown(raw)}")
            there.add(raw)
        placing = self.placing
        try:
            rows = placing.rows(features, count).to(self.items)
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
            unread=None,
            fitted=placing,
        )

    def _ranked(self, users: Tensor, k: int, masked: Graph | None, candidates: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._best(self.users[users.to(self.users.device)], k, masked, candidates)

    def _ranked_for(
        self, items: list[int], k: int, masked: Graph | None, candidates: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """By the embedding that `fold_in` makes."""
        return self._best(self._embedding_of(items).to(self.items.dtype)[None], k, masked, candidates)

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

    def explain(self, user: Id, item: Id, k: int = 3) -> Explanation:
        """Contributions to a score, and which of the user's k items are nearest to the item, in each part."""
        check_k(k)
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

    def warm_up(self) -> None:
        super().warm_up()
        _ = self._regression, self._known_items

    def to(self, device: str | torch.device) -> Factors:
        moved = {name: table.to(device) for name, table in self.parts.items()}
        return replace(self, users=self.users.to(device), items=self.items.to(device), parts=moved)


def _best_of(rows: Tensor, items: Tensor, k: int, chosen: Tensor, masked: Graph | None) -> tuple[Tensor, Tensor]:
    """(score [B, k'], index [B, k']) of rows [B, d] among items [C, d], which are the numbers `chosen` [C] of all."""
    check_k(k)
    if masked is not None and len(chosen) < masked.n_cols:
        masked = among(masked, chosen)
    score, index = ops.masked_topk(
        rows, items, min(k, len(chosen)), None if masked is None else masked.to(items.device)
    )
    return score.cpu(), numbers_of(index.cpu(), chosen)
