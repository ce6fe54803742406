"""SMORE with one part exchanged: what stands in the place of the spectral filter, or of the sum over modalities.

Each is trained by the loop as any model is. d = embedding_dim; tables of modalities are [I, d], views [R, d].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smore_ext import ops
from smore_ext.models.smore import SMORE

BLOCK = 8  # features that attention and the perceptron see together


class OtherDenoiser(SMORE):
    """A denoiser of the class in place of the filter; the fused view is the product of the spectra as they are."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        d = self.config.embedding_dim
        self.denoiser = nn.ModuleDict({m: self.make(d) for m in self.modalities})
        self.filter.requires_grad_(False)
        self.fusion_filter.requires_grad_(False)

    def make(self, d: int) -> nn.Module:
        return nn.Identity()

    def _fusion(self, projected: list[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        one = torch.zeros_like(self.fusion_filter)
        one[..., 0] = 1
        fused = ops.spectrum_fusion(projected, [], one)[1]
        return [self.denoised(m, x) for m, x in zip(self.modalities, projected, strict=True)], fused

    def denoised(self, m: str, x: Tensor) -> Tensor:
        return self.denoiser[m](x)


class Unfiltered(OtherDenoiser):
    """No denoiser."""


class RandomFilter(SMORE):
    """Filters as they were drawn: random, and not trained."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.filter.requires_grad_(False)
        self.fusion_filter.requires_grad_(False)


class RealFilter(SMORE):
    """Filters of real numbers: they change sizes of frequencies, and no phases but by half turns."""

    def _fusion(self, projected: list[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        real = torch.tensor([1.0, 0.0], device=self.fusion_filter.device)
        filters = [self.filter[m] * real for m in self.modalities]
        return ops.spectrum_fusion(projected, filters, self.fusion_filter * real)


class BandFilter(SMORE):
    """Only some frequencies pass: those of `mask`, which a class makes anew in every forward pass."""

    def mask(self, m: str, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _fusion(self, projected: list[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        masks = [self.mask(m, x) for m, x in zip(self.modalities, projected, strict=True)]
        filters = [self.filter[m] * mask[:, None] for m, mask in zip(self.modalities, masks, strict=True)]
        both = torch.stack(masks).mean(dim=0)
        return ops.spectrum_fusion(projected, filters, self.fusion_filter * both[:, None])


class LearnedMask(BandFilter):
    """A weight in 0..1 of each frequency, learned beside the filter."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        bins = self.config.embedding_dim // 2 + 1
        self.openness = nn.ParameterDict({m: nn.Parameter(torch.zeros(bins)) for m in self.modalities})

    def mask(self, m: str, x: Tensor) -> Tensor:
        return self.openness[m].sigmoid()


class _Kept(BandFilter):
    """`spectral` frequencies pass, chosen by the class."""

    def kept(self) -> int:
        return self.config.embedding_dim // 2 + 1 if self.config.spectral is True else int(self.config.spectral)


class HighPass(_Kept):
    """The highest frequencies pass."""

    def mask(self, m: str, x: Tensor) -> Tensor:
        bins = self.config.embedding_dim // 2 + 1
        return (torch.arange(bins, device=x.device) >= bins - self.kept()).to(x.dtype)


class ByEnergy(_Kept):
    """The frequencies of most energy pass, as the modality's projected features have it now."""

    def mask(self, m: str, x: Tensor) -> Tensor:
        with torch.no_grad():
            energy = torch.fft.rfft(x.detach(), norm="ortho").abs().square().sum(dim=0)
            mask = torch.zeros_like(energy)
            mask[energy.topk(self.kept()).indices] = 1.0
        return mask


class Attention(OtherDenoiser):
    """Self-attention over blocks of 8 features, of rank 2, added to its input: 64 parameters a modality."""

    def make(self, d: int) -> nn.Module:
        return nn.ParameterDict({name: nn.Parameter(torch.randn(BLOCK, 2) / BLOCK**0.5) for name in "qkvo"})

    def denoised(self, m: str, x: Tensor) -> Tensor:
        p: Any = self.denoiser[m]
        tokens = x.unflatten(1, (-1, BLOCK))  # [I, d / 8, 8]
        mixed = F.scaled_dot_product_attention(tokens @ p["q"], tokens @ p["k"], tokens @ p["v"])
        return x + (mixed @ p["o"].T).flatten(1)


class Perceptron(OtherDenoiser):
    """A perceptron 8 - 4 - 8 on each block of 8 features, added to its input: 68 parameters a modality."""

    def make(self, d: int) -> nn.Module:
        return nn.Sequential(nn.Linear(BLOCK, 4), nn.GELU(), nn.Linear(4, BLOCK, bias=False))

    def denoised(self, m: str, x: Tensor) -> Tensor:
        return x + self.denoiser[m](x.unflatten(1, (-1, BLOCK))).flatten(1)


class GraphSmoothing(OtherDenoiser):
    """A mean of each feature with those of the neighbours in the item graph, by a share learned for each: 64
    parameters a modality."""

    def make(self, d: int) -> nn.Module:
        return nn.ParameterDict({"share": nn.Parameter(torch.zeros(d))})

    def denoised(self, m: str, x: Tensor) -> Tensor:
        p: Any = self.denoiser[m]
        share = p["share"].sigmoid()
        return (1 - share) * x + share * ops.spmm(self.item_graphs[m], x)


class PrincipalComponents(OtherDenoiser):
    """Raw features reduced to their 16 principal components before they are projected, then a weight of each feature:
    64 parameters a modality."""

    KEPT = 16

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for m in self.modalities:
            x = self.features[m].detach()
            v = torch.linalg.svd((x - x.mean(dim=0)).double(), full_matrices=False)[2][: self.KEPT].float()
            self.register_buffer(f"axes_{m}", v.T @ v)

    def make(self, d: int) -> nn.Module:
        return nn.ParameterDict({"gain": nn.Parameter(torch.ones(d))})

    def feature_tables(self) -> list[Any]:  # they are not read through their layer alone
        return []

    def projected(self, m: str) -> Tensor:
        return self.projection[m](self.features[m] @ self.get_buffer(f"axes_{m}"))

    def denoised(self, m: str, x: Tensor) -> Tensor:
        p: Any = self.denoiser[m]
        return x * p["gain"]


class NoFusion(SMORE):
    """Modalities are not fused: side information is the mean of their views, without fused view and attention."""

    def _side(self, behaviour: Tensor, views: Tensor) -> Tensor:
        *modality_views, _ = views.split(behaviour.shape[1], dim=1)
        parts = [
            self.dropout(self.preference_gate[m](behaviour)) * view
            for m, view in zip(self.modalities, modality_views, strict=True)
        ]
        return torch.stack(parts).mean(dim=0)


class NoFusedTerm(SMORE):
    """The fused view steers the attention over the modalities' views, and is no part of the mean itself."""

    def _side(self, behaviour: Tensor, views: Tensor) -> Tensor:
        *of_modalities, _ = self._terms(behaviour, views).values()
        return torch.stack(of_modalities).mean(dim=0)


class ClosableGates(SMORE):
    """A gate of each modality's whole view, one number, that can close. The fused view has none: its graph and its
    spectrum are made of all modalities."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.openness = nn.Parameter(torch.full((len(self.modalities),), 2.0))

    def views(self) -> tuple[Tensor, Tensor]:
        behaviour, views = super().views()
        d = behaviour.shape[1]
        scale = torch.cat([self.openness.sigmoid(), torch.ones_like(self.openness[:1])]).repeat_interleave(d)
        return behaviour, views * scale


class LearnedGraphs(SMORE):
    """The weight of each item graph is learned: a view is a mean of the smoothed and the plain gated ids."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.share = nn.Parameter(torch.full((len(self.modalities) + 1,), 2.0))

    def _fusion(self, projected: list[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        self._fused = super()._fusion(projected)
        return self._fused

    def views(self) -> tuple[Tensor, Tensor]:
        behaviour, smoothed = super().views()
        denoised, fused = self._fused
        gates = [self.feature_gate[m](h) for m, h in zip(self.modalities, denoised, strict=True)]
        plain = torch.cat([self.item_embedding.weight * g for g in (*gates, self.fusion_gate(fused))], dim=1)
        share = self.share.sigmoid().repeat_interleave(behaviour.shape[1])
        return behaviour, share * smoothed + (1 - share) * plain


class ModalityDropout(SMORE):
    """In training each modality's view is left out of a step with probability .2, and the others grow to match."""

    def begin_epoch(self, epoch: int, generator: torch.Generator) -> bool:
        self._generator = generator
        return super().begin_epoch(epoch, generator)

    def views(self) -> tuple[Tensor, Tensor]:
        behaviour, views = super().views()
        generator = getattr(self, "_generator", None)
        if not self.training or generator is None:
            return behaviour, views
        keep = (torch.rand(len(self.modalities), generator=generator) >= 0.2).to(views)
        scale = torch.cat([keep / 0.8, torch.ones_like(keep[:1])]).repeat_interleave(behaviour.shape[1])
        return behaviour, views * scale
