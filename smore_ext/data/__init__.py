"""Data: a dataset folder, or the built-in generator, to validated tensors; and the cache of item graphs.

Imports :mod:`smore_ext.graph` and below; knows no model and no training loop.
"""

from smore_ext.data.dataset import Dataset, DatasetError, Pairs
from smore_ext.data.graph_cache import item_knn_graph
from smore_ext.data.options import ReadOptions
from smore_ext.data.read import load_dataset
from smore_ext.data.readers import READERS, read_dataset
from smore_ext.data.synthetic import (
    BUILTIN_DATASETS,
    SyntheticConfig,
    SyntheticTruth,
    builtin_dataset,
    generate,
)

__all__ = [
    "BUILTIN_DATASETS",
    "READERS",
    "Dataset",
    "DatasetError",
    "Pairs",
    "ReadOptions",
    "SyntheticConfig",
    "SyntheticTruth",
    "builtin_dataset",
    "generate",
    "item_knn_graph",
    "load_dataset",
    "read_dataset",
]
