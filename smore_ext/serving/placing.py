"""Where an item without interactions belongs, by its features: ridge regression on the items that there are.

Each modality's rows are scaled to length 1 and centred; from all of them side by side the parts of the embeddings are
predicted. So nothing is trained and no model needs code for it, and a modality that an item lacks adds nothing. How
strong the ridge is, a tenth of the items decides, which the regression does not see at first.
Shapes: I items, n new ones, D_m wide features, P parts of width d side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from smore_ext.data.messages import listed

RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the mean square of what is regressed on
SHARE, SEED = 0.1, 0  # of the items that decide


@dataclass(frozen=True)
class Placing:
    """What was fitted.

    Attributes:
        centres: by modality, [D_m], means of the scaled rows.
        weights: by modality, [D_m, P d].
        base: [P d], the mean of the parts.
        error: mean squared error on the items that decided, by that of `base` alone; 1 is: features say nothing.
    """

    centres: dict[str, Tensor]
    weights: dict[str, Tensor]
    base: Tensor
    error: float

    def rows(self, features: Mapping[str, Tensor], count: int) -> Tensor:
        """Parts of new items, [n, P d]. Raises `ValueError` for features that do not fit, and where there are none."""
        if not features:
            raise ValueError(f"features: expected those of at least one of {listed(self.weights)}, got none")
        rows = self.base.repeat(count, 1)
        for name, table in features.items():
            expected = self.weights.get(name)
            if expected is None:
                raise ValueError(f"features: expected {listed(self.weights)}, got {name!r}")
            if table.is_complex():
                raise ValueError(f"features of {name}: expected real numbers, got {table.dtype}")
            if table.shape != (count, len(expected)) or not bool(torch.isfinite(table).all()):
                raise ValueError(
                    f"features of {name}: expected finite numbers of shape {(count, len(expected))}, got shape "
                    f"{tuple(table.shape)}{'' if bool(torch.isfinite(table).all()) else ' with NaN or infinity'}"
                )
            rows += (F.normalize(table.float(), dim=1) - self.centres[name]) @ expected
        return rows


def fit(features: Mapping[str, Tensor], parts: Sequence[Tensor]) -> Placing:
    """From features [I, D_m] and parts [I, d] of the same items. Needs memory of D^2, D of all together."""
    scaled = {name: F.normalize(table.detach().cpu().float(), dim=1) for name, table in features.items()}
    centres = {name: table.mean(dim=0) for name, table in scaled.items()}
    x = torch.cat([table - centres[name] for name, table in scaled.items()], dim=1)  # [I, D]
    target = torch.cat([part.detach().cpu().float() for part in parts], dim=1)
    base = target.mean(dim=0)
    y = target - base
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
    held = order[: max(1, int(SHARE * len(x)))]
    gram, cross = x.T @ x, x.T @ y
    others, theirs = gram - x[held].T @ x[held], cross - x[held].T @ y[held]
    scale = float(gram.diagonal().mean().clamp(min=1e-12))
    spread = float(y[held].square().mean().clamp(min=1e-30))
    errors = {}
    for ridge in RIDGES:
        guess = x[held] @ _solved(others, theirs, ridge * scale)
        errors[ridge] = float((guess - y[held]).square().mean()) / spread
    best = min(errors, key=errors.__getitem__)
    weight = _solved(gram, cross, best * scale)
    widths = [table.shape[1] for table in scaled.values()]
    weights = dict(zip(scaled, (part.clone() for part in weight.split(widths)), strict=True))
    return Placing(centres, weights, base, errors[best])


def _solved(gram: Tensor, cross: Tensor, ridge: float) -> Tensor:
    square = gram.double()
    square.diagonal().add_(ridge)
    return torch.cholesky_solve(cross.double(), torch.linalg.cholesky(square)).float()
