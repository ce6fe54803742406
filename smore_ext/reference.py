"""The functions of `smore_ext.ops` in plain PyTorch: the oracle that every kernel is compared with.

Written from the formulas, for reading, in float32 or float64 and with autograd throughout. It imports nothing from the
package: a graph is anything with `to_sparse(layout, copy=False)`, or a torch sparse tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _complex_filter(weight: Tensor, width: int, keep: int | None = None) -> Tensor:
    """Filter [d/2+1] complex from its real view [d/2+1, 2]; the ignored imaginary parts are set to zero.

    Either may have a leading dimension of 1. With `keep`, bins from there on are set to zero.
    """
    if not weight.is_complex():
        weight = torch.complex(weight[..., 0], weight[..., 1])
    bins = torch.arange(width // 2 + 1, device=weight.device)
    kept = bins < (len(bins) if keep is None else keep)
    turns = kept & (bins > 0) & (2 * bins != width)
    zero = torch.zeros_like(weight.real)
    weight = torch.complex(torch.where(kept, weight.real, zero), torch.where(turns, weight.imag, zero))
    return weight.reshape(width // 2 + 1)


def _rfft(x: Tensor) -> Tensor:
    """[..., d] -> [..., d/2+1]. torch.fft takes no empty batch, so that is spelled out."""
    if x.numel() == 0:
        return torch.complex(x, x)[..., : x.shape[-1] // 2 + 1]
    return torch.fft.rfft(x, dim=-1, norm="ortho")


def _irfft(spectrum: Tensor, width: int) -> Tensor:
    """[..., d/2+1] -> [..., d]."""
    if spectrum.numel() == 0:
        return spectrum.real[..., :1].expand(*spectrum.shape[:-1], width)
    return torch.fft.irfft(spectrum, n=width, dim=-1, norm="ortho")


def spectral_filter(x: Tensor, weight: Tensor, keep: int | None = None) -> Tensor:
    """irfft(rfft(x) * weight), orthonormal, along the rows. x [..., d], weight [d/2+1, 2] -> [..., d].

    `keep`: only so many of the lowest bins count.
    """
    width = x.shape[-1]
    return _irfft(_rfft(x) * _complex_filter(weight, width, keep), width)


def spectrum_fusion(
    xs: Sequence[Tensor], weights: Sequence[Tensor], fusion_weight: Tensor, keep: int | None = None
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Each x_m filtered by w_m (none: no such outputs), and the product of the unfiltered spectra filtered by w_f.

    docs/spec.md, section 1, step 2. `keep`: as in `spectral_filter`.
    """
    width = xs[0].shape[-1]
    spectra = [_rfft(x) for x in xs]  # M x [..., d/2+1]
    filtered = tuple(_irfft(spectra[m] * _complex_filter(w, width, keep), width) for m, w in enumerate(weights))
    product = spectra[0]
    for spectrum in spectra[1:]:
        product = product * spectrum
    return filtered, _irfft(product * _complex_filter(fusion_weight, width, keep), width)


def _sparse(graph: Any, like: Tensor) -> Tensor:
    if not isinstance(graph, Tensor):
        graph = graph.to_sparse("coo", copy=False)
    return graph if graph.dtype == like.dtype else graph.to(like.dtype)


def _edges(graph: Any) -> tuple[Tensor, Tensor, int]:
    """Row and column of each edge in stored order, [E] each, and the number of rows."""
    matrix = _sparse(graph, torch.zeros(0)).to_sparse_coo().coalesce()
    row, col = matrix.indices()
    return row, col, matrix.shape[0]


