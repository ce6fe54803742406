"""Changes to the content of a data set: worse features, other items' features, features that are not there.

Interactions, and so the users that are compared, stay as they are. Every change is a function of its arguments and a
seed. Noise is measured against the features' own spread: strength 1 has as much energy as they have around their mean.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from smore_ext.data import Dataset
from smore_ext.data.graph_cache import item_knn_graph
from smore_ext.data.missing import fill

NEIGHBOURS = 10
Change = Callable[..., Tensor]  # (features [I, D], generator, dataset, **arguments) -> features


def apply(dataset: Dataset, change: Mapping[str, Any]) -> Dataset:
    """The data set after one change, `{"kind": ..., "only": [modalities], "seed": n, argument: value}`.

    `only` names those that it is for, all if left out; "kept" drops the others. With `name` the changed
    features are a further modality of that name. Item graphs that came with the data are of its features, and go.
    With `part` "graphs" only the item graphs are of the changed features, with "tables" all but them.
    """
    arguments = dict(change)
    kind, only, seed = arguments.pop("kind"), arguments.pop("only", None), arguments.pop("seed", 0)
    name, features = arguments.pop("name", None), dict(dataset.features)
    part = arguments.pop("part", None)
    if part not in (None, "graphs", "tables"):
        raise ValueError(f"part: expected graphs or tables, got {part!r}")
    if kind not in CHANGES and kind != "kept":
        raise ValueError(f"expected a change of content ({', '.join(CHANGES)}, kept), got {kind!r}")
    if only is not None and not set(only) <= set(features):
        raise ValueError(f"{kind}: expected some of {', '.join(features)}, got {', '.join(only)}")
    if kind == "kept":
        features = {m: features[m] for m in only or features}
    for m in [] if kind == "kept" else only or list(features):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{kind} {m} {seed}".encode()))
        features[name or m] = CHANGES[kind](features[m], generator, dataset, **arguments).contiguous()
    graphs = {}
    if part is not None:  # neighbours as a model's default finds them
        of = features if part == "graphs" else dataset.features
        graphs = {m: item_knn_graph(table, NEIGHBOURS) for m, table in of.items()}
        features = dict(dataset.features) if part == "graphs" else features
    return dataclasses.replace(
        dataset,
        features=dict(sorted(features.items())),
        graphs=graphs,
        fingerprint=f"{dataset.fingerprint}+{sorted(change.items())}",
    )


def noise(
    x: Tensor, generator: torch.Generator, _: Dataset, strength: float, band: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """White noise in a band of the frequencies along the features: 0 is the lowest of them, 1 the highest."""
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.rfft(drawn, norm="ortho")
    place = torch.linspace(0, 1, spectrum.shape[1])
    spectrum[:, (place < band[0]) | (place > band[1])] = 0
    drawn = torch.fft.irfft(spectrum, n=x.shape[1], norm="ortho")
    return (x + drawn * (strength * _spread(x) / drawn.square().mean().sqrt())).to(x.dtype)


def rank(x: Tensor, _: torch.Generator, __: Dataset, to: int) -> Tensor:
    """The nearest features of rank `to` around their mean (principal components)."""
    mean = x.mean(dim=0, keepdim=True)
    u, s, v = torch.linalg.svd((x - mean).double(), full_matrices=False)
    return (mean + (u[:, :to] * s[:to]) @ v[:to]).to(x.dtype)


def bits(x: Tensor, _: torch.Generator, __: Dataset, to: int) -> Tensor:
    """Each feature rounded to one of 2^to steps between its smallest and largest value."""
    low, high = x.amin(dim=0, keepdim=True), x.amax(dim=0, keepdim=True)
    step = (high - low).clamp(min=1e-12) / (2**to - 1)
    return low + ((x - low) / step).round() * step


def shuffled(x: Tensor, generator: torch.Generator, _: Dataset, share: float) -> Tensor:
    """A share of the items have the features of others among them."""
    chosen = torch.randperm(len(x), generator=generator)[: round(share * len(x))]
    out = x.clone()
    out[chosen] = x[chosen.roll(1)]
    return out


def random(x: Tensor, generator: torch.Generator, _: Dataset) -> Tensor:
    """Numbers that say nothing, of the features' mean and spread."""
    return x.mean() + _spread(x) * torch.randn(x.shape, generator=generator)


def missing(x: Tensor, generator: torch.Generator, dataset: Dataset, share: float, filled: Any) -> Tensor:
    """A share of the items loses its features, which are then "zero", the "mean", or that of "neighbours"."""
    gone = torch.rand(len(x), generator=generator) < share
    if filled == "zero":
        return torch.where(gone[:, None], 0.0, x)
    return fill(x, gone, *dataset.train, dataset.n_users, filled)


def _spread(x: Tensor) -> float:
    """Root mean square of the features around their mean over items."""
    return float((x - x.mean(dim=0)).double().square().mean().sqrt())


CHANGES: dict[str, Change] = {
    "noise": noise,
    "rank": rank,
    "bits": bits,
    "shuffled": shuffled,
    "random": random,
    "missing": missing,
}
