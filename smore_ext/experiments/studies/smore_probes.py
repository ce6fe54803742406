"""Probes of SMORE: what its filters, attention and gates do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from smore_ext.evaluation.metrics import user_metrics
from smore_ext.evaluation.protocol import rows_of
from smore_ext.evaluation.ranking import evaluating
from smore_ext.experiments.audit import gates_of, overlap, tables_of
from smore_ext.experiments.knockout import Change, without_content_of
from smore_ext.experiments.probes import Figures, Trained, lists_of, signal_to_noise
from smore_ext.models.smore import SMORE

TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)
MISMATCHED = 0.7  # share of items


def denoising(trained: Trained) -> Figures:
    """Ratio of signal to noise in dB: raw, projected and denoised features, the mean over modalities.

    The second measurement of an item has the noise of another one in place of its own.
    """
    model, truth = trained.model, trained.truth
    assert isinstance(model, SMORE) and truth is not None
    other = torch.randperm(trained.dataset.n_items, generator=torch.Generator().manual_seed(0))
    stages: dict[str, list[float]] = {"raw": [], "projected": [], "denoised": []}
    measured: list[dict[str, list[Tensor]]] = []
    with torch.no_grad(), evaluating(model):
        kept = {m: model.features[m].detach().clone() for m in model.modalities}
        for again in (False, True):
            tables = dict(kept)
            for m in truth.noise if again else ():
                noise = torch.from_numpy(truth.noise[m]).float()
                tables[m] = kept[m] + noise[other] - noise
            for m in model.modalities:
                model.features[m].copy_(tables[m])
            projected = [model.projected(m) for m in model.modalities]
            denoised = model._fusion(projected)[0]
            raw = [tables[m] for m in model.modalities]
            measured.append({"raw": raw, "projected": projected, "denoised": [x.clone() for x in denoised]})
        for m in model.modalities:
            model.features[m].copy_(kept[m])
    for stage, values in stages.items():
        values += [signal_to_noise(a, b) for a, b in zip(measured[0][stage], measured[1][stage], strict=True)]
    return {f"snr_{stage}": float(np.mean(values)) for stage, values in stages.items()}


def knocked_out(trained: Trained) -> Figures:
    """Recall@20 with a modality's content removed, or that of other items in its place, and how many of the lists'
    items stay."""
    users, items = lists_of(trained.model, trained.dataset)
    relevant = rows_of(users, [trained.dataset.test], trained.dataset.n_items)
    names = list(trained.dataset.features)
    out: Figures = {}
    changes: tuple[Change, ...] = ("removed", "exchanged")
    for group in [(m,) for m in names] + ([tuple(names)] if len(names) > 1 else []):
        for change in changes:
            other = without_content_of(trained.model, trained.dataset, trained.config, group, change)
            theirs = lists_of(other, trained.dataset)[1]
            (recall,) = user_metrics(theirs, relevant, (items.shape[1],), ("recall",)).values()
            name = f"{change} {'all' if len(group) > 1 else group[0]}"
            out[f"recall {name}"], out[f"overlap {name}"] = recall.numpy(), overlap(items, theirs)
    return out


def attention(trained: Trained) -> Figures:
    """Entropy of each node's attention over the d dimensions (1: uniform, 0: one dimension), how much weights differ
    between users, and mean preference gates, by user; and recall@20 with the temperature of attention scaled."""
    model = trained.model
    assert isinstance(model, SMORE)
    with torch.no_grad(), evaluating(model):
        behaviour, views = model.views()
        views = model._every(views)[: model.n_users]
        fused = views[:, -behaviour.shape[1] :]
        weights = [model.query[m](fused).softmax(dim=1).double() for m in model.modalities]
        gates = [model.preference_gate[m](behaviour[: model.n_users]).mean(dim=1) for m in model.modalities]
    out: Figures = {
        "entropy": torch.stack([relative_entropy(w) for w in weights]).mean(dim=0).numpy(),
        "preference": torch.stack(gates).mean(dim=0).double().numpy(),
        "attention_variation": float(np.mean([variation(w) for w in weights])),
    }
    out["activity"] = trained.dataset.seen.rowptr.diff().double().numpy()
    if trained.truth is not None:
        out["taste purity"] = trained.truth.purity
    last = [list(model.query[m].children())[2] for m in model.modalities]
    out |= _at_temperatures(trained, [cast(nn.Linear, layer).weight for layer in last], "temperature", TEMPERATURES)
    for m in model.modalities:
        filter_ = torch.view_as_complex(model.filter[m].detach()[0].double().contiguous())
        out[f"filter {m}"] = torch.stack([filter_.abs(), filter_.angle()]).numpy()
    return out


def preference_gates(trained: Trained) -> Figures:
    """Recall@20 with the temperature of all preference gates scaled: towards 0 or 1 below 1, towards one half above."""
    model = trained.model
    assert isinstance(model, SMORE)
    layers = [list(one.children())[0] for one in (*model.preference_gate.values(), model.fusion_preference_gate)]
    inputs = [parameter for layer in layers for parameter in layer.parameters()]  # of the sigmoid: weights and biases
    return _at_temperatures(trained, inputs, "gate temperature", [t for t in TEMPERATURES if t != 1.0])


def _at_temperatures(trained: Trained, inputs: Sequence[Tensor], name: str, scales: Sequence[float]) -> Figures:
    """Recall@20 by user, and what stays of the lists, with what a softmax or sigmoid gets divided by each scale."""
    out: Figures = {}
    users, items = lists_of(trained.model, trained.dataset)
    relevant = rows_of(users, [trained.dataset.test], trained.dataset.n_items)
    for scale in scales:
        with torch.no_grad():
            kept = [x.clone() for x in inputs]
            for x in inputs:
                x /= scale
            theirs = lists_of(trained.model, trained.dataset)[1]
            for x, before in zip(inputs, kept, strict=True):
                x.copy_(before)
        (recall,) = user_metrics(theirs, relevant, (items.shape[1],), ("recall",)).values()
        out[f"{name} {scale:g}"] = recall.numpy()
        out[f"{name.replace('temperature', 'overlap')} {scale:g}"] = overlap(items, theirs)
    return out


def relative_entropy(weights: Tensor) -> Tensor:
    """Entropy of rows [R, d] that sum to 1, over that of the uniform distribution, [R]."""
    return torch.special.entr(weights).sum(dim=1) / math.log(weights.shape[1])


def variation(weights: Tensor) -> float:
    """Mean total variation distance of rows [R, d] from their mean: 0 where all nodes have the same attention."""
    return float(0.5 * (weights - weights.mean(dim=0)).abs().sum(dim=1).mean())


def gates_open(trained: Trained) -> Figures:
    """What a variant's gates of whole modalities or graphs have become, 0 closed to 1 open, in their order."""
    for name in ("openness", "share"):
        value = getattr(trained.model, name, None)
        if isinstance(value, torch.nn.Parameter):
            return {"open": value.detach().sigmoid().double().numpy()}
    return {}


