"""Models by name; `base.Recommender` says what a model offers."""

from smore_ext.models.contract import Recommender
from smore_ext.models.factored_grad import FactoredGrad
from smore_ext.models.lightgcn import LightGCN, LightGCNConfig
from smore_ext.models.popularity import Popularity, PopularityConfig
from smore_ext.models.smore import SMORE, SMOREConfig
from smore_ext.models.table_linear import FactoredAdam, TableLinear

MODELS: dict[str, type[Recommender]] = {"SMORE": SMORE, "LightGCN": LightGCN, "Popularity": Popularity}

__all__ = [
    "MODELS",
    "SMORE",
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
