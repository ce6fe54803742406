"""Models by name; `base.Recommender` says what a model offers."""

from smore_ext.models.base import Recommender
from smore_ext.models.lightgcn import LightGCN, LightGCNConfig
from smore_ext.models.popularity import Popularity, PopularityConfig
from smore_ext.models.smore import SMORE, SMOREConfig

MODELS: dict[str, type[Recommender]] = {"SMORE": SMORE, "LightGCN": LightGCN, "Popularity": Popularity}

__all__ = [
    "MODELS",
    "SMORE",
    "LightGCN",
    "LightGCNConfig",
    "Popularity",
    "PopularityConfig",
    "Recommender",
    "SMOREConfig",
]
