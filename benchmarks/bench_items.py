"""Nearest neighbours, ranking, and negative sampling."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import floors
from benchmarks.inputs import FEATURE_WIDTHS, PUBLISHED, SIZES, WIDTH, interactions, seen_items, shrunk, size_of
from benchmarks.interleave import Case, Comparison, Contender, Setting
from benchmarks.op_contenders import arguments, op_comparison
from benchmarks.peers import (
    BatchedTopk,
    SortedKeys,
    blocked_knn,
    faiss_knn,
    gathered_cosines,
    optional,
    published_knn_graph,
    python_sampler,
    seen_sets,
)
from smore_ext import Graph
from smore_ext.testing.cases import cosine_case, epoch_case, knn_case, topk_case

KNN = [(SIZES[name].items, k) for name in ("baby", "sports") for k in (10, 40)]
QUERIES = 2048
RANKED_USERS, RANKED = 8192, 50


def knn_peers(setting: Setting) -> dict[str, SimpleNamespace | None]:
    faiss = optional("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(setting.threads)
    return {
        "faiss": faiss and SimpleNamespace(knn=faiss_knn(faiss)),
        "torch mm + topk": SimpleNamespace(knn=blocked_knn),
    }


def knn(rows: int, k: int) -> Case:
    def make(setting: Setting) -> Comparison:
        n, width = shrunk(rows, setting.shrink), FEATURE_WIDTHS["image"]
        return op_comparison(knn_case(n, width, k), knn_peers(setting), lambda _: floors.knn(n, width), False)

    return Case("knn", f"N = {rows:,}, k = {k}", make, quick=rows < 10_000 and k == 10)


def knn_in_base(rows: int, k: int) -> Case:
    def make(setting: Setting) -> Comparison:
        n, queries = shrunk(rows, setting.shrink), shrunk(QUERIES, setting.shrink)
        width = FEATURE_WIDTHS["image"]
        case, floor = knn_case(n, width, k, queries), floors.knn_in_base(queries, n, width)
        return op_comparison(case, knn_peers(setting), lambda _: floor, False)

    return Case("knn in a base", f"{QUERIES:,} queries, N = {rows:,}, k = {k}", make, quick=rows < 10_000 and k == 10)


def cosine_at(size: str, k: int) -> Case:
    """The similarities of an item graph that is relearned from projected features."""

    def make(setting: Setting) -> Comparison:
        n = size_of(size, setting.shrink).items
        peers = {"torch gather + bmm": SimpleNamespace(cosine_at=gathered_cosines)}
        floor = floors.cosine_step(n, k, WIDTH)
        return op_comparison(cosine_case(n, WIDTH, k), peers, lambda _: floor, True, setting.device)

    return Case("cosine_at, forward + backward", f"{size}, k = {k}", make, quick=size == "baby" and k == 10)


def knn_graph(rows: int, k: int) -> Case:
    """The whole item graph against the published way, which runs once: it takes many seconds."""

    def make(setting: Setting) -> Comparison:
        n, width = shrunk(rows, setting.shrink), FEATURE_WIDTHS["image"]
        features, _ = arguments(knn_case(n, width, k), backward=False)
        peers = {"published": Contender(lambda: published_knn_graph(features, k), rounds=2 if rows < 10_000 else 1)}
        return Comparison(Contender(lambda: Graph.knn(features, k)), peers, floors.knn(n, width))

    return Case("Graph.knn", f"N = {rows:,}, k = {k}", make, quick=rows < 10_000 and k == 10)


def masked_topk(size: str, ranked: int = RANKED_USERS) -> Case:
    """Many users, as evaluation has them; or few, as a server."""

    def make(setting: Setting) -> Comparison:
        n = size_of(size, setting.shrink)
        users = shrunk(ranked, setting.shrink) if ranked == RANKED_USERS else ranked
        seen = seen_items(n, users).to(setting.device)
        case = topk_case(users, n.items, WIDTH, RANKED, seen)
        floor = floors.masked_topk(users, n.items, WIDTH, RANKED)
        peers = {"torch matmul + mask + topk": BatchedTopk(seen)}
        return op_comparison(case, peers, lambda _: floor, False, setting.device)

    where = f"{size}, {SIZES[size].items:,} items"
    if ranked == RANKED_USERS:
        return Case("masked_topk", where, make, quick=size == "baby")
    return Case("masked_topk of few users", f"{where}, {ranked} user{'s' * (ranked > 1)}", make)


def sample_negatives(size: str) -> Case:
    """One negative for each train interaction: an epoch."""

    def make(setting: Setting) -> Comparison:
        n = size_of(size, setting.shrink)
        seen = seen_items(n).to(setting.device)
        users, items = (ids.to(setting.device) for ids in interactions(n))
        candidates = torch.unique(items)
        sets, ids, keys = seen_sets(seen), candidates.tolist(), SortedKeys(seen)
        peers = {
            "Python loop": lambda *_: torch.tensor(python_sampler(users.tolist(), sets, ids)),
            "vectorised torch": lambda *_: keys.sample(users, candidates),
        }
        modules = {name: SimpleNamespace(sample_negatives=sample) for name, sample in peers.items()}
        floor = floors.sample_negatives(len(users), seen.n_edges)
        case = epoch_case(size, users, seen, candidates)
        return op_comparison(case, modules, lambda _: floor, False, setting.device)

    return Case("sample_negatives", size, make, quick=size == "baby")


CASES = [
    *(knn(rows, k) for rows, k in KNN),
    *(knn_in_base(rows, k) for rows, k in KNN),
    *(knn_graph(rows, k) for rows, k in KNN),
    *(cosine_at(size, k) for size, k in (("baby", 10), ("clothing", 10), ("clothing", 40))),
    *(masked_topk(size) for size in ("baby", "sports", "elec")),
    *(masked_topk(size, ranked) for size in ("baby", "elec") for ranked in (1, 8, 64)),
    *(sample_negatives(size) for size in PUBLISHED),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_items(measure, case: Case) -> None:
    measure(case)
