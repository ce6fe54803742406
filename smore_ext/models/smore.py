"""SMORE (Spectrum-based Modality Representation Fusion Graph Convolutional Network, WSDM 2025, arXiv 2412.14978).

Any number M >= 1 of modalities. Where the paper and the code behind its numbers differ, the code decides.
Shapes: U users, I items, d = embedding_dim, D_m the raw width of modality m.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext.data import Dataset
from smore_ext.data.graph_cache import item_knn_graph
from smore_ext.graph import Graph
from smore_ext.models.contract import (
    BACKENDS,
    Batch,
    Recommender,
    check_at_least,
    check_backend,
    check_knn_k,
    distinct,
    setting,
    takes_parts,
)
from smore_ext.models.notices import Occasion, RunBegins, ranking_notices
from smore_ext.models.smore_state import native_state_dict
from smore_ext.models.table_linear import TableLinear

NODES = 32_768  # nodes that go through step 6 at once when all are asked for


def default_cache_dir() -> str | None:
    """Where runs keep item graphs unless they say otherwise: the user's cache folder; None for a user without one."""
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return str((Path(root) if root else Path.home() / ".cache") / "smore_ext" / "graphs")
    except RuntimeError:  # neither HOME nor an entry in the list of users, as in some containers
        return None


@dataclass
class SMOREConfig:
    """Settings of SMORE; the defaults are the published ones for Amazon Baby where it has one value.

    embedding_dim: width d of all embeddings.
    n_ui_layers: layers over the user-item graph.
    n_mm_layers: layers over the item graphs.
    knn_k: neighbours in the item graphs, one number or one a modality (image=40,text=15).
    cl_weight: weight of the InfoNCE term; 0 leaves it out.
    reg_weight: weight of the L2 term.
    temperature: of InfoNCE.
    dropout: share of the preference gates' outputs dropped in training.
    freeze_features: keep the raw features as they are instead of training them.
    batch_size: interactions a step, by which the L2 term divides; in a run the loop's.
    spectral: true filters all frequencies, false none, a number keeps that many of the lowest.
    modalities: names to use, none for all that the data set has.
    backend: native (this package's kernels) or reference (plain PyTorch).
    cache_dir: where item graphs are kept between runs, none for nowhere.
    """

    embedding_dim: int = setting(64, aliases=("embedding_size",))
    n_ui_layers: int = 4
    n_mm_layers: int = setting(1, aliases=("n_layers",))
    knn_k: int | dict[str, int] = setting(10, aliases=("image_knn_k", "text_knn_k"))
    cl_weight: float = setting(0.01, aliases=("cl_loss",))
    reg_weight: float = setting(1e-4, aliases=("reg_loss",))
    temperature: float = 0.2
    dropout: float = setting(0.0, aliases=("dropout_rate",))
    freeze_features: bool = False
    batch_size: int = setting(2048, loop=True)
    spectral: bool | int = True
    modalities: tuple[str, ...] | None = None
    backend: str = "native"
    cache_dir: str | None = setting(None, changeable=True, run_default=default_cache_dir)

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "n_mm_layers", "batch_size"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("n_ui_layers", "cl_weight", "reg_weight"):
            check_at_least(name, getattr(self, name), 0)
        for k in self.knn_k.values() if isinstance(self.knn_k, dict) else [self.knn_k]:
            check_at_least("knn_k", k, 1)
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be greater than 0 and finite, got {self.temperature}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        bins = self.embedding_dim // 2 + 1
        if not isinstance(self.spectral, bool) and not 1 <= self.spectral <= bins:
            raise ValueError(
                f"spectral must be true, false or a number of frequencies in 1..{bins}, got {self.spectral}"
            )
        if self.modalities is not None:
            self.modalities = tuple(self.modalities)
            if not self.modalities or len(set(self.modalities)) < len(self.modalities):
                raise ValueError(
                    f"modalities must name at least one modality, each once, got {', '.join(self.modalities) or 'none'}"
                )
        check_backend(self.backend)
        if self.cache_dir is not None:
            self.cache_dir = os.path.expanduser(self.cache_dir)


