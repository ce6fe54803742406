"""The op table and what an op must hold, for tests of ops: ours, and those of people who write ops of their own.

A case (`OpCase`) says how to call an op; `check_op` runs every check that applies to it. docs/new-op.md has an example.
"""

from smore_ext.testing import checks
from smore_ext.testing.case import (
    Args,
    OpCase,
    OpError,
    bipartite_graph,
    differentiable_tensors,
    flatten,
    gradients,
    in_bfloat16,
    map_tensors,
    on,
    rand,
    randint,
    random_graph,
    registered_call,
)
from smore_ext.testing.cases import CASES, ERRORS
from smore_ext.testing.checks import check_error, check_op, check_table

__all__ = [
    "CASES",
    "ERRORS",
    "Args",
    "OpCase",
    "OpError",
    "bipartite_graph",
    "check_error",
    "check_op",
    "check_table",
    "checks",
    "differentiable_tensors",
    "flatten",
    "gradients",
    "in_bfloat16",
    "map_tensors",
    "on",
    "rand",
    "randint",
    "random_graph",
    "registered_call",
]
