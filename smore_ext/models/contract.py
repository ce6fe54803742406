"""What the training loop, evaluation and commands expect of a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from smore_ext import ops, reference
from smore_ext.data import Dataset
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


def distinct(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of `nodes` [n], ascending, and the place of each node among them [n].

    On a GPU the first is padded to n entries with its last value, so that no shape depends on values: reading their
    number would make the host wait, which a captured step cannot.
    """
    return padded_distinct(nodes) if nodes.is_cuda else nodes.unique(return_inverse=True)


def padded_distinct(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """`distinct` with the first result padded to [n]; n >= 1."""
    ascending, order = nodes.sort(stable=True)
    first = torch.ones_like(ascending, dtype=torch.bool)
    first[1:] = ascending[1:] != ascending[:-1]
    slot = first.cumsum(0) - 1  # of each entry of `ascending`
    values = ascending[-1:].repeat(nodes.shape[0]).scatter_(0, slot, ascending)
    return values, torch.empty_like(slot).scatter_(0, order, slot)


class Recommender(nn.Module):
    """Base of the models.

    Attributes:
        config_class: dataclass with every setting, its default and its check.
        config: the instance in use. A field marked `metadata={"loop": True}` takes the training loop's value.
        loss_parts: detached parts of the last loss; "bpr" is the unweighted BPR term.
    """

    config_class: ClassVar[type]
    config: Any
    loss_parts: dict[str, Tensor]

    @classmethod
    def on_device(cls, dataset: Dataset, config: Any, device: torch.device) -> Self:
        """The model on `device`; what is computed once on the way may be computed there."""
        return cls(dataset, config).to(device)

    @property
    def capturable(self) -> bool:
        """Whether `loss` makes the host wait for nothing and has shapes that depend on the batch's size alone."""
        return getattr(self.config, "backend", None) == "native"

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
