"""Cases and errors of bpr_loss, info_nce and row_logsumexp."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand, randint

__all__ = ["bpr_case", "bpr_rows_case", "counted_case", "keys_case", "nce_case", "row_logsumexp_case"]


def bpr_case(
    users: int, items: int, d: int, size: int, n: int | None = None, gamma: float = 0.0, norms: bool = False
) -> OpCase:
    """`n` negatives for each positive, [size, n]; None: one, [size]."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        of_negatives = (size,) if n is None else (size, n)
        ids = [randint(g, users, size), randint(g, items, size), randint(g, items, *of_negatives)]
        further = [] if gamma == 0 and not norms else [gamma, norms]
        return [rand(g, dtype, users, d), rand(g, dtype, items, d), *ids, *further]

    name = f"{users}x{items}x{d}-{size}" + _form(n, gamma, norms)
    return OpCase("bpr_loss", name, make, (0, 1), small=size <= 7, autocast="float32")


def bpr_rows_case(size: int, d: int, n: int | None = None, gamma: float = 0.0, norms: bool = False) -> OpCase:
    """Rows that are gathered already."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        of_negatives = (size, d) if n is None else (size, n, d)
        rows = [rand(g, dtype, size, d), rand(g, dtype, size, d), rand(g, dtype, *of_negatives)]
        return [*rows, None, None, gamma, norms]

    name = f"rows-{size}x{d}" + _form(n, gamma, norms)
    return OpCase("bpr_loss", name, make, (0, 1, 2), small=size <= 7, autocast="float32")


def _form(n: int | None, gamma: float, norms: bool) -> str:
    parts = (f"x{n}" if n else "", f"-gamma{gamma}" if gamma else "", "-norms" if norms else "")
    return "".join(parts)


def nce_case(size: int, d: int, temperature: float) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, dtype, size, d), rand(g, dtype, size, d), temperature]

    return OpCase("info_nce", f"{size}x{d}-{temperature}", make, (0, 1), small=size <= 5, autocast="float32")


def counted_case(size: int, d: int, temperature: float, most: int = 4) -> OpCase:
    """InfoNCE of rows that a batch has up to `most` times."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        counts = torch.randint(1, most + 1, (size,), generator=g)
        return [rand(g, dtype, size, d), rand(g, dtype, size, d), temperature, None, "mean", counts]

    return OpCase("info_nce", f"{size}x{d}-{temperature}-{most}", make, (0, 1), small=size <= 5, autocast="float32")


def keys_case(size: int, keys: int, d: int, temperature: float, reduction: str) -> OpCase:
    """InfoNCE against other keys (0: the batch) with a learned temperature."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        others = rand(g, dtype, keys, d) if keys else None
        learned = torch.tensor([temperature], dtype=dtype)
        return [rand(g, dtype, size, d), rand(g, dtype, size, d), learned, others, reduction]

    name = f"{size}x{keys}x{d}-{temperature}-{reduction}"
    differentiable = (0, 1, 2, 3) if keys else (0, 1, 2)
    return OpCase("info_nce", name, make, differentiable, small=size <= 5, autocast="float32")


def row_logsumexp_case(n: int, m: int, d: int, scale: float = 1.0) -> OpCase:
    """Scores of about scale^2 sqrt(d): large ones leave the range of a fixed shift."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        return [rand(g, dtype, n, d) * scale, rand(g, dtype, m, d) * scale]

    return OpCase("row_logsumexp", f"{n}x{m}x{d}-{scale}", make, (0, 1), small=0 < n <= 5, autocast="float32")


CASES = [
    *(bpr_case(*size) for size in ((4, 5, 3, 7), (3, 3, 2, 0), (60, 90, 64, 600), (60, 90, 65, 90))),
    bpr_case(4, 5, 3, 6, 3, 0.3, True),
    bpr_case(60, 20, 65, 400, 2),
    bpr_case(30, 9, 64, 300, None, 1e-10, True),
    bpr_case(60, 90, 33, 200, 4, 0.01),
    bpr_rows_case(5, 4, 2, 0.1, True),
    bpr_rows_case(0, 4),
    bpr_rows_case(0, 3, 2),
    bpr_rows_case(6, 0, 3),
    bpr_rows_case(130, 33),
    *(nce_case(*size) for size in ((5, 3, 0.2), (2, 2, 0.5), (0, 3, 0.2), (300, 64, 0.2), (65, 63, 0.01))),
    nce_case(130, 100, 1.0),
    *(counted_case(*size) for size in ((5, 3, 0.2), (3, 2, 0.5), (0, 3, 0.2), (300, 64, 0.2), (65, 63, 0.01, 90))),
    *(
        keys_case(*case)
        for case in (
            (4, 6, 3, 0.5, "none"),
            (3, 0, 4, 0.7, "mean"),
            (70, 300, 33, 0.2, "sum"),
            (130, 65, 64, 0.02, "mean"),
            (0, 5, 3, 0.2, "mean"),
            (4, 3, 0, 0.2, "sum"),
        )
    ),
    *(
        row_logsumexp_case(*case)
        for case in (
            (4, 5, 3),
            (5, 2, 3),
            (0, 4, 3),
            (3, 4, 0),
            (3, 0, 4),
            (70, 700, 64, 0.5),
            (700, 70, 33, 0.5),
            (130, 257, 65, 3.0),
        )
    ),
]