def gates_and_tables(trained: Trained) -> Figures:
    """By modality: the share of its preference gate's values that is open, and the mean cosine of its trained features
    with the raw ones. And what stays of the lists where MISMATCHED of the items have the content of others among them.
    """
    out: Figures = {}
    for gate in gates_of(trained.model):
        place, _, m = gate["gate"].removesuffix(".1").rpartition(".")
        if place.endswith("preference_gate"):
            out[f"open {m}"] = gate["open"]
    out |= {f"cosine {table['modality']}": table["cosine"] for table in tables_of(trained.model, trained.dataset)}
    users, items = lists_of(trained.model, trained.dataset)
    other = without_content_of(
        trained.model, trained.dataset, trained.config, tuple(trained.dataset.features), "exchanged", share=MISMATCHED
    )
    theirs = lists_of(other, trained.dataset)[1]
    relevant = rows_of(users, [trained.dataset.test], trained.dataset.n_items)
    (recall,) = user_metrics(theirs, relevant, (items.shape[1],), ("recall",)).values()
    return out | {"recall mismatched": recall.numpy(), "overlap mismatched": overlap(items, theirs)}


def quartiles(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The quartile of each value, 0..3, of equal sizes; equal values by their order."""
    order = np.argsort(np.asarray(values), kind="stable")
    out = np.empty(len(order), dtype=np.int64)
    out[order] = np.arange(len(order)) * 4 // max(1, len(order))
    return out
