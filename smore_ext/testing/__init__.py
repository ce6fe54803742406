"""The op table, for tests of ops: ours, and those of people who write ops against this package."""

from smore_ext.testing.cases import (
    CASES,
    OpCase,
    differentiable_tensors,
    flatten,
    gradients,
    map_tensors,
    on,
    rand,
    randint,
    random_graph,
)

__all__ = [
    "CASES",
    "OpCase",
    "differentiable_tensors",
    "flatten",
    "gradients",
    "map_tensors",
    "on",
    "rand",
    "randint",
    "random_graph",
]
