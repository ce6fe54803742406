"""New items placed by a trained SMORE itself: its item graphs, projections, filters and gates, nothing fitted anew.

A new item's neighbours in each modality are the known items nearest by features, as many as an item of the graph has
beside itself. Its id embedding and behaviour view, which only interactions teach, are the means of theirs. Its row of
each item graph is its similarity with them and itself, 1 in sum; of the fused graph the largest of these, as in the
model. Its view over a graph is that of any item: gated ids of the neighbours, and its own id under gates of its own
features, through the trained projection and filters. Side information follows. One item layer. `place_items.py`
measures what that is worth.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from smore_ext import SMORE, ops
from smore_ext.evaluation.ranking import evaluating


def gates_of(model: SMORE, projected: list[Tensor]) -> list[Tensor]:
    """Steps 2 and 3 of the model for rows of these projections: a gate for each view."""
    denoised, fused = model._fusion(projected)
    of_modalities = [model.feature_gate[m](h) for m, h in zip(model.modalities, denoised, strict=True)]
    return [*of_modalities, model.fusion_gate(fused)]


def placed(model: SMORE, features: Mapping[str, Tensor]) -> Tensor:
    """Final embeddings [n, d] of items with these raw features [n, D_m] of all of the model's modalities."""
    if model.config.n_mm_layers != 1:
        raise ValueError(f"n_mm_layers: expected 1, got {model.config.n_mm_layers}")
    with torch.no_grad(), evaluating(model):
        count = len(next(iter(features.values())))
        rows = []  # of the item graphs: known items, then the item itself, [n, I + 1]
        for m in model.modalities:
            k = max(1, round(model.item_graphs[m].n_edges / model.n_items) - 1)
            similarity, index = ops.knn(features[m].float(), model.features[m].detach(), k)
            row = torch.zeros(count, model.n_items + 1).scatter_(1, index, similarity.clamp(min=0))
            row[:, -1] = 1
            rows.append(row / row.sum(dim=1, keepdim=True))
        others = torch.stack([row[:, :-1] / row[:, :-1].sum(dim=1, keepdim=True).clamp(min=1e-9) for row in rows])
        ids, mean = model.item_embedding.weight, others.mean(dim=0)
        own_id, behaviour = mean @ ids, mean @ model.behaviour()[model.n_users :]
        known = gates_of(model, [model.projected(m) for m in model.modalities])
        own = gates_of(model, [model.projection[m](features[m].float()) for m in model.modalities])
        views = [
            row[:, -1:] * own_id * gate + row[:, :-1] @ (ids * theirs)
            for row, gate, theirs in zip([*rows, torch.stack(rows).amax(dim=0)], own, known, strict=True)
        ]
        return behaviour + model._side(behaviour, torch.cat(views, dim=1))