def spmm(graph: Any, x: Tensor, gate: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """A x, or A (x * gate). graph [R, C], x and gate [C, d] -> [R, d]. bfloat16 is summed in float32.

    weight [E]: instead of those of the graph, in the order of its edges.
    """
    if gate is not None:
        x = x * gate
    if x.dtype == torch.bfloat16:
        return spmm(graph, x.float(), None, weight).bfloat16()
    if weight is None:
        return torch.sparse.mm(_sparse(graph, x), x)
    row, col, n_rows = _edges(graph)
    return x.new_zeros(n_rows, x.shape[1]).index_add(0, row, weight[:, None] * x[col])


def propagate(
    graph: Any, x: Tensor, n_layers: int, reduce: str = "mean", gate: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """mean of A^0 x .. A^L x ("mean"), or A^L x ("last"); with a gate, of x * gate. graph [N, N] -> [N, d].

    weight [E]: of all layers, as in `spmm`.
    """
    layers = [x if gate is None else x * gate]
    for _ in range(n_layers):
        layers.append(spmm(graph, layers[-1], None, weight))
    return torch.stack(layers, dim=1).mean(dim=1) if reduce == "mean" else layers[-1]


def poly_filter(graph: Any, x: Tensor, coefficients: Tensor | Sequence[float], weight: Tensor | None = None) -> Tensor:
    """sum_l coefficients[l] A^l x. graph [N, N], x [N, d], coefficients [L+1] -> [N, d]. weight: as in `propagate`."""
    layer = x
    total = coefficients[0] * x
    for coefficient in coefficients[1:]:
        layer = spmm(graph, layer, None, weight)
        total = total + coefficient * layer
    return total


def edge_dot(graph: Any, u: Tensor, v: Tensor) -> Tensor:
    """<u[row], v[col]> for each edge. graph [R, C], u [R, d], v [C, d] -> [E]. bfloat16 is summed in float32."""
    if u.dtype == torch.bfloat16:
        u, v = u.float(), v.float()
    row, col, _ = _edges(graph)
    return (u[row] * v[col]).sum(dim=1)


def edge_softmax(graph: Any, logits: Tensor) -> Tensor:
    """exp(l - max l) / sum exp(l - max l) over the edges of each row. logits [E] -> [E]."""
    row, _, n_rows = _edges(graph)
    top = torch.full((n_rows,), -torch.inf, dtype=logits.dtype, device=logits.device)
    top = top.scatter_reduce(0, row, logits.detach(), reduce="amax")
    size = (logits - top[row]).exp()
    return size / torch.zeros_like(top).index_add(0, row, size)[row]


def _ranged(rows: Tensor) -> Tensor:
    """Rows [N, D] times a power of two each, so that their largest elements are near 1; exact, zero rows stay.

    A cosine does not depend on it, but squares of very small and very large numbers leave the range of float64.
    """
    if rows.numel() == 0:
        return rows
    exponent = torch.frexp(rows.detach().abs().amax(dim=1, keepdim=True)).exponent
    half = exponent // 2  # in two steps: one of them may leave the range
    one = torch.ones_like(exponent, dtype=rows.dtype)
    return rows * torch.ldexp(one, -half) * torch.ldexp(one, half - exponent)


def knn(
    features: Tensor, k: int | Tensor, base: Tensor | int | None = None, exclude_self: bool = False
) -> tuple[Tensor, Tensor]:
    """Cosine in float64, rounded to the dtype; similarity descending, a row itself first among its equals, then index
    ascending. knn(features, k), or knn(queries, base, k). -> ([N, k], [N, k])."""
    number, table = (base, k) if isinstance(k, Tensor) else (k, base)
    rows = _ranged(features.detach().double())
    others = _ranged(table.detach().double()) if isinstance(table, Tensor) else rows
    within = others is rows
    gram = rows @ others.T  # [N, M]: the very matrix that the kernel avoids
    square = gram.diagonal().clone() if within else rows.square().sum(dim=1)
    scale = (square[:, None] * (square if within else others.square().sum(dim=1))).sqrt()
    similarity = torch.where(scale > 0, gram / scale, torch.zeros_like(gram)).clamp(-1, 1).to(features.dtype)
    if within:
        similarity.fill_diagonal_(torch.inf)  # a row itself comes first ...
    ordered, index = similarity.sort(dim=1, descending=True, stable=True)
    if within:
        ordered[:, :1] = (square > 0)[:, None].to(ordered)  # ... with 1, or 0 for a zero row
    if exclude_self:
        ordered, index = ordered[:, 1:], index[:, 1:]
    return ordered[:, :number].contiguous(), index[:, :number].contiguous()


def cosine_at(features: Tensor, index: Tensor, base: Tensor | None = None) -> Tensor:
    """Cosine of row i with rows index[i] of base, or of features. features [N, D], index [N, k] -> [N, k]."""
    features = _ranged(features)
    others = features if base is None else _ranged(base)  # [M, D]
    dot = (features[:, None] * others[index]).sum(dim=2)  # [N, k]
    scale = features.norm(dim=1)[:, None] * others.norm(dim=1)[index]
    return torch.where(scale == 0, 0, dot / torch.where(scale == 0, 1, scale))  # NaN stays


def _dense_mask(seen: Any, shape: torch.Size, device: torch.device) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    if seen is not None:
        row, col = _sparse(seen, torch.zeros(0)).to_sparse_coo().coalesce().indices()
        mask[row, col] = True
    return mask


def masked_topk(users: Tensor, items: Tensor, k: int, seen: Any = None) -> tuple[Tensor, Tensor]:
    """The k best unseen items of each user by dot product. -> (score [U, k], index [U, k])."""
    scores = users @ items.T  # [U, I]
    hidden = _dense_mask(seen, scores.shape, scores.device) | scores.isnan()
    scores = scores.masked_fill(hidden, -torch.inf)
    ordered, index = scores.sort(dim=1, descending=True, stable=True)
    ordered, index = ordered[:, :k], index[:, :k]
    return ordered.contiguous(), torch.where(ordered == -torch.inf, -1, index)


_MASK32 = 0xFFFFFFFF
_TRIES = 32


def _philox(seed: int, position: Tensor, block: int, offset: int) -> list[Tensor]:
    """Philox4x32-10: four 32-bit words, kept in int64, for each counter (position, block, offset)."""
    counter = [
        position & _MASK32,
        (position >> 32) | (block << 16),
        torch.full_like(position, offset & _MASK32),
        torch.full_like(position, offset >> 32 & _MASK32),
    ]
    key = [seed & _MASK32, seed >> 32]
    for _ in range(10):
        p0, p1 = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57  # wraps modulo 2^64, as it should
        high0, high1 = (p0 >> 32) & _MASK32, (p1 >> 32) & _MASK32
        counter = [high1 ^ counter[1] ^ key[0], p1 & _MASK32, high0 ^ counter[3] ^ key[1], p0 & _MASK32]
        key = [(key[0] + 0x9E3779B9) & _MASK32, (key[1] + 0xBB67AE85) & _MASK32]
    return counter


def _scale(high: Tensor, low: Tensor, n: int) -> Tensor:
    """floor(r n / 2^64) for the 64-bit draw r = (high, low) and n < 2^31."""
    return (high * n + ((low * n) >> 32)) >> 32


def sample_negatives(
    users: Tensor, seen: Any, candidates: Tensor, seed: int, offset: int = 0, first: int = 0, n: int | None = None
) -> Tensor:
    """A uniform unseen candidate for each position. users [B], seen [U, I], candidates [C] -> [B], or [B, n] int64."""
    if n is not None:
        return sample_negatives(users.repeat_interleave(n), seen, candidates, seed, offset, first * n).view(-1, n)
    position = first + torch.arange(users.shape[0], device=users.device)
    matrix = _sparse(seen, torch.zeros(0)).to_sparse_coo().coalesce()
    keys = matrix.indices()[0] * matrix.shape[1] + matrix.indices()[1]  # ascending

    def is_seen(user: Tensor, item: Tensor) -> Tensor:
        known = item < matrix.shape[1]
        return torch.isin(user * matrix.shape[1] + item, keys) & known

    result = torch.full_like(users, -1)
    for attempt in range(0, _TRIES, 2):
        words = _philox(seed, position, attempt // 2, offset)
        for half in (0, 2):
            draw = candidates[_scale(words[half], words[half + 1], candidates.shape[0])]
            result = torch.where((result < 0) & ~is_seen(users, draw), draw, result)
        if bool((result >= 0).all()):
            return result
    words = _philox(seed, position, _TRIES // 2, offset)
    for b in (result < 0).nonzero()[:, 0].tolist():
        unseen = candidates[~is_seen(users[b].expand_as(candidates), candidates)]
        if unseen.shape[0] == 0:
            raise ValueError(f"sample_negatives: user {int(users[b])} has seen every candidate")
        result[b] = unseen[_scale(words[0][b], words[1][b], unseen.shape[0])]
    return result


def dropout(x: Tensor, p: float, seed: int, offset: int | Tensor = 0) -> Tensor:
    """x / (1 - p) where the element's word of the generator is at least p 2^32, 0 elsewhere."""
    index = torch.arange(x.numel(), device=x.device)
    words = torch.stack(_philox(seed, index // 64 * 16 + index % 16, 1 << 15, int(offset)))  # [4, size]
    word = words.gather(0, (index % 64 // 16)[None])[0].view(x.shape)
    return torch.where(word >= int(p * 2**32), x * (1 / (1 - p)), torch.zeros_like(x))


def gather_rows(tables: Tensor | Sequence[Tensor], index: Tensor, check: bool = True) -> Tensor | tuple[Tensor, ...]:
    """Rows `index` of a table, or of each of several."""
    if isinstance(tables, Tensor):
        return F.embedding(index, tables)
    return tuple(F.embedding(index, table) for table in tables)


def modality_preference(
    gates: Tensor, attention: Tensor, views: Tensor, p: float = 0.0, seed: int = 0, offset: int | Tensor = 0
) -> Tensor:
    """docs/spec.md, section 1, step 6. gates, views [R, (M + 1) d], fused view last, attention [M, R, d] -> [R, d]."""
    modalities, n, d = attention.shape
    gates = gates.sigmoid() if p == 0 else dropout(gates.sigmoid(), p, seed, offset)
    gated = (gates * views).view(n, modalities + 1, d)
    weighted = gated[:, :modalities] * attention.softmax(dim=2).transpose(0, 1)  # [R, M, d]
    return (gated[:, modalities] + weighted.sum(dim=1)) / (modalities + 1)


def bpr_loss(
    user_embeddings: Tensor,
    item_embeddings: Tensor,
    users: Tensor,
    positives: Tensor | None = None,
    negatives: Tensor | None = None,
    gamma: float = 0.0,
    norms: bool = False,
) -> tuple[Tensor, Tensor]:
    """-mean(log(gamma + sigmoid(u.p - u.n))) and (|u|^2 + |p|^2 + |n|^2) / 2 summed over the batch; 0 for no rows.

    negatives [B] or [B, n]. Without ids the first three are rows, [B, d], [B, d] and [B, d] or [B, n, d]. `norms`: the
    three sums of squares apart, [3].
    """
    if positives is None or negatives is None:
        u, p, n = user_embeddings, item_embeddings, users
    else:
        u, p, n = user_embeddings[users], item_embeddings[positives], item_embeddings[negatives]  # [B, d] each
    sums = u.square().sum(), p.square().sum(), n.square().sum()
    second = torch.stack(sums) if norms else (sums[0] + sums[1] + sums[2]) / 2
    if u.shape[0] == 0:
        return second.sum() * 0, second
    better, worse = (u * p).sum(dim=1), (u[:, None] * n if n.ndim == 3 else u * n).sum(dim=-1)
    margin = (better[:, None] if n.ndim == 3 else better) - worse
    return -(torch.log(gamma + margin.sigmoid()) if gamma > 0 else F.logsigmoid(margin)).mean(), second


def info_nce(
    x: Tensor,
    y: Tensor,
    temperature: float | Tensor,
    keys: Tensor | None = None,
    reduction: str = "mean",
    counts: Tensor | None = None,
) -> Tensor:
    """mean_i(log sum_j exp(u_i.w_j / t) - u_i.v_i / t) for unit rows u, v, w of x, y, keys; 0 for no rows.

    Without keys w = v. reduction: "mean", "sum", or "none" for the terms of the rows [B]. counts: of rows that are
    repeated so often [B].
    """
    if isinstance(temperature, Tensor):
        temperature = temperature.reshape(())
    u, v = F.normalize(x, dim=1), F.normalize(y, dim=1)  # [B, d]
    if counts is not None:
        often = counts.to(x.dtype)
        scores = u @ v.T / temperature  # [B, B]
        rows = often * ((scores + often.log()).logsumexp(dim=1) - scores.diagonal())
        return rows.sum() / often.sum().clamp_min(1)
    if keys is None:
        scores = u @ v.T / temperature  # [B, B]
        rows = scores.logsumexp(dim=1) - scores.diagonal()
    else:
        scores = u @ F.normalize(keys, dim=1).T / temperature  # [B, M]
        rows = scores.logsumexp(dim=1) - (u * v).sum(dim=1) / temperature
    if reduction == "none":
        return rows
    return rows.mean() if reduction == "mean" and len(rows) > 0 else rows.sum()


def row_logsumexp(a: Tensor, b: Tensor) -> Tensor:
    """log sum_j exp(a_i.b_j). a [N, d], b [M, d] -> [N]."""
    return (a @ b.T).logsumexp(dim=1)


def table_linear(table: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """table [N, D] @ weight [d, D]^T + bias [d], if any -> [N, d]."""
    return F.linear(table, weight, bias)


@torch.no_grad()
def factored_adam_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad_rows: Tensor,
    factor: Tensor,
    step: Tensor,
    lr: float | Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Tensor:
    """One step of Adam, in place, with the gradient grad_rows @ factor. [N, D], [N, D], [N, D], [N, d], [d, D]."""
    grad, t = grad_rows @ factor, float(step)
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    size = exp_avg_sq.sqrt() / (1 - beta2**t) ** 0.5 + eps
    return param.addcdiv_(exp_avg, size, value=-float(lr) / (1 - beta1**t))
