"""What the training loop, evaluation and commands expect of a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from smore_ext import ops, reference
from smore_ext.graph import Graph
from smore_ext.models.table_linear import TableLinear

BACKENDS: dict[str, ModuleType] = {"native": ops, "reference": reference}


def check_at_least(name: str, value: float, least: float) -> None:
    """A setting below its bound is an error that names it."""
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be at least {least} and finite, got {value}")


def check_backend(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


class Recommender(nn.Module):
    """Base of the models.

    Attributes:
        config_class: dataclass with every setting, its default and its check.
        config: the instance in use; it has `batch_size`.
        loss_parts: detached parts of the last loss; "bpr" is the unweighted BPR term.
    """

    config_class: ClassVar[type]
    config: Any
    loss_parts: dict[str, Tensor]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Final embeddings (users [U, d], items [I, d]); a score is a dot product."""
        raise NotImplementedError

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Scalar loss of a batch; users, positives, negatives: [B] int64."""
        raise NotImplementedError

    def feature_tables(self) -> list[tuple[nn.Parameter, TableLinear]]:
        """Trained feature tables, each with the one layer that reads it: their gradients need not be formed."""
        return []

    def statistics(self) -> dict[str, float]:
        """Figures worth logging once an epoch."""
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Graphs follow the parameters to another device. They are no buffers: a state dict does not hold them.
        super()._apply(fn, recurse)
        device = next((p.device for p in self.parameters()), None)
        if device is not None:
            for name, value in vars(self).items():
                if isinstance(value, Graph):
                    setattr(self, name, value.to(device))
                elif isinstance(value, dict) and value and all(isinstance(g, Graph) for g in value.values()):
                    setattr(self, name, {key: graph.to(device) for key, graph in value.items()})
        return self
