"""Cases of sample_negatives."""

from __future__ import annotations

import torch

from smore_ext.testing.case import Args, OpCase, randint, random_graph

__all__ = ["sample_case"]


def sample_case(users: int, items: int, edges: int, size: int, step: int = 1) -> OpCase:
    """Candidates are every step-th item; users who have seen them all are left out of the batch."""

    def make(dtype: torch.dtype, g: torch.Generator) -> Args:
        seen = random_graph(g, users, items, edges)
        ids, candidates = randint(g, users, size), torch.arange(0, items, step)
        known = torch.bincount(seen.row[seen.col % step == 0], minlength=users)
        return [ids[known[ids] < candidates.shape[0]], seen, candidates, 2**40 + 5, 2**33 + 1]

    return OpCase("sample_negatives", f"{users}x{items}-{size}", make)


CASES = [sample_case(20, 40, 100, 500, step=2), sample_case(5, 12, 70, 3000), sample_case(1, 3, 0, 0)]
