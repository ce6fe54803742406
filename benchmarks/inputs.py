"""Inputs at the published sizes: random interactions with a long tail of popularity, random graphs and data sets.

The one rule of the smoke pass is here: every count is divided by `shrink`, widths and k stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from smore_ext import Dataset, Graph, SMOREConfig
from smore_ext.data import Pairs
from smore_ext.runs.config_files import resolve

WIDTH = 64
FEATURE_WIDTHS = {"image": 4096, "text": 384}
LEAST = 64  # counts are not divided below this: k = 50 must stay possible


class Size(NamedTuple):
    users: int
    items: int
    interactions: int
    train: int  # about 74 % of all, as in the published splits


SIZES = {
    "baby": Size(19_445, 7_050, 160_792, 118_551),
    "sports": Size(35_598, 18_357, 296_337, 218_409),
    "clothing": Size(39_387, 23_033, 278_677, 197_338),
    "elec": Size(192_403, 63_001, 1_689_188, 1_250_000),
}
PUBLISHED = ("baby", "sports", "clothing")


def shrunk(count: int, shrink: int) -> int:
    return max(count // shrink, min(count, LEAST))


def size_of(name: str, shrink: int = 1) -> Size:
    return Size(*(shrunk(count, shrink) for count in SIZES[name]))


def popular(generator: torch.Generator, n_items: int, count: int) -> Tensor:
    """Item ids with a long tail: item i has a share in proportion to about (i + 1)^(-2/3)."""
    return (torch.rand(count, generator=generator).pow(3) * n_items).long()


def interactions(size: Size) -> Pairs:
    """Random train pairs; the few that repeat are merged."""
    g = torch.Generator().manual_seed(7)
    items = popular(g, size.items, size.train)
    users = torch.randint(size.users, (size.train,), generator=g)
    return Pairs(*torch.unique(torch.stack([users, items]), dim=1))


def validation(size: Size, train: Pairs) -> Pairs:
    """One pair for each user, as a split by user gives, without those of train."""
    users = torch.arange(size.users)
    items = popular(torch.Generator().manual_seed(9), size.items, size.users)
    fresh = ~torch.isin(users * size.items + items, train.users * size.items + train.items)
    return Pairs(users[fresh], items[fresh])


def bipartite(size: Size) -> Graph:
    return Graph.bipartite(*interactions(size), size.users, size.items)


def seen_items(size: Size, n_users: int | None = None) -> Graph:
    """Train items of the first `n_users` users (None: of all), one row a user."""
    users, items = interactions(size)
    n_users = size.users if n_users is None else n_users
    inside = users < n_users
    return Graph.from_edges(users[inside], items[inside], None, (n_users, size.items))


def neighbours(n_items: int, k: int, seed: int = 8) -> Graph:
    """A random directed graph shaped like an item kNN graph."""
    g = torch.Generator().manual_seed(seed)
    col = torch.randint(n_items, (n_items * k,), generator=g)
    row = torch.arange(n_items).repeat_interleave(k)
    return Graph.from_edges(row, col, torch.rand(n_items * k, generator=g) / k, (n_items, n_items))


def fused(n_items: int) -> Graph:
    """The union of two modalities' graphs, as SMORE's fusion graph is."""
    return Graph.maximum([neighbours(n_items, 40), neighbours(n_items, 10, seed=11)])


def power_law(n_nodes: int, n_edges: int) -> Graph:
    """Both ends of an edge with a long tail, ids in random order; the edges that repeat are merged."""
    g = torch.Generator().manual_seed(12)
    ends = [torch.randperm(n_nodes, generator=g)[popular(g, n_nodes, n_edges)] for _ in range(2)]
    return Graph.from_edges(*ends, torch.rand(n_edges, generator=g), (n_nodes, n_nodes))


def features(n_items: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(n_items, width, generator=g) for m, width in FEATURE_WIDTHS.items()}


def item_graphs(n_items: int, knn_k: int | Mapping[str, int]) -> dict[str, Graph]:
    ks = {m: knn_k if isinstance(knn_k, int) else knn_k[m] for m in FEATURE_WIDTHS}
    return {m: neighbours(n_items, k, seed) for seed, (m, k) in enumerate(ks.items(), start=20)}


def dataset(size: Size, knn_k: int | Mapping[str, int], every_pair: bool = False) -> Dataset:
    """Train and validation pairs, features and ready-made random item graphs: nothing is left to build for long.

    every_pair: take all interactions of that size for training, not the train split's share.
    """
    train = interactions(size._replace(train=size.interactions) if every_pair else size)
    nothing = Pairs(train.users[:0], train.items[:0])
    valid = nothing if every_pair else validation(size, train)
    graphs = item_graphs(size.items, knn_k)
    return Dataset.from_pairs("random", size.users, size.items, train, valid, nothing, features(size.items), graphs)


def published_config(name: str) -> SMOREConfig:
    """Published settings, from the package's preset; item graphs are not kept between runs."""
    return replace(resolve(preset=f"smore-{name}").model, cache_dir=None)
