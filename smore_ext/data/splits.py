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
        ordered = np.sort(times)
        last = _between(ordered, len(users) - _rounded(len(users), test_share))
        first = _between(ordered, last - _rounded(len(users), valid_share))
        place = np.searchsorted(ordered, times)
        return np.where(place >= last, 2, np.where(place >= first, 1, 0))
    drawn = np.random.Generator(np.random.PCG64(options.split_seed)).random(len(users))
    counts = np.bincount(users)  # of each user
    if options.split == "leave_one_out":
        n_valid, n_test = np.ones_like(counts), np.ones_like(counts)
    else:
        n_valid, n_test = _held_out(counts, valid_share, test_share)
    n_test = np.clip(n_test, 0, np.maximum(counts - 1, 0))
    n_valid = np.clip(n_valid, 0, np.maximum(counts - 1 - n_test, 0))
    # By user, then as the rule says. Of equal times the order is drawn: that of a table may be that of its items.
    timed = options.split != "random" and times is not None
    order = np.lexsort((drawn, times, users)) if timed else np.lexsort((drawn, users))
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
    if options.split in ("random", "leave_one_out", "user_time"):
        out["seed"] = options.split_seed  # of times that are equal too
    if options.overlap != "error":
        out["overlap"] = options.overlap
    return out


def _rounded(count: int, share: float) -> int:
    return int(np.floor(count * share + 0.5))


def _between(ordered: np.ndarray, place: int) -> int:
    """The place nearest to `place`, not the first, where one moment ends and another begins; the end if there is none.
    Moments of validation and test are so after all those before them."""
    if not 0 < place < len(ordered):
        return max(place, 0)
    begin, end = (int(np.searchsorted(ordered, ordered[place], side)) for side in ("left", "right"))
    return begin if begin > 0 and place - begin <= end - place else end


def _held_out(counts: np.ndarray, valid_share: float, test_share: float) -> tuple[np.ndarray, np.ndarray]:
    """For validation and test of each count: the share of both, rounded down, of which validation's part is rounded
    down again; at least one where the share is not 0. That is how the folders of the field were split."""
    both = np.floor(counts * (valid_share + test_share) + 1e-9).astype(np.int64)
    valid = np.floor(both * (valid_share / max(valid_share + test_share, 1e-300)) + 1e-9).astype(np.int64)
    return np.maximum(valid, int(valid_share > 0)), np.maximum(both - valid, int(test_share > 0))