X = torch.arange(24.0).view(4, 6)
IDS = torch.tensor([0, 1])

ERRORS = [
    OpError(
        "bpr_loss",
        "id",
        lambda: [X, X, IDS, IDS, IDS + 3],
        IndexError,
        "negatives must be in 0..3, got 4 at position 1",
    ),
    OpError(
        "bpr_loss",
        "dtype",
        lambda: [X, X, IDS.int(), IDS, IDS],
        TypeError,
        r"users must be int64, got Int: users\.long\(\) is",
    ),
    OpError(
        "bpr_loss",
        "length",
        lambda: [X, X, IDS, IDS[:1], IDS],
        ValueError,
        r"positives must have shape \[2\], got \[1\]",
    ),
    OpError(
        "bpr_loss",
        "negatives",
        lambda: [X, X, IDS, IDS, IDS[:, None].expand(2, 3)[:1]],
        ValueError,
        r"negatives must have shape \[2\] or \[2, n\], got \[1, 3\]",
    ),
    OpError(
        "bpr_loss",
        "ids in a row",
        lambda: [X, X, IDS, IDS[None], IDS[:, None]],
        ValueError,
        r"users and positives must have shape \[B\], got \[2\] and \[1, 2\]",
    ),
    OpError("bpr_loss", "gamma", lambda: [X, X, IDS, IDS, IDS, -0.1], ValueError, "gamma must be at least 0, got -0.1"),
    OpError(
        "bpr_loss", "half of the ids", lambda: [X, X, IDS, IDS], TypeError, "must be given both or not at all, got one"
    ),
    OpError(
        "bpr_loss",
        "rows",
        lambda: [X, X, X[:3]],
        ValueError,
        r"rows must have shapes .* got \[4, 6\], \[4, 6\] and \[3, 6\]",
    ),
    OpError("bpr_loss", "rows of ids", lambda: [X, X, IDS], TypeError, "got torch.int64 for the negatives' rows"),
    OpError("bpr_loss", "width", lambda: [X, X[:, :5], IDS, IDS, IDS], ValueError, "same width, got 6 and 5"),
    OpError("info_nce", "temperature", lambda: [X, X, 0.0], ValueError, "temperature must be greater than 0, got 0"),
    OpError("info_nce", "shape", lambda: [X, X[:3], 0.2], ValueError, r"y must have shape \[4, 6\], got \[3, 6\]"),
    OpError(
        "info_nce",
        "dtype",
        lambda: [X, X.double(), 0.2],
        TypeError,
        r"y must have the dtype of x \(Float\), got Double",
    ),
    OpError(
        "info_nce",
        "keys",
        lambda: [X, X, 0.2, X[:, :5]],
        ValueError,
        r"info_nce: keys must have the width of x \(6\), got 5",
    ),
    OpError("info_nce", "no keys", lambda: [X, X, 0.2, X[:0]], ValueError, "keys must have at least one row, got none"),
    OpError("info_nce", "keys' dtype", lambda: [X, X, 0.2, X.double()], TypeError, "keys must have the dtype of x"),
    OpError(
        "info_nce",
        "reduction",
        lambda: [X, X, 0.2, None, "max"],
        ValueError,
        'reduction must be "mean", "sum" or "none", got \'max\'',
    ),
    OpError(
        "info_nce",
        "counts",
        lambda: [X, X, 0.2, None, "mean", IDS],
        ValueError,
        r"counts must have shape \[4\], got \[2\]",
    ),
    OpError(
        "info_nce",
        "counts' dtype",
        lambda: [X, X, 0.2, None, "mean", X[:, 0]],
        TypeError,
        "counts must be int64, got Float",
    ),
    OpError(
        "info_nce",
        "counts and keys",
        lambda: [X, X, 0.2, X, "mean", torch.ones(4).long()],
        ValueError,
        'counts go with reduction="mean", a temperature that is not learned, and no keys',
    ),
    OpError("info_nce", "cold", lambda: [X, X, -0.5, X], ValueError, "temperature must be greater than 0, got -0.5"),
    OpError(
        "info_nce",
        "temperatures",
        lambda: [X, X, torch.ones(4, requires_grad=True), X],
        ValueError,
        r"temperature must have one element, got shape \[4\]",
    ),
    OpError("row_logsumexp", "width", lambda: [X, X[:, :5]], ValueError, "same width, got 6 and 5"),
    OpError("row_logsumexp", "dtype", lambda: [X, X.double()], TypeError, "b must have the dtype of a"),
    OpError("row_logsumexp", "rows", lambda: [X, X[0]], ValueError, "b must have 2 dimensions, got shape"),
]
