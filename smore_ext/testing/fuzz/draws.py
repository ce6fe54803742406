"""Random cases of each op, of the op table's families, and random views of their arguments."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from smore_ext.graph import Graph
from smore_ext.testing.case import Args, OpCase
from smore_ext.testing.cases import losses, neighbours, ranking, sampling, sparse, spectral, tables, views

Case = Callable[[random.Random], OpCase]


def size(rng: random.Random, least: int = 0) -> int:
    """Mostly small; now and then none, one, or more than a block of a kernel."""
    if rng.random() < 0.06:
        return rng.randint(30, 140)
    return max(least, rng.choice((0, 1, 2, 3, rng.randint(4, 20), rng.randint(4, 33))))


def width(rng: random.Random, least: int = 0) -> int:
    if rng.random() < 0.06:
        return rng.randint(64, 130)
    return max(least, rng.choice((0, 1, 2, 3, 7, 8, 16, 31, rng.randint(1, 20), rng.randint(1, 70))))


def flag(rng: random.Random, share: float = 0.5) -> bool:
    return rng.random() < share


def _keep(rng: random.Random, d: int) -> int | None:
    return rng.randint(1, d // 2 + 1) if flag(rng, 0.4) else None


def _leading(rng: random.Random) -> int | tuple[int, ...]:
    return size(rng) if flag(rng, 0.7) else tuple(rng.randint(0, 4) for _ in range(rng.randint(0, 3)))


def _row(rng: random.Random) -> int:
    return rng.choice((257, 262, 521)) if flag(rng, 0.02) else width(rng, 1)


def _filter(rng: random.Random) -> OpCase:
    d = _row(rng)
    return spectral.filter_case(_leading(rng), d, _keep(rng, d), flag(rng))


def _fusion(rng: random.Random) -> OpCase:
    d, modalities = _row(rng), rng.randint(1, 20 if flag(rng, 0.1) else 4)
    return spectral.fusion_case(modalities, _leading(rng), d, _keep(rng, d), flag(rng), flag(rng, 0.8))


def _edges(rng: random.Random, rows: int, cols: int) -> int:
    return 0 if rows * cols == 0 else rng.choice((0, 1, rng.randint(0, 30), rng.randint(0, 200)))


def _spmm(rng: random.Random) -> OpCase:
    rows, cols, bipartite = size(rng, 1), size(rng, 1), flag(rng, 0.3)
    options = {name: flag(rng, 0.3) for name in ("wide", "gated", "weighted")}
    return sparse.spmm_case(rows, cols, _edges(rng, rows, cols), width(rng), bipartite=bipartite, **options)


def _propagate(rng: random.Random) -> OpCase:
    n, reduce = size(rng, 5), rng.choice(("mean", "last"))
    options = {name: flag(rng, 0.3) for name in ("gated", "bipartite", "weighted")}
    return sparse.propagate_case(n, _edges(rng, n, n), width(rng), rng.randint(0, 4), reduce, **options)


def _poly(rng: random.Random) -> OpCase:
    n = size(rng, 5)
    options = {name: flag(rng, 0.3) for name in ("bipartite", "weighted", "wide")}
    return sparse.poly_case(n, _edges(rng, n, n), width(rng), rng.randint(1, 5), **options)


def _edge_dot(rng: random.Random) -> OpCase:
    rows, cols = size(rng), size(rng)
    return sparse.edge_dot_case(rows, cols, _edges(rng, rows, cols), width(rng), flag(rng, 0.3))


def _edge_softmax(rng: random.Random) -> OpCase:
    rows, cols = size(rng), size(rng)
    return sparse.edge_softmax_case(rows, cols, _edges(rng, rows, cols), flag(rng, 0.3))


def _knn(rng: random.Random) -> OpCase:
    n = size(rng, 1)
    if flag(rng, 0.3):
        return neighbours.knn_case(n, width(rng), rng.randint(1, n), size(rng))
    alone = n > 1 and flag(rng, 0.3)
    return neighbours.knn_case(n, width(rng), rng.randint(1, n - alone), exclude_self=alone)


def _cosine(rng: random.Random) -> OpCase:
    n = size(rng)
    return neighbours.cosine_case(
        n, rng.choice((0, width(rng, 2), width(rng, 2))), rng.randint(0, 9), size(rng, 1) if flag(rng) else None
    )


def _topk(rng: random.Random) -> OpCase:
    users, items = size(rng), size(rng, 1)
    seen = _edges(rng, users, items) if flag(rng, 0.7) else None
    return ranking.topk_case(users, items, width(rng), rng.randint(1, items), seen)


def _sample(rng: random.Random) -> OpCase:
    users, items = size(rng, 1), size(rng, 2)
    first, n = rng.choice((0, 5, 2**32 - 3)), rng.choice((None, None, 1, 4))
    return sampling.sample_case(users, items, _edges(rng, users, items), size(rng), rng.randint(1, 3), first, n)


def _dropout(rng: random.Random) -> OpCase:
    shape = tuple(size(rng) for _ in range(rng.randint(1, 3)))
    return sampling.dropout_case(*shape, p=rng.choice((0.0, 0.1, 0.5, rng.uniform(0, 0.99))), by_tensor=flag(rng, 0.3))


def _bpr(rng: random.Random) -> OpCase:
    form = rng.choice((None, None, 1, 3)), rng.choice((0.0, 0.0, 1e-10, 0.2)), flag(rng, 0.3)
    if flag(rng, 0.3):
        return losses.bpr_rows_case(size(rng), width(rng), *form)
    return losses.bpr_case(size(rng, 1), size(rng, 1), width(rng), size(rng), *form)


def _nce(rng: random.Random) -> OpCase:
    if flag(rng, 0.4):
        return _keys(rng)
    shape = rng.choice((0, size(rng, 2), size(rng, 2))), width(rng)
    temperature = rng.choice((0.01, 0.2, 0.5, 1.0, rng.uniform(0.02, 2)))
    if flag(rng, 0.4):
        return losses.counted_case(*shape, temperature, rng.choice((1, 3, 1000)))
    return losses.nce_case(*shape, temperature)


def _keys(rng: random.Random) -> OpCase:
    keys, reduction = rng.choice((0, size(rng, 1))), rng.choice(("mean", "sum", "none"))
    return losses.keys_case(size(rng, 1), keys, width(rng), rng.uniform(0.02, 2), reduction)


def _row_logsumexp(rng: random.Random) -> OpCase:
    return losses.row_logsumexp_case(size(rng), size(rng, 1), width(rng), rng.choice((0.3, 1.0, 4.0)))


def _adam(rng: random.Random) -> OpCase:
    return tables.adam_case(size(rng), width(rng), width(rng), rng.choice((1, 2, 1000)))


def _table(rng: random.Random) -> OpCase:
    return tables.table_case(size(rng), width(rng), width(rng, 1))


def _gather(rng: random.Random) -> OpCase:
    n, places = size(rng, 1), size(rng)
    widths = [width(rng) for _ in range(rng.randint(1, 3))]
    return tables.gather_case(n, places, *widths, popular=rng.choice((0, 0, places // 2)))


def _preference(rng: random.Random) -> OpCase:
    p = rng.choice((0.0, 0.1, rng.uniform(0, 0.99)))
    return views.preference_case(size(rng), rng.randint(0, 4), width(rng), p, by_tensor=flag(rng, 0.3))


# One an op of `smore_ext.ops`.
DRAWS: dict[str, Case] = {
    "bpr_loss": _bpr,
    "cosine_at": _cosine,
    "dropout": _dropout,
    "edge_dot": _edge_dot,
    "edge_softmax": _edge_softmax,
    "factored_adam_": _adam,
    "gather_rows": _gather,
    "info_nce": _nce,
    "knn": _knn,
    "masked_topk": _topk,
    "modality_preference": _preference,
    "poly_filter": _poly,
    "propagate": _propagate,
    "row_logsumexp": _row_logsumexp,
    "sample_negatives": _sample,
    "spectral_filter": _filter,
    "spectrum_fusion": _fusion,
    "spmm": _spmm,
    "table_linear": _table,
}


def changed_values(rng: random.Random, t: Tensor) -> Tensor:
    """Ties, zero rows, rows that occur again and other sizes of numbers, in some of the draws."""
    kind = rng.random()
    if kind < 0.6 or t.numel() == 0 or t.ndim == 0 or t.shape == (1,):  # none of a number, such as a temperature
        return t
    if kind < 0.7:
        return t.round()
    if kind < 0.8:
        t[rng.randrange(t.shape[0])] = 0
        return t
    if kind < 0.9:
        t[rng.randrange(t.shape[0])] = t[rng.randrange(t.shape[0])].clone()
        return t
    return t * 10.0 ** rng.randint(-6, 6)


def _inside(t: Tensor, before: int, behind: int) -> Tensor:
    """The same values within a larger one-dimensional tensor of other ones."""
    wide = torch.full((before + t.numel() + behind,), 77, dtype=t.dtype, device=t.device)
    wide[before : before + t.numel()] = t.reshape(-1)
    return wide[before : before + t.numel()].view(t.shape)


def _spread(t: Tensor, step: int) -> Tensor:
    """Every step-th column of a wider tensor."""
    wide = torch.full((*t.shape, step), 77, dtype=t.dtype, device=t.device)
    wide[..., step - 1] = t
    return wide[..., step - 1]


def _permuted(t: Tensor) -> Tensor:
    return t.transpose(0, -1).contiguous().transpose(0, -1)


def _repeated(t: Tensor) -> Tensor:
    """Its first row, over and over, by a stride of 0."""
    return t[:1].expand(t.shape) if t.ndim and t.shape[0] and t.is_floating_point() else t


VIEWS: dict[str, Callable[[random.Random, Tensor], Tensor]] = {
    "inside": lambda rng, t: _inside(t, rng.randint(0, 3), rng.randint(0, 3)),
    "spread": lambda rng, t: _spread(t, rng.randint(2, 3)),
    "permuted": lambda rng, t: _permuted(t) if t.ndim > 1 else t,
    "negated": lambda rng, t: torch._neg_view(-t) if t.is_floating_point() else t,
    "repeated": lambda rng, t: _repeated(t),
}


def conjugated(value: Any) -> Any:
    """Real filters [..., 2] as complex ones whose conjugation is still to be done."""
    if isinstance(value, list):
        return [conjugated(part) for part in value]
    return torch.complex(value[..., 0], value[..., 1]).conj()


def viewed(rng: random.Random, args: Args, share: float = 0.4) -> Args:
    """Tensors among (lists of) arguments as other views: of the same values, but for `repeated`."""

    def view(value: Any) -> Any:
        if isinstance(value, list):
            return [view(part) for part in value]
        if isinstance(value, Graph) and flag(rng, share / 3):
            return value.to_sparse(rng.choice(("coo", "csr")))
        if not isinstance(value, Tensor) or value.layout != torch.strided or not flag(rng, share):
            return value
        return VIEWS[rng.choice(sorted(VIEWS))](rng, value)

    viewed_args: Args = view(args)
    return viewed_args


def described(value: Any) -> str:
    """An argument as a person would write it."""
    if isinstance(value, Tensor):
        text = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if value.layout != torch.strided:
            return f"{text} {value.layout}"
        if value.device.type != "cpu":
            text += f" on {value.device}"
        if not value.is_contiguous():
            text += f" strides {list(value.stride())}"
        marks = [("at", value.storage_offset()), ("neg", value.is_neg()), ("conj", value.is_conj())]
        text += "".join(f" {name} {mark}" for name, mark in marks if mark)
        few = value.numel() <= 12 and not value.is_meta and not value._is_zerotensor()
        return f"{text} {value.detach().tolist()}" if few else text
    if isinstance(value, Graph):
        return f"Graph{value.shape} of {value.n_edges} edges in {str(value.rowptr.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(described, value))}]"
    return repr(value)
