"""Features of items that have none: never zero without a word, but the mean, or those of similar items."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from smore_ext.data.dataset import DatasetError

Filled = Literal["mean", "neighbours"]
NEIGHBOURS = 10
_BLOCK = 256  # items whose similarities are held at once


def fill(features: Tensor, missing: Tensor, users: Tensor, items: Tensor, n_users: int, how: Filled) -> Tensor:
    """Features with the rows of items that lack them replaced.

    Args:
        features: [I, D] floating point; rows that are missing do not count.
        missing: [I] bool.
        users, items: [E] int64, train interactions.
        n_users: of them, 0 to n_users - 1.
        how: "mean" of the items that have features; "neighbours": the mean of the 10 such items of the most similar
            users, by cosine over train interactions and weighted by it; the mean of all where there is none. (Graph
            imputation is what Malitesta et al., arXiv 2408.11767, find better than dropping items.)
    """
    if how not in get_args(Filled):
        raise DatasetError(f"filled: expected one of {', '.join(get_args(Filled))}, got {how!r}")
    out = features.clone()
    have, lost = (~missing).nonzero()[:, 0], missing.nonzero()[:, 0]
    if not len(lost):
        return out
    mean = features[have].mean(dim=0) if len(have) else torch.zeros_like(features[0])
    out[lost] = mean
    if how == "mean" or not len(have):
        return out
    by_item = csr_array((np.ones(len(users), np.float32), (items.numpy(), users.numpy())), (len(features), n_users))
    counts = np.maximum(by_item.sum(axis=1), 1.0)
    unit = by_item.multiply(1.0 / np.sqrt(counts)[:, None]).tocsr()
    others = unit[have.numpy()].T.tocsr()  # [U, H]
    for block in lost.split(_BLOCK):
        cosine = torch.from_numpy((unit[block.numpy()] @ others).toarray())  # [B, H]
        weight, place = cosine.topk(min(NEIGHBOURS, len(have)), dim=1)
        total = weight.sum(dim=1, keepdim=True)
        near = (weight[:, :, None] * features[have[place]].to(weight.dtype)).sum(dim=1) / total.clamp(min=1e-12)
        out[block] = torch.where(total > 0, near.to(out.dtype), mean)
    return out
