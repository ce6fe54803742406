"""Cases and errors of spectral_filter and spectrum_fusion."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand

__all__ = ["filter_case", "fusion_case"]


def filter_case(n: int, d: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, dtype, n, d), rand(g, dtype, d // 2 + 1, 2)]

    return OpCase("spectral_filter", f"{n}x{d}", make, (0, 1), small=n * d <= 40, autocast="float32")


def fusion_case(modalities: int, n: int, d: int) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        xs = [rand(g, dtype, n, d) for _ in range(modalities)]
        filters = [rand(g, dtype, d // 2 + 1, 2) for _ in range(modalities + 1)]
        return [xs, filters[:-1], filters[-1]]

    name = f"{modalities}x{n}x{d}"
    return OpCase("spectrum_fusion", name, make, (0, 1, 2), small=n * d <= 40, autocast="float32")


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

CASES = [
    *(filter_case(n, d) for n, d in ROW_SIZES),
    *(fusion_case(2, n, d) for n, d in ROW_SIZES),
    *(fusion_case(m, n, d) for m in (1, 3) for n, d in ((5, 1), (7, 5), (4, 8), (70, 63))),
    *(fusion_case(m, 1027, 64) for m in (1, 3)),
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
    OpError("spectral_filter", "dim", lambda: [X[0], FILTER], ValueError, "x must have 2 dimensions, got shape"),
    OpError("spectral_filter", "columns", lambda: [X[:, :0], FILTER[:1]], ValueError, "at least 1 column"),
    OpError(
        "spectrum_fusion", "none", lambda: [[], [], FILTER], ValueError, "xs must hold at least one tensor, got none"
    ),
    OpError(
        "spectrum_fusion",
        "count",
        lambda: [[X, X], [FILTER], FILTER],
        ValueError,
        r"one filter per tensor of xs \(2\), got 1",
    ),
    OpError(
        "spectrum_fusion",
        "shape",
        lambda: [[X, X[:3]], [FILTER, FILTER], FILTER],
        ValueError,
        r"xs\[1\] must have shape \[4, 6\], got \[3, 6\]",
    ),
]
