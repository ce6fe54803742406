"""Kernels and models for multimodal recommendation: SMORE and the ops it is made of.

Importing this package loads torch and the extension, nothing else: the recommender on top (`data`, `models`, ...) and
the libraries that it reads files with are loaded when one of its names is first used.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from smore_ext import threads

if threads.is_command(sys.orig_argv) and "torch" not in sys.modules:
    threads.prepare()

from smore_ext import backends, ops, reference
from smore_ext._native import build_info
from smore_ext.graph import Graph
from smore_ext.version import __version__

if TYPE_CHECKING:  # the names of _LAZY, for type checkers
    from smore_ext import data, models, serving, testing
    from smore_ext.data import Dataset, ReadOptions, builtin_dataset, load_dataset
    from smore_ext.evaluation.metrics import ranking_metrics
    from smore_ext.experiments.estimate import Counts, estimate
    from smore_ext.models import (
        SMORE,
        Batch,
        FactoredAdam,
        LightGCN,
        LightGCNConfig,
        Popularity,
        PopularityConfig,
        Recommender,
        SMOREConfig,
        TableLinear,
    )
    from smore_ext.serving import load

__all__ = [
    "Batch",
    "Counts",
    "Dataset",
    "FactoredAdam",
    "Graph",
    "LightGCN",
    "LightGCNConfig",
    "Popularity",
    "PopularityConfig",
    "ReadOptions",
    "Recommender",
    "SMORE",
    "SMOREConfig",
    "TableLinear",
    "__version__",
    "backends",
    "build_info",
    "builtin_dataset",
    "data",
    "estimate",
    "load",
    "load_dataset",
    "models",
    "ops",
    "ranking_metrics",
    "reference",
    "serving",
    "testing",
]

# Modules loaded on first use, each with its names that are public here; of those with a dot the names alone are.
_LAZY = {
    "data": ("Dataset", "ReadOptions", "builtin_dataset", "load_dataset"),
    "evaluation.metrics": ("ranking_metrics",),
    "experiments.estimate": ("Counts", "estimate"),
    "models": (
        "Batch",
        "FactoredAdam",
        "LightGCN",
        "LightGCNConfig",
        "Popularity",
        "PopularityConfig",
        "Recommender",
        "SMORE",
        "SMOREConfig",
        "TableLinear",
    ),
    "serving": ("load",),
    "testing": (),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name == module:
            return import_module(f"{__name__}.{module}")
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value  # asked for once
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
