"""The op table, for tests of ops: ours, and those of people who write ops against this package."""

from smore_ext.testing.case import (
    Args,
    OpCase,
    differentiable_tensors,
    flatten,
    gradients,
    map_tensors,
    on,
    rand,
    randint,
    random_graph,
    registered_call,
)
from smore_ext.testing.cases import CASES

__all__ = [
    "CASES",
    "Args",
    "OpCase",
    "differentiable_tensors",
    "flatten",
    "gradients",
    "map_tensors",
    "on",
    "rand",
    "randint",
    "random_graph",
    "registered_call",
]
