"""The one table of op cases: one file a family, which makes its ops' cases and lists them in `CASES`.

Parity, gradcheck, opcheck, compile, layout, thread and benchmark code, and the doctor, all run over it. An op's case is
a function of the sizes, in the file of its family, with some sizes in the `CASES` there; nothing else lists it. Calls
that an op must refuse are in the same file, in `ERRORS`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
)
from smore_ext.testing.cases import losses, neighbours, ranking, sampling, sparse, spectral, tables, views
from smore_ext.testing.cases.losses import *
from smore_ext.testing.cases.neighbours import *
from smore_ext.testing.cases.ranking import *
from smore_ext.testing.cases.sampling import *
from smore_ext.testing.cases.sparse import *
from smore_ext.testing.cases.spectral import *
from smore_ext.testing.cases.tables import *
from smore_ext.testing.cases.views import *

FAMILIES = (losses, neighbours, ranking, sampling, sparse, spectral, tables, views)

CASES: Sequence[OpCase] = [case for family in FAMILIES for case in family.CASES]
ERRORS: Sequence[OpError] = [error for family in FAMILIES for error in family.ERRORS]

__all__ = [
    "CASES",
    "ERRORS",
    "Args",
    "OpCase",
    "OpError",
    "bipartite_graph",
    "differentiable_tensors",
    "flatten",
    "gradients",
    "in_bfloat16",
    "map_tensors",
    "on",
    "rand",
    "randint",
    "random_graph",
]
for _family in FAMILIES:
    __all__ += _family.__all__
