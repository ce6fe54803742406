"""SMORE (Spectrum-based Modality Representation Fusion Graph Convolutional Network, WSDM 2025, arXiv 2412.14978).

Any number M >= 1 of modalities. Where the paper and the code behind its numbers differ, the code decides.
Shapes: U users, I items, d = embedding_dim, D_m the raw width of modality m.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext import ops
from smore_ext.data import Dataset
from smore_ext.graph import Graph
from smore_ext.models.contract import BACKENDS, setting
from smore_ext.models.multi_view import MultiView, MultiViewConfig, gate
from smore_ext.models.smore_state import native_state_dict


def layers_of(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.children() if isinstance(layer, nn.Linear)]


def as_made(module: nn.Module) -> bool:
    """Whether a gate or a query is what its weights and biases say: its layers are of no other class (quantised,
    parametrised), and nothing hooks into it (pruning, weight norm, somebody who looks on)."""
    parts = list(module.modules())
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    return not hooked and all(type(part) in (nn.Sequential, nn.Linear, nn.Sigmoid, nn.Tanh) for part in parts)


def side_by_side(x: Tensor, layers: Sequence[nn.Linear]) -> Tensor:
    """The outputs of layers of the same input, by one product: [R, d] -> [R, sum of their widths]."""
    return F.linear(x, torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))


@dataclass
class SMOREConfig(MultiViewConfig):
    """Settings of SMORE: those of `MultiViewConfig`, and its own. The defaults are the published ones for Amazon Baby
    where it has one value.

    dropout: share of the preference gates' outputs dropped in training.
    spectral: true filters all frequencies, false none, a number keeps that many of the lowest.
    """

    dropout: float = setting(0.0, aliases=("dropout_rate",))
    spectral: bool | int = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        bins = self.embedding_dim // 2 + 1
        if not isinstance(self.spectral, bool) and not 1 <= self.spectral <= bins:
            raise ValueError(
                f"spectral must be true, false or a number of frequencies in 1..{bins}, got {self.spectral}"
            )


class SMORE(MultiView):
    """SMORE on a dataset with at least one modality: steps 1 to 6 of the model in the frame of `multi_view`."""

    config_class = SMOREConfig
    config: SMOREConfig

    def __init__(
        self, dataset: Dataset, config: SMOREConfig | None = None, knn_device: torch.device | str = "cpu"
    ) -> None:
        config = config or SMOREConfig()
        super().__init__(dataset, config, knn_device)
        d, bins = config.embedding_dim, config.embedding_dim // 2 + 1
        self.fusion_graph = Graph.maximum(list(self.item_graphs.values()))
        self.filter = nn.ParameterDict({m: nn.Parameter(torch.randn(1, bins, 2)) for m in self.modalities})
        self.fusion_filter = nn.Parameter(torch.randn(1, bins, 2))
        self.feature_gate = nn.ModuleDict({m: gate(d) for m in self.modalities})
        self.fusion_gate = gate(d)
        self.query = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d, bias=False)) for m in self.modalities}
        )
        self.preference_gate = nn.ModuleDict({m: gate(d) for m in self.modalities})
        self.fusion_preference_gate = gate(d)
        self.dropout = nn.Dropout(config.dropout)

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
        projected = [self.projected(m) for m in self.modalities]  # M x [I, d]
        # 2. Spectrum modality fusion: each modality denoised, and all fused.
        denoised, fused = self._fusion(projected)  # M x [I, d], [I, d]
        # 3. Behaviour-guided gates.
        gates = [self.feature_gate[m](h) for m, h in zip(self.modalities, denoised, strict=True)]  # M x [I, d]
        gates.append(self.fusion_gate(fused))
        # 4. Item-item views of the gated behaviour, side by side.
        graphs = [self.item_graphs[m] for m in self.modalities] + [self.fusion_graph]
        views = torch.cat(
            [f.propagate(graph, ids, layers, "last", own) for graph, own in zip(graphs, gates, strict=True)], dim=1
        )  # [I, (M + 1) d]
        # 5. Behaviour view.
        return self.behaviour(), views

    def _side(self, behaviour: Tensor, views: Tensor) -> Tensor:
        """Step 6, modality-aware preference: side information [R, d] of nodes with these views.

        Fused, unless a module has become another (`as_made`): then module by module.
        """
        modules = (*self.preference_gate.values(), self.fusion_preference_gate, *self.query.values())
        if self.config.backend != "native" or not all(map(as_made, modules)):
            *of_modalities, total = self._terms(behaviour, views).values()
            return sum(of_modalities, total) / (len(of_modalities) + 1)
        # All gates are one product, and so is each of the two layers of the queries.
        d, M = behaviour.shape[1], len(self.modalities)
        gates = [layers_of(self.preference_gate[m])[0] for m in self.modalities]
        gates.append(layers_of(self.fusion_preference_gate)[0])
        first, last = zip(*(layers_of(self.query[m]) for m in self.modalities), strict=True)
        hidden = side_by_side(views[:, -d:], first).tanh().view(-1, M, d)  # [R, M, d]
        attention = hidden.transpose(0, 1) @ torch.stack([layer.weight for layer in last]).mT  # [M, R, d]
        p = self.dropout.p if self.dropout.training else 0.0
        mask = torch.randint(2**31 - 1, (1,), device=views.device) if p else 0  # of this call, from torch's generator
        return ops.modality_preference(side_by_side(behaviour, gates), attention, views, p, 0, mask)

    def _terms(self, behaviour: Tensor, views: Tensor) -> dict[str, Tensor]:
        """What side information is the mean of, by name, [R, d] each; module by module."""
        *modality_views, fusion_view = views.split(behaviour.shape[1], dim=1)  # M x [R, d], [R, d]
        terms = {}
        for m, view in zip(self.modalities, modality_views, strict=True):
            attention = self.query[m](fusion_view).softmax(dim=1)  # [R, d]
            terms[m] = self.dropout(self.preference_gate[m](behaviour)) * attention * view
        return terms | {"fusion": self.dropout(self.fusion_preference_gate(behaviour)) * fusion_view}

    def _side_parts(self, behaviour: Tensor, views: Tensor) -> dict[str, Tensor]:
        terms = self._terms(behaviour, views)
        return {name: term / len(terms) for name, term in terms.items()}

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
