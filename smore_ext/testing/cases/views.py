"""Cases and errors of modality_preference."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, OpError, rand

__all__ = ["preference_case"]


def preference_case(n: int, modalities: int, d: int, p: float = 0.0, by_tensor: bool = False) -> OpCase:
    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        width = (modalities + 1) * d
        tensors = [rand(g, dtype, n, width), rand(g, dtype, modalities, n, d) * 2, rand(g, dtype, n, width)]
        return [*tensors, p, 2**40 + 7, torch.tensor(2**33 + 3) if by_tensor else 2**33 + 3]

    name = f"{n}x{modalities}x{d}" + (f"-{p}" if p else "") + ("-tensor" if by_tensor else "")
    small = n * modalities * d <= 20
    return OpCase("modality_preference", name, make, (0, 1, 2), small=small, autocast="float32")


CASES = [
    preference_case(0, 2, 3),
    preference_case(4, 2, 0),
    preference_case(3, 0, 4),
    preference_case(2, 2, 5),
    preference_case(3, 1, 4, p=0.4),
    preference_case(70, 2, 64, p=0.1, by_tensor=True),
    preference_case(130, 3, 33, p=0.5),
    preference_case(300, 1, 130),
]

X = torch.arange(24.0).view(4, 6)
A = torch.zeros(1, 4, 3)

ERRORS = [
    OpError("modality_preference", "gates", lambda: [X[:3], A, X], ValueError, r"gates must have shape \[4, 6\], got"),
    OpError(
        "modality_preference", "views", lambda: [X, A, X[:, :4]], ValueError, r"views must have shape \[4, 6\], got \[4"
    ),
    OpError(
        "modality_preference", "attention", lambda: [X, X, X], ValueError, "attention must have 3 dimensions, got shape"
    ),
    OpError(
        "modality_preference", "dtype", lambda: [X.long(), A, X], TypeError, "gates must be float32 or float64, got Lo"
    ),
    OpError(
        "modality_preference", "mixed", lambda: [X, A.double(), X], TypeError, "attention must have the dtype of gates"
    ),
    OpError("modality_preference", "p", lambda: [X, A, X, 1.0], ValueError, "p must be at least 0 and less than 1, go"),
    OpError("modality_preference", "seed", lambda: [X, A, X, 0.5, -1], ValueError, "seed must be at least 0, got -1"),
    OpError(
        "modality_preference", "offset", lambda: [X, A, X, 0.5, 1, -2], ValueError, "offset must be at least 0, got -2"
    ),
    OpError(
        "modality_preference",
        "offsets",
        lambda: [X, A, X, 0.5, 1, torch.tensor([1, 2])],
        ValueError,
        r"offset must have one element, got shape",
    ),
]
