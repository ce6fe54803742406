"""Cases and errors of spectral_filter and spectrum_fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand

__all__ = ["filter_case", "fusion_case"]


def _name(*parts: int, keep: int | None, published: bool) -> str:
    return "x".join(map(str, parts)) + f"-{keep}" * (keep is not None) + "-published" * published


def _given(keep: int | None) -> Args:
    """The argument, left out where it says nothing: peers need not know it."""
    return [] if keep is None else [keep]


def filter_case(n: int | Sequence[int], d: int, keep: int | None = None, published: bool = False) -> OpCase:
    """n: rows, or all leading dimensions; published: the filter has a leading dimension too."""
    shape = (n, d) if isinstance(n, int) else (*n, d)

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        weight = rand(g, dtype, *(1,) * published, d // 2 + 1, 2)
        return [rand(g, dtype, *shape), weight, *_given(keep)]

    name = _name(*shape, keep=keep, published=published)
    return OpCase("spectral_filter", name, make, (0, 1), small=math.prod(shape) <= 40, autocast="float32")


def fusion_case(
    modalities: int,
    n: int | Sequence[int],
    d: int,
    keep: int | None = None,
    published: bool = False,
    filtered: bool = True,
) -> OpCase:
    """As filter_case; filtered: false asks for the fused array alone."""
    shape = (n, d) if isinstance(n, int) else (*n, d)

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        xs = [rand(g, dtype, *shape) for _ in range(modalities)]
        filters = [rand(g, dtype, *(1,) * published, d // 2 + 1, 2) for _ in range(modalities + 1)]
        return [xs, filters[:-1] if filtered else [], filters[-1], *_given(keep)]

    name = _name(modalities, *shape, keep=keep, published=published) + "-fused" * (not filtered)
    return OpCase("spectrum_fusion", name, make, (0, 1, 2), small=math.prod(shape) <= 40, autocast="float32")


ROW_SIZES = (
    (5, 1),
    (3, 2),
    (7, 5),
    (4, 8),
    (0, 6),
    (33, 16),
    (70, 63),
    (1025, 64),
    (40, 100),
    (9, 127),
    (3, 512),
)
KEPT_SIZES = ((7, 5, 2), (4, 8, 5), (0, 6, 2), (1, 32, 8), (70, 63, 9), (1025, 64, 16), (40, 100, 23), (9, 512, 40))

CASES = [
    *(filter_case(n, d) for n, d in ROW_SIZES),
    *(fusion_case(2, n, d) for n, d in ROW_SIZES),
    *(fusion_case(m, n, d) for m in (1, 3) for n, d in ((5, 1), (7, 5), (4, 8), (70, 63))),
    *(fusion_case(m, 1027, 64) for m in (1, 3)),
    *(filter_case(n, d) for n, d in (((), 8), ((2, 3), 5), ((2, 0), 6), ((3, 70, 5), 64))),
    *(filter_case(n, d, keep) for n, d, keep in KEPT_SIZES),
    filter_case((2, 2), 6, published=True),
    filter_case((4, 30), 64, 9, published=True),
    fusion_case(2, (2, 2), 5),
    *(fusion_case(2, n, d, keep) for n, d, keep in KEPT_SIZES),
    fusion_case(1, 1, 32, 6),
    fusion_case(3, 1027, 64, 12),
    fusion_case(2, (2, 40), 64, published=True),
    *(fusion_case(2, n, d, filtered=False) for n, d in ((3, 5), (4, 8), (70, 64), (40, 100))),
    fusion_case(3, (5, 30), 64, 7, filtered=False),
]

X = torch.arange(24.0).view(4, 6)
FILTER = torch.ones(4, 2)

ERRORS = [
    OpError(
        "spectral_filter", "dtype", lambda: [X.half(), FILTER], TypeError, "x must be float32 or float64, got Half"
    ),
    OpError(
        "spectral_filter",
        "mixed",
        lambda: [X, FILTER.double()],
        TypeError,
        r"weight must have the dtype of x \(Float\)",
    ),
    OpError(
        "spectral_filter",
        "shape",
        lambda: [X, FILTER[:3]],
        ValueError,
        r"weight must have shape \[4, 2\], got \[3, 2\]",
    ),
    OpError(
        "spectral_filter",
        "published",
        lambda: [X, FILTER.expand(2, 4, 2)],
        ValueError,
        r"weight must have shape \[1, 4, 2\], got \[2, 4, 2\]",
    ),
    OpError(
        "spectral_filter",
        "complex",
        lambda: [X, torch.view_as_complex(FILTER[:3])],
        ValueError,
        r"weight must have shape \[4, 2\], got \[3, 2\]",
    ),
    OpError(
        "spectral_filter",
        "batch",
        lambda: [X.view(2, 2, 6), FILTER[:2]],
        ValueError,
        r"weight must have shape \[4, 2\], got \[2, 2\]",
    ),
    OpError("spectral_filter", "dim", lambda: [X[0, 0], FILTER], ValueError, "x must have at least 1 dimension, got"),
    OpError(
        "spectral_filter",
        "keep",
        lambda: [X, FILTER, 5],
        ValueError,
        r"keep must be a number of frequencies in 1\.\.4, got 5",
    ),
    OpError("spectral_filter", "keep-none", lambda: [X, FILTER, 0], ValueError, r"frequencies in 1\.\.4, got 0"),
    OpError("spectral_filter", "columns", lambda: [X[:, :0], FILTER[:1]], ValueError, "at least 1 column"),
    OpError(
        "spectrum_fusion", "none", lambda: [[], [], FILTER], ValueError, "xs must hold at least one tensor, got none"
    ),
    OpError(
        "spectrum_fusion",
        "count",
        lambda: [[X, X], [FILTER], FILTER],
        ValueError,
        r"one filter per tensor of xs \(2\) or none, got 1",
    ),
    OpError(
        "spectrum_fusion",
        "keep",
        lambda: [[X, X], [], FILTER, -1],
        ValueError,
        r"spectrum_fusion: keep must be a number of frequencies in 1\.\.4, got -1",
    ),
    OpError(
        "spectrum_fusion",
        "unfiltered",
        lambda: [[X, X], [], FILTER[:2]],
        ValueError,
        r"fusion_weight must have shape \[4, 2\], got \[2, 2\]",
    ),
    OpError(
        "spectrum_fusion",
        "shape",
        lambda: [[X, X[:3]], [FILTER, FILTER], FILTER],
        ValueError,
        r"xs\[1\] must have shape \[4, 6\], got \[3, 6\]",
    ),
]
