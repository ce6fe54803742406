"""Models: `contract.Recommender` says what one offers, `registry.MODELS` finds one by name. Loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smore_ext.models.contract import Batch, Recommender
    from smore_ext.models.factored_grad import FactoredGrad
    from smore_ext.models.lightgcn import LightGCN, LightGCNConfig
    from smore_ext.models.popularity import Popularity, PopularityConfig
    from smore_ext.models.registry import MODELS
    from smore_ext.models.smore import SMORE, SMOREConfig
    from smore_ext.models.table_linear import FactoredAdam, TableLinear

_HOMES = {
    "MODELS": "registry",
    "SMORE": "smore",
    "SMOREConfig": "smore",
    "Batch": "contract",
    "FactoredAdam": "table_linear",
    "FactoredGrad": "factored_grad",
    "LightGCN": "lightgcn",
    "LightGCNConfig": "lightgcn",
    "Popularity": "popularity",
    "PopularityConfig": "popularity",
    "Recommender": "contract",
    "TableLinear": "table_linear",
}

__all__ = [
    "MODELS",
    "SMORE",
    "Batch",
    "FactoredAdam",
    "FactoredGrad",
    "LightGCN",
    "LightGCNConfig",
    "Popularity",
    "PopularityConfig",
    "Recommender",
    "SMOREConfig",
    "TableLinear",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
