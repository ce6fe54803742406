"""Splits of a table without labels: which interactions are for training, validation and test.

A pair that occurs repeatedly counts once, as the earliest. Rules are named as `ReadOptions.split` has them; what each
does is in docs/spec.md, section 4. The same table, rule, ratios and seed give the same split on any machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from smore_ext.data.options import ReadOptions


def earliest(users: np.ndarray, items: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """Rows of the different pairs in file order, of a repeated one the earliest: [P] int64. Ids are int64 [E]."""
    order = np.arange(len(users)) if times is None else np.argsort(times, kind="stable")
    keys = users[order] * (items.max(initial=0) + 1) + items[order]
    return np.sort(order[np.unique(keys, return_index=True)[1]])  # of equal keys the first in `order`


def split_labels(users: np.ndarray, times: np.ndarray | None, options: ReadOptions) -> np.ndarray:
    """Labels 0 train, 1 validation, 2 test of interactions, [E] int64. A user of one interaction trains with it."""
    _, valid_share, test_share = options.split_ratios
    if options.split == "time":
        assert times is not None
        last = len(users) - _rounded(len(users), test_share)
        first = last - _rounded(len(users), valid_share)
        labels = np.zeros(len(users), dtype=np.int64)
        order = np.argsort(times, kind="stable")
        labels[order[max(first, 0) :]] = 1
        labels[order[last:]] = 2
        return labels
    if options.split == "random" or times is None:
        within: np.ndarray = np.random.Generator(np.random.PCG64(options.split_seed)).random(len(users))
    else:
        within = times
    counts = np.bincount(users)  # of each user
    if options.split == "leave_one_out":
        n_valid, n_test = np.ones_like(counts), np.ones_like(counts)
    else:
        n_valid, n_test = _held_out(counts, valid_share), _held_out(counts, test_share)
    n_test = np.clip(n_test, 0, np.maximum(counts - 1, 0))
    n_valid = np.clip(n_valid, 0, np.maximum(counts - 1 - n_test, 0))
    order = np.lexsort((within, users))  # by user, then as the rule says; stable
    rank = np.empty(len(users), dtype=np.int64)  # from the last of a user, 0, backwards
    ends = np.cumsum(counts)
    rank[order] = ends[users[order]] - 1 - np.arange(len(users))
    return np.where(rank < n_test[users], 2, np.where(rank < (n_test + n_valid)[users], 1, 0))


def describe(options: ReadOptions, timed: bool) -> dict[str, Any]:
    """What a result says of its split: rule, and ratios and seed where it depends on them."""
    out: dict[str, Any] = {"rule": options.split}
    if options.split in ("random", "user_time", "time"):
        out["ratios"] = list(options.split_ratios)
    if options.split == "leave_one_out":
        out["order"] = "time" if timed else "random"
    if options.split == "random" or out.get("order") == "random":
        out["seed"] = options.split_seed
    if options.overlap != "error":
        out["overlap"] = options.overlap
    return out


def _rounded(count: int, share: float) -> int:
    return int(np.floor(count * share + 0.5))


def _held_out(counts: np.ndarray, share: float) -> np.ndarray:
    """The share of each count, at least one where the share is not 0."""
    return np.maximum(np.floor(counts * share + 0.5).astype(np.int64), int(share > 0))
