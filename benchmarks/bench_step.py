"""A whole training step of SMORE at Baby's size with the published settings: forward, backward and Adam.

Random features and interactions of true sizes: 7,050 items x 4,096 (image, trainable) and x 384 (text), batch 2,048.
"native" is this package as the trainer runs it: fused Adam, reused host memory, side information for the nodes of the
batch only. "published" is the same model and weights with the reference backend (torch.fft, COO products, eager losses,
side information of every node) and Adam's default, unfused loop. "reference-fused" is that with fused Adam.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bench_ops import SIZES, interactions, neighbours

from smore_ext import SMORE, Dataset, SMOREConfig
from smore_ext._native import set_host_cache
from smore_ext.data import Pairs

STEPS = {
    "native": ("native", True),
    "reference-fused": ("reference", True),
    "published": ("reference", False),
}
HOST_CACHE = {"native": 1 << 30}  # bytes; as the trainer sets it


def make_step(backend: str, fused: bool) -> Callable[[], None]:
    users, items, n_users, n_items = interactions("baby")
    empty = Pairs(users[:0], items[:0])
    g = torch.Generator().manual_seed(1)
    features = {
        "image": torch.randn(n_items, 4096, generator=g),
        "text": torch.randn(n_items, 384, generator=g),
    }
    graphs = {"image": neighbours("baby", 40), "text": neighbours("baby", 15)}
    pairs = Pairs(*torch.unique(torch.stack([users, items]), dim=1))
    data = Dataset.from_pairs("baby-sized", n_users, n_items, pairs, empty, empty, features, graphs)
    torch.manual_seed(0)
    model = SMORE(data, SMOREConfig(n_ui_layers=4, dropout=0.1, backend=backend))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **({"fused": True} if fused else {}))
    at = torch.randperm(pairs.users.shape[0], generator=g)[:2048]
    batch = (pairs.users[at], pairs.items[at], torch.randint(SIZES["baby"][1], (2048,), generator=g))

    def step() -> None:
        optimizer.zero_grad()
        model.loss(*batch).backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("name", STEPS)
def test_training_step_at_baby_size(benchmark, name: str) -> None:
    benchmark.group = "training step, Baby size"
    step = make_step(*STEPS[name])
    set_host_cache(HOST_CACHE.get(name, 0))
    benchmark.pedantic(step, rounds=15, iterations=1, warmup_rounds=3)
    set_host_cache(0)
