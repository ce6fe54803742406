"""MGCN (Yu et al., MM 2023, arXiv 2308.03588): ids purified by features, a view a modality, fused by preference.

Any number M >= 1 of modalities. Where the paper and the code behind its numbers differ, the code decides: side
information is divided by M + 1, not its second part by M (equation 15), and raw features are trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smore_ext.data import Dataset
from smore_ext.models.contract import BACKENDS
from smore_ext.models.multi_view import MultiView, MultiViewConfig, gate


@dataclass
class MGCNConfig(MultiViewConfig):
    """Settings of MGCN; defaults as published, cl_weight as its authors advise."""

    n_ui_layers: int = 2


class MGCN(MultiView):
    """MGCN on a dataset with at least one modality."""

    config_class = MGCNConfig
    config: MGCNConfig

    def __init__(
        self, dataset: Dataset, config: MGCNConfig | None = None, knn_device: torch.device | str = "cpu"
    ) -> None:
        config = config or MGCNConfig()
        super().__init__(dataset, config, knn_device)
        d = config.embedding_dim
        self.feature_gate = nn.ModuleDict({m: gate(d) for m in self.modalities})
        self.query = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, 1, bias=False))
        self.preference_gate = nn.ModuleDict({m: gate(d) for m in self.modalities})

    def views(self) -> tuple[Tensor, Tensor]:
        """Behaviour view [U+I, d]; purified ids of items (equations 1 and 2), smoothed over their graphs: [I, M d]."""
        f, layers = BACKENDS[self.config.backend], self.config.n_mm_layers
        ids = self.item_embedding.weight  # [I, d]
        gates = {m: self.feature_gate[m](self.projected(m)) for m in self.modalities}  # M x [I, d]
        views = [f.propagate(self.item_graphs[m], ids, layers, "last", gates[m]) for m in self.modalities]
        return self.behaviour(), torch.cat(views, dim=1)

    def _side(self, behaviour: Tensor, views: Tensor) -> Tensor:
        """Behaviour-aware fuser: what modalities share, and what is their own under the preference for it. [R, d]."""
        of_modality = views.split(behaviour.shape[1], dim=1)  # M x [R, d]
        attention = self.attention(views)  # [R, M]
        side = shared = sum(attention[:, n : n + 1] * view for n, view in enumerate(of_modality))  # [R, d]
        for m, view in zip(self.modalities, of_modality, strict=True):
            side = side + self.preference_gate[m](behaviour) * (view - shared)
        return side / (len(of_modality) + 1)

    def attention(self, views: Tensor) -> Tensor:
        """Softmax over modalities of q . tanh(W view + b): [R, M d] -> [R, M]."""
        width = self.config.embedding_dim
        return torch.cat([self.query(view) for view in views.split(width, dim=1)], dim=1).softmax(dim=1)

    @torch.no_grad()
    def statistics(self) -> dict[str, float]:
        """Means over all nodes: attention to each modality, and preference gates."""
        blocks = self._blocks()
        attention = torch.cat([self.attention(views) for _, views in blocks]).mean(dim=0).tolist()
        figures = {f"attention_{m}": value for m, value in zip(self.modalities, attention, strict=True)}
        for m in self.modalities:
            gates = [self.preference_gate[m](behaviour).mean(dim=1) for behaviour, _ in blocks]
            figures[f"preference_{m}"] = float(torch.cat(gates).mean())
        return figures