def _full_precision(t: Tensor) -> Tensor:
    """float32 for the losses, where autocast left something narrower."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


def _gate(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.Sigmoid())


class SMORE(Recommender):
    """SMORE on a dataset with at least one modality."""

    config_class = SMOREConfig

    @classmethod
    def features_read(cls, config: SMOREConfig) -> tuple[str, ...] | None:
        return config.modalities

    def __init__(
        self, dataset: Dataset, config: SMOREConfig | None = None, knn_device: torch.device | str = "cpu"
    ) -> None:
        """On the CPU. Item graphs are computed on `knn_device`: they are the same from anywhere."""
        super().__init__()
        self.config = config = config or SMOREConfig()
        self.n_users, self.n_items = dataset.n_users, dataset.n_items
        self.modalities = _chosen_modalities(dataset, config)
        d, bins = config.embedding_dim, config.embedding_dim // 2 + 1

        self.bipartite = Graph.bipartite(*dataset.train, dataset.n_users, dataset.n_items)
        self.user_item = self.bipartite.block(slice(dataset.n_users), slice(dataset.n_users, None))  # R [U, I]
        self.item_graphs = {m: _item_graph(dataset, m, config, knn_device) for m in self.modalities}
        self.fusion_graph = Graph.maximum(list(self.item_graphs.values()))

        self.user_embedding = nn.Embedding(dataset.n_users, d)
        self.item_embedding = nn.Embedding(dataset.n_items, d)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_embedding.weight)
        self.features = nn.ParameterDict()  # raw features X_m, trained unless frozen
        for m in self.modalities:
            self.features[m] = nn.Parameter(dataset.features[m].clone(), requires_grad=not config.freeze_features)
        layer = TableLinear if config.backend == "native" else nn.Linear
        self.projection = nn.ModuleDict({m: layer(dataset.features[m].shape[1], d) for m in self.modalities})
        self.filter = nn.ParameterDict({m: nn.Parameter(torch.randn(1, bins, 2)) for m in self.modalities})
        self.fusion_filter = nn.Parameter(torch.randn(1, bins, 2))
        self.feature_gate = nn.ModuleDict({m: _gate(d) for m in self.modalities})
        self.fusion_gate = _gate(d)
        self.query = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d, bias=False)) for m in self.modalities}
        )
        self.preference_gate = nn.ModuleDict({m: _gate(d) for m in self.modalities})
        self.fusion_preference_gate = _gate(d)
        self.dropout = nn.Dropout(config.dropout)

    @classmethod
    def on_device(cls, dataset: Dataset, config: SMOREConfig, device: torch.device) -> Self:
        return cls(dataset, config, knn_device=device).to(device)

    def _fusion(self, projected: list[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """Step 2, as `spectral` says: modalities denoised, and all fused. M x [I, d] -> (M x [I, d], [I, d])."""
        f, spectral = BACKENDS[self.config.backend], self.config.spectral
        if spectral is False:  # the product of the spectra as they are
            one = torch.ones_like(self.fusion_filter)
            one[..., 1] = 0
            return projected, f.spectrum_fusion(projected, [], one)[1]
        filters = [self.filter[m] for m in self.modalities]
        return f.spectrum_fusion(projected, filters, self.fusion_filter, None if spectral is True else spectral)

    def views(self) -> tuple[Tensor, Tensor]:
        """Steps 1 to 5: behaviour view C [U+I, d], and the items' M modality views and fusion view [I, (M + 1) d]."""
        f, layers = BACKENDS[self.config.backend], self.config.n_mm_layers
        ids = self.item_embedding.weight  # [I, d]

        # 1. Projection of the raw features.
        projected = [self.projection[m](self.features[m]) for m in self.modalities]  # M x [I, d]
        # 2. Spectrum modality fusion: each modality denoised, and all fused.
        denoised, fused = self._fusion(projected)  # M x [I, d], [I, d]
        # 3. Behaviour-guided gates.
        gates = [self.feature_gate[m](h) for m, h in zip(self.modalities, denoised, strict=True)]  # M x [I, d]
        gates.append(self.fusion_gate(fused))
        # 4. Item-item views of the gated behaviour, side by side.
        graphs = [self.item_graphs[m] for m in self.modalities] + [self.fusion_graph]
        views = torch.cat(
            [f.propagate(graph, ids, layers, "last", gate) for graph, gate in zip(graphs, gates, strict=True)], dim=1
        )  # [I, (M + 1) d]
        # 5. Behaviour view.
        nodes = torch.cat([self.user_embedding.weight, ids])  # [U+I, d]
        return f.propagate(self.bipartite, nodes, self.config.n_ui_layers), views

    def _of_nodes(self, views: Tensor, rows: Tensor | None) -> Tensor:
        """Step 4, users' part: the views [R, (M + 1) d] of nodes `rows`, ascending, from those of the items."""
        f = BACKENDS[self.config.backend]
        if rows is None or rows.is_cuda:  # a GPU computes all users sooner than it tells the host which ones
            every = torch.cat([f.spmm(self.user_item, views), views])
            return every if rows is None else F.embedding(rows, every)
        users = rows[rows < self.n_users]
        items = rows[users.shape[0] :] - self.n_users
        return torch.cat([f.spmm(self.user_item.rows(users), views), F.embedding(items, views)])

    def _side(self, behaviour: Tensor, views: Tensor) -> Tensor:
        """Step 6, modality-aware preference: side information [R, d] of nodes with these views."""
        *modality_views, fusion_view = views.split(behaviour.shape[1], dim=1)  # M x [R, d], [R, d]
        side = self.dropout(self.fusion_preference_gate(behaviour)) * fusion_view  # [R, d]
        for m, view in zip(self.modalities, modality_views, strict=True):
            attention = self.query[m](fusion_view).softmax(dim=1)  # [R, d]
            side = side + self.dropout(self.preference_gate[m](behaviour)) * attention * view
        return side / (len(modality_views) + 1)

    def forward(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Behaviour view C and side information of the nodes `rows` (users first; None: all), both [R, d].

        Final embeddings are their sum. Users' views and step 6 work row by row, so a training step needs them for its
        batch only: `rows` ascends then.
        """
        behaviour, views = self.views()
        views = self._of_nodes(views, rows)  # [R, (M + 1) d]
        if rows is not None:  # F.embedding, not indexing: its gradient adds in a fixed order whatever the threads
            behaviour = F.embedding(rows, behaviour)  # [R, d]
        return behaviour, self._side(behaviour, views)

    def _blocks(self) -> list[tuple[Tensor, Tensor]]:
        """Behaviour view and all other views of all nodes, a block of them at a time: step 6 needs much memory."""
        behaviour, views = self.views()
        users, items = behaviour.split([self.n_users, self.n_items])
        user_views = BACKENDS[self.config.backend].spmm(self.user_item, views)  # step 4, users' part
        nodes, their_views = users.split(NODES) + items.split(NODES), user_views.split(NODES) + views.split(NODES)
        return list(zip(nodes, their_views, strict=True))  # a generator does not compile on torch 2.14

    def embeddings(self) -> tuple[Tensor, Tensor]:
        final = torch.cat([behaviour + self._side(behaviour, views) for behaviour, views in self._blocks()])
        return final.split([self.n_users, self.n_items])

    @takes_parts
    def loss(self, batch: Batch) -> Tensor:
        """BPR, L2 on the batch's final embeddings, and InfoNCE between side information and behaviour view."""
        users, positives, negatives = batch.triples()
        f, config = BACKENDS[self.config.backend], self.config
        nodes = torch.cat([users, positives + self.n_users, negatives + self.n_users])  # [3 B]
        if config.backend == "native":  # each node of the batch once: one dropout mask a step, as for all nodes
            rows, place = distinct(nodes)
        else:  # as published: side information of every node
            rows, place = None, nodes
        behaviour, side = (_full_precision(t) for t in self(rows))  # [R, d] both
        user, positive, negative = place.split(users.shape[0])  # places in rows, [B] each
        final = behaviour + side
        bpr, l2 = f.bpr_loss(final, final, user, positive, negative)
        reg = config.reg_weight * l2 / config.batch_size
        self.loss_parts = {"bpr": bpr.detach(), "reg": reg.detach()}
        if config.cl_weight == 0:
            return bpr + reg
        contrast = sum(
            f.info_nce(F.embedding(p, side), F.embedding(p, behaviour), config.temperature) for p in (positive, user)
        )
        contrast = config.cl_weight * contrast
        self.loss_parts["cl"] = contrast.detach()
        return bpr + reg + contrast

    def feature_tables(self) -> list[tuple[nn.Parameter, TableLinear]]:
        if self.config.freeze_features or self.config.backend != "native":
            return []
        return [(self.features[m], cast(TableLinear, self.projection[m])) for m in self.modalities]

    def notices(self, occasion: Occasion) -> list[str]:
        if isinstance(occasion, RunBegins):
            return _unused_knn_k(self.config, self.modalities, occasion.dataset)
        return ranking_notices(occasion, *pinned_cause(self.config.cl_weight))

    @torch.no_grad()
    def statistics(self) -> dict[str, float]:
        """Are the gates alive? Means over all nodes; dropout acts unless the model is in eval mode.

        attention_entropy: 1 is uniform over the d dimensions, 0 is a single one. preference: mean gate value.
        filter: mean size of a complex weight. side_to_behaviour: length of side information against the behaviour view.
        """
        per_node: dict[str, list[Tensor]] = defaultdict(list)  # blocks of [R]
        for behaviour, views in self._blocks():
            fusion_view = views[:, -behaviour.shape[1] :]
            per_node["preference_fusion"].append(self.fusion_preference_gate(behaviour).mean(dim=1))
            for m in self.modalities:
                attention = self.query[m](fusion_view).softmax(dim=1)
                entropy = torch.special.entr(attention).sum(dim=1) / max(math.log(attention.shape[1]), 1e-9)
                per_node[f"attention_entropy_{m}"].append(entropy)
                per_node[f"preference_{m}"].append(self.preference_gate[m](behaviour).mean(dim=1))
            per_node["side"].append(self._side(behaviour, views).norm(dim=1))
            per_node["behaviour"].append(behaviour.norm(dim=1))
        figures = {name: float(torch.cat(blocks).mean()) for name, blocks in per_node.items()}
        figures["side_to_behaviour"] = figures.pop("side") / figures.pop("behaviour")
        for name, weight in [*self.filter.items(), ("fusion", self.fusion_filter)]:
            figures[f"filter_{name}"] = float(weight.norm(dim=2).mean())
        return figures

    def load_official_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Takes over weights saved by the published code (names and shapes in `smore_state`)."""
        self.load_state_dict(native_state_dict(state_dict, self.state_dict(), self.modalities))


def pinned_cause(cl_weight: float) -> list[str]:
    """Why the BPR term may stay that of random scores; nothing where InfoNCE is left out."""
    if not cl_weight:
        return []
    return [
        f"the likely cause is cl_weight {cl_weight:g}, whose term outweighs the ranking loss "
        f"on small or narrow features: try --cl-weight 0"
    ]


def _unused_knn_k(config: SMOREConfig, modalities: list[str], dataset: Dataset) -> list[str]:
    """That a `knn_k` which somebody chose has no effect, as the data set brings the item graphs."""
    if config.knn_k == type(config).knn_k or not set(modalities) <= set(dataset.graphs):
        return []
    return [f"knn_k {config.knn_k} is not used: the data set brings the item graphs of {', '.join(modalities)}"]


def _chosen_modalities(dataset: Dataset, config: SMOREConfig) -> list[str]:
    known = list(dataset.features)
    chosen = list(config.modalities) if config.modalities is not None else known
    missing = [m for m in chosen if m not in dataset.features]
    if missing or not chosen:
        raise ValueError(
            f"SMORE needs features of {', '.join(missing) or 'at least one modality'}; dataset "
            f"{dataset.name!r} has {', '.join(known) or 'none'}{dataset.hint}"
        )
    if isinstance(config.knn_k, dict):
        needed = [m for m in chosen if m not in dataset.graphs]
        if not set(needed) <= set(config.knn_k) or not set(config.knn_k) <= set(chosen):
            raise ValueError(f"knn_k must name every modality ({', '.join(chosen)}), got {', '.join(config.knn_k)}")
    return chosen


def _item_graph(dataset: Dataset, modality: str, config: SMOREConfig, device: torch.device | str) -> Graph:
    if modality in dataset.graphs:
        return dataset.graphs[modality]
    k = config.knn_k[modality] if isinstance(config.knn_k, dict) else config.knn_k
    check_knn_k(k, dataset)
    cache = Path(config.cache_dir) if config.cache_dir is not None else None
    return item_knn_graph(dataset.features[modality], k, cache, device)
