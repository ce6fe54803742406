"""The validated in-memory data set that every model, the trainer and the commands share.

:meth:`Dataset.from_pairs` is the one door: the folder reader and the generator both go through it, so what
holds for one holds for the other. Rules of who is kept and who is dropped: docs/spec.md, section 3.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smore_ext.data.messages import cut, shown
from smore_ext.graph import Graph
from smore_ext.ops.modes import outside_modes

SPLITS = ("train", "valid", "test")
MAX_ID = 2**31 - 2  # so that counts fit int32 and user * n_items + item fits int64
_BLOCK_BYTES = 8 << 20  # features are checked in blocks of this size: a mapped file is never copied whole
_MODALITY = re.compile(r"[A-Za-z0-9_-]+")  # becomes part of parameter names, where torch forbids dots


class DatasetError(ValueError):
    """The data is not as it must be; the message names where, what was expected and what came."""


class SplitOverlapError(DatasetError):
    """A pair occurs in two splits; `user` and `item` name the example in the message."""

    def __init__(self, message: str, user: int, item: int) -> None:
        super().__init__(message)
        self.user = user
        self.item = item


class Pairs(NamedTuple):
    """Interactions as two columns of equal length: users [E] int64, items [E] int64."""

    users: Tensor
    items: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Users, items, three disjoint lists of interactions, item features and item graphs; all on the CPU.

    Build it with :func:`smore_ext.load_dataset`, :func:`smore_ext.data.builtin_dataset` or
    :meth:`from_pairs`: they validate, the bare constructor does not.

    Attributes:
        name: what logs and results call the data set.
        n_users, n_items: `U` and `I`; ids are `0..U-1` and `0..I-1`. Ids that never occur count too.
        train, valid, test: the interactions, each pair once. `valid` and `test` hold no user without a
            train pair.
        features: `{modality: [I, D_m] float32}`, names sorted. May be memory-mapped (private pages: writing
            to the tensor never changes the file, but does change this data set, so a model that trains them
            clones them).
        graphs: `{modality: Graph [I, I]}`, item graphs that came ready-made.
        fingerprint: sha256 (hex) over sizes, interactions in their order, features and graphs; not over the
            name.
        report: what was found and left out: `{train,valid,test}_duplicates` (repeated pairs, counted once),
            `{valid,test}_pairs_dropped` (their user has no train pair), `users_without_train` and
            `items_without_train` (ids in range that train does not use), `users_who_saw_every_item` (of those in
            train: they have no negatives); a reader may count more.
        user_ids, item_ids: raw ids, in the order of the numbers; None where the numbers are the ids.
        split: how the splits were made, for results: `{"rule": ...}` with ratios and seed where it depends on them.
        notes: sentences on what a reader converted or found out.
        hint: what to say, after an error, to whoever misses features.
    """

    name: str
    n_users: int
    n_items: int
    train: Pairs
    valid: Pairs
    test: Pairs
    features: dict[str, Tensor]
    graphs: dict[str, Graph]
    fingerprint: str
    report: dict[str, int]
    user_ids: tuple[str, ...] | None = None
    item_ids: tuple[str, ...] | None = None
    split: dict[str, Any] = field(default_factory=lambda: {"rule": "given"})
    notes: tuple[str, ...] = ()
    hint: str = ""

    @classmethod
    def from_pairs(
        cls,
        name: str,
        n_users: int,
        n_items: int,
        train: Pairs | Sequence,
        valid: Pairs | Sequence,
        test: Pairs | Sequence,
        features: Mapping[str, Tensor | np.ndarray] | None = None,
        graphs: Mapping[str, Graph] | None = None,
        *,
        sources: Mapping[str, str] | None = None,
        user_ids: Sequence[str] | None = None,
        item_ids: Sequence[str] | None = None,
        split: Mapping[str, Any] | None = None,
        overlap: str = "error",
        report: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
        hint: str = "",
    ) -> Dataset:
        """Validates the parts and puts them together.

        Args:
            train, valid, test: `(users, items)`, two integer vectors of equal length, tensors or arrays.
            features: `{modality: [I, D_m]}`, float32 (kept without a copy where the layout allows), or floating-point
                or integer numbers of another width (converted to float32).
            graphs: `{modality: Graph}` of shape `(I, I)`.
            sources: what errors call a part, by `"interactions"`, `"<modality>_feat"`,
                `"<modality>_graph"`; a reader gives file names here.
            user_ids, item_ids: raw ids by number, all different, [U] and [I].
            overlap: what a pair in two splits is: "error", or "earliest": it stays in the first of them.
            split, report, notes, hint: as the attributes; the report has these counts beside its own.

        Raises:
            DatasetError: naming the part, what must hold and what came.
        """
        sources = sources or {}
        for label, parts in (("features", features), ("graphs", graphs)):
            if parts is not None and not isinstance(parts, Mapping):
                raise TypeError(f"{label}: expected a mapping by modality, got {type(parts).__name__}")
        where = sources.get("interactions", f"dataset {name!r}")
        for label, count in (("n_users", n_users), ("n_items", n_items)):
            if not isinstance(count, int | np.integer):
                raise TypeError(f"{where}: expected {label} as an integer, got {type(count).__name__}")
            if not 1 <= count <= MAX_ID + 1:
                raise DatasetError(f"{where}: expected {label} between 1 and {MAX_ID + 1}, got {count}")

        counts = dict(report or {})
        keys: dict[str, np.ndarray] = {}  # one int64 a pair, in the order given
        for part, pairs in zip(SPLITS, (train, valid, test), strict=True):
            raw = _pair_keys(f"{where}: {part}", pairs, n_users, n_items)
            keys[part] = _unique_in_order(raw)
            counts[f"{part}_duplicates"] = len(raw) - len(keys[part])
        if len(keys["train"]) == 0:
            raise DatasetError(f"{where}: expected at least one train interaction (label 0), got none")
        if overlap == "earliest":
            counts["pairs_in_two_splits"] = _keep_earliest(keys)
        _check_overlap(where, keys, n_items)

        in_train = np.zeros(n_users, dtype=bool)
        in_train[keys["train"] // n_items] = True
        for part in ("valid", "test"):
            kept = keys[part][in_train[keys[part] // n_items]]
            counts[f"{part}_pairs_dropped"] = len(keys[part]) - len(kept)
            keys[part] = kept
        n_candidates = len(np.unique(keys["train"] % n_items))
        counts["users_without_train"] = n_users - int(in_train.sum())
        counts["items_without_train"] = n_items - n_candidates
        counts["users_who_saw_every_item"] = int((np.bincount(keys["train"] // n_items) == n_candidates).sum())

        checked_features = {
            modality: _checked_features(sources.get(f"{modality}_feat", f"{where}: features"), modality, value, n_items)
            for modality, value in sorted((features or {}).items())
        }
        checked_graphs = dict(sorted((graphs or {}).items()))
        for modality, graph in checked_graphs.items():
            _check_graph(sources.get(f"{modality}_graph", f"{where}: graphs"), modality, graph, n_items)

        ids = [_checked_ids(where, *each) for each in (("user", user_ids, n_users), ("item", item_ids, n_items))]
        splits = {part: _as_pairs(keys[part], n_items) for part in SPLITS}
        return cls(
            name=name,
            n_users=n_users,
            n_items=n_items,
            **splits,
            features=checked_features,
            graphs=checked_graphs,
            fingerprint=_fingerprint(n_users, n_items, splits, checked_features, checked_graphs, *ids),
            report=counts,
            user_ids=ids[0],
            item_ids=ids[1],
            split=dict(split or {"rule": "given"}),
            notes=tuple(notes),
            hint=hint,
        )

    @cached_property
    def seen(self) -> Graph:
        """Train interactions as a graph `[U, I]` of weight 1: row `u` lists the train items of user `u`."""
        users, items, shape = self.train.users, self.train.items, (self.n_users, self.n_items)
        return outside_modes(lambda: Graph.from_edges(users, items, None, shape), users, items)[0]

    @cached_property
    def candidates(self) -> Tensor:
        """Sorted ids of the items that occur in train, `[C]` int64: what negatives are drawn from."""
        return outside_modes(lambda: torch.unique(self.train.items), self.train.items)[0]

    @cached_property
    def known_items(self) -> Tensor:
        """Sorted ids of the items that there are, int64: in an interaction, with features, or with a raw id. Others are
        gaps between ids, which nothing may recommend."""
        if self.item_ids is not None:
            return torch.arange(self.n_items)
        known = torch.zeros(self.n_items, dtype=torch.bool)
        for pairs in (self.train, self.valid, self.test):
            known[pairs.items] = True
        for table in self.features.values():
            for first in range(0, self.n_items, 1024):  # in blocks: no copy of a large table
                known[first : first + 1024] |= (table[first : first + 1024] != 0).any(dim=1)
        return known.nonzero()[:, 0]

    @cached_property
    def trained_on(self) -> Pairs:
        """The train pairs of users for whom negatives can be drawn: without those who saw every item of train."""
        if not self.report["users_who_saw_every_item"]:
            return self.train

        def chosen() -> Pairs:
            left = self.seen.rowptr.long().diff() < len(self.candidates)
            return Pairs(*(column[left[self.train.users]] for column in self.train))

        return outside_modes(chosen, *self.train)[0]

    @cached_property
    def _user_numbers(self) -> dict[str, int]:
        return {raw: number for number, raw in enumerate(self.user_ids or ())}

    def user_number(self, user: str | int) -> int:
        """The number of a user: of its raw id, or where ids are numbers, of that. Raises `DatasetError`."""
        return number_of(user, "user", None if self.user_ids is None else self._user_numbers, self.n_users)

    def __repr__(self) -> str:
        features = ", ".join(f"{m} {f.shape[1]}" for m, f in self.features.items()) or "none"
        return (
            f"Dataset({self.name!r}: {self.n_users:,} users, {self.n_items:,} items, "
            f"{len(self.train.users):,} / {len(self.valid.users):,} / {len(self.test.users):,} "
            f"train / valid / test pairs, features {features}, graphs {', '.join(self.graphs) or 'none'})"
        )


def number_of(raw: str | int, kind: str, numbers: Mapping[str, int] | None, count: int) -> int:
    """The number of a user or an item by its raw id, or without `numbers` of those where ids are the numbers below
    `count`. Raises `DatasetError`."""
    if numbers is not None:
        if str(raw) not in numbers:
            raise DatasetError(f"{kind}: expected one of the {count} raw ids of the data, got {shown(raw)}")
        return numbers[str(raw)]
    number = int(raw) if re.fullmatch(r"[0-9]{1,18}", str(raw)) else -1
    if not 0 <= number < count:
        raise DatasetError(f"{kind}: expected an id from 0 to {count - 1}, got {cut(str(raw))}")
    return number


def hash_tensor(digest: hashlib._Hash, label: str, tensor: Tensor) -> None:
    """Adds label, dtype, shape and bytes of a CPU tensor to `digest`, without copying a contiguous one."""
    tensor = tensor.detach().contiguous()
    digest.update(f"{label} {tensor.dtype} {tuple(tensor.shape)};".encode())
    if tensor.numel():  # torch cannot view an empty tensor as bytes
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())


def _fingerprint(
    n_users: int,
    n_items: int,
    splits: dict[str, Pairs],
    features: dict[str, Tensor],
    graphs: dict[str, Graph],
    user_ids: tuple[str, ...] | None,
    item_ids: tuple[str, ...] | None,
) -> str:
    digest = hashlib.sha256(f"smore_ext.Dataset 1 {n_users} {n_items};".encode())
    for split, pairs in splits.items():
        hash_tensor(digest, f"{split} users", pairs.users)
        hash_tensor(digest, f"{split} items", pairs.items)
    for modality, tensor in features.items():
        hash_tensor(digest, f"feature {modality}", tensor)
    for modality, graph in graphs.items():
        # int64 whatever the graph stores: the index width is a matter of memory, not of content
        hash_tensor(digest, f"graph {modality} rowptr", graph.rowptr.long())
        hash_tensor(digest, f"graph {modality} col", graph.col.long())
        hash_tensor(digest, f"graph {modality} weight", graph.weight)
    for label, ids in (("user ids", user_ids), ("item ids", item_ids)):
        if ids is not None:
            digest.update(f"{label} {json.dumps(ids)};".encode())
    return digest.hexdigest()


def _integer_vector(where: str, values: object, bound: int) -> np.ndarray:
    """`values` as int64 `[E]` with every entry in `0..bound-1`."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DatasetError(f"{where}: expected a vector of integers, got {array.dtype} of shape {array.shape}")
    bad = np.flatnonzero((array < 0) | (array >= bound)) if array.size else ()
    if len(bad):
        raise DatasetError(f"{where}: expected ids from 0 to {bound - 1}, got {array[bad[0]]} at position {bad[0]}")
    return array.astype(np.int64)


def _pair_keys(where: str, pairs: Pairs | Sequence, n_users: int, n_items: int) -> np.ndarray:
    """One sortable key a pair, `user * n_items + item`, `[E]` int64."""
    try:
        users, items = pairs
    except (TypeError, ValueError):
        raise TypeError(f"{where}: expected (users, items), two vectors, got {type(pairs).__name__}") from None
    users = _integer_vector(f"{where} users", users, n_users)
    items = _integer_vector(f"{where} items", items, n_items)
    if len(users) != len(items):
        raise DatasetError(f"{where}: expected as many users as items, got {len(users)} and {len(items)}")
    return users * n_items + items


def _as_pairs(keys: np.ndarray, n_items: int) -> Pairs:
    return Pairs(torch.from_numpy(keys // n_items), torch.from_numpy(keys % n_items))


def _unique_in_order(keys: np.ndarray) -> np.ndarray:
    """`keys` without repeats, each where it came first: the order feeds the training shuffle."""
    unique, first = np.unique(keys, return_index=True)
    return keys if len(unique) == len(keys) else keys[np.sort(first)]


def _keep_earliest(keys: dict[str, np.ndarray]) -> int:
    """Takes pairs that are in several splits out of all but the first of them; how many were taken out."""
    before = sum(map(len, keys.values()))
    keys["valid"] = keys["valid"][~np.isin(keys["valid"], keys["train"])]
    keys["test"] = keys["test"][~np.isin(keys["test"], np.concatenate([keys["train"], keys["valid"]]))]
    return before - sum(map(len, keys.values()))


def _checked_ids(where: str, kind: str, ids: Sequence[str] | None, count: int) -> tuple[str, ...] | None:
    if ids is None:
        return None
    if len(ids) != count or len(set(ids)) != count or not all(isinstance(raw, str) for raw in ids):
        raise DatasetError(
            f"{where}: expected {count} different texts as raw {kind} ids, got {len(ids)}, {len(set(ids))} different"
        )
    return tuple(ids)


def _check_overlap(where: str, keys: dict[str, np.ndarray], n_items: int) -> None:
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = np.intersect1d(keys[first], keys[second], assume_unique=True)
        if len(both):
            user, item = divmod(int(both[0]), n_items)
            raise SplitOverlapError(
                f"{where}: expected every pair in one split only, got {len(both)} in both {first} "
                f"and {second}, for example user {user}, item {item}",
                user,
                item,
            )


def _check_modality(where: str, modality: str) -> None:
    if not _MODALITY.fullmatch(modality):
        raise DatasetError(f"{where}: expected a modality name of letters, digits, '_', '-'; got {shown(modality)}")


def _check_graph(where: str, modality: str, graph: Graph, n_items: int) -> None:
    _check_modality(where, modality)
    if not isinstance(graph, Graph):
        raise DatasetError(f"{where} ({modality}): expected a Graph, got {type(graph).__name__}")
    if tuple(graph.shape) != (n_items, n_items):
        raise DatasetError(
            f"{where} ({modality}): expected a graph of shape ({n_items}, {n_items}), one row and column an "
            f"item, got {tuple(graph.shape)}"
        )
    if not bool(torch.isfinite(graph.weight).all()):
        raise DatasetError(f"{where} ({modality}): expected finite edge weights, got NaN or infinity")


def _checked_features(where: str, modality: str, value: Tensor | np.ndarray, n_items: int) -> Tensor:
    """`value` as contiguous finite float32 `[I, D]`; the same memory where dtype and layout allow."""
    _check_modality(where, modality)
    where = f"{where} ({modality})"
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asanyarray(value)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise DatasetError(
            f"{where}: expected float32 or float64 features, or float16 or integers, got dtype {cut(str(array.dtype))}"
        )
    if array.ndim != 2 or array.shape[1] == 0:
        raise DatasetError(f"{where}: expected features of shape [items, width >= 1], got shape {array.shape}")
    if array.shape[0] != n_items:
        raise DatasetError(
            f"{where}: expected {n_items} feature rows, one an item (largest item id + 1), got {array.shape[0]}"
        )
    as_it_is = array.dtype == np.float32 and array.flags.c_contiguous and array.flags.writeable
    out = array if as_it_is else np.empty(array.shape, dtype=np.float32)
    rows = max(1, _BLOCK_BYTES // (array.shape[1] * array.dtype.itemsize))
    for start in range(0, n_items, rows):
        block = array[start : start + rows]
        if not as_it_is:
            with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes inf: reported below
                out[start : start + rows] = block
        finite = np.isfinite(out[start : start + rows])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise DatasetError(
                f"{where}: expected finite float32 features, got {block[row, column]} in row {start + row}, "
                f"column {column}"
            )
    return torch.from_numpy(np.asarray(out))
