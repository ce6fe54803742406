"""Kernels and models for multimodal recommendation: SMORE and the ops it is made of."""

from smore_ext import ops, reference
from smore_ext._native import build_info
from smore_ext.data import Dataset, builtin_dataset, load_dataset
from smore_ext.graph import Graph
from smore_ext.models import (
    SMORE,
    Batch,
    LightGCN,
    LightGCNConfig,
    Popularity,
    PopularityConfig,
    Recommender,
    SMOREConfig,
)
from smore_ext.version import __version__

__all__ = [
    "Batch",
    "Dataset",
    "Graph",
    "LightGCN",
    "LightGCNConfig",
    "Popularity",
    "PopularityConfig",
    "Recommender",
    "SMORE",
    "SMOREConfig",
    "__version__",
    "build_info",
    "builtin_dataset",
    "load_dataset",
    "ops",
    "reference",
]
