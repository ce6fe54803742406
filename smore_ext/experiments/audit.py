"""Questions to a trained run: does content matter, are its gates alive, whom does it serve, is its data clean?

Everything is measured on the run's own data with the weights of its best epoch; nothing is trained. Thresholds stand
beside the findings that they decide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smore_ext import ops
from smore_ext.data import Dataset, Pairs
from smore_ext.data.rows import groups
from smore_ext.evaluation.metrics import user_metrics
from smore_ext.evaluation.protocol import Split, rows_of
from smore_ext.evaluation.ranking import Ranker, evaluating
from smore_ext.experiments.knockout import Change, without_content
from smore_ext.experiments.significance import LEVEL, Difference, holm, paired_bootstrap
from smore_ext.models import Recommender
from smore_ext.runs.load import LoadedRun
from smore_ext.training.device import usable_device

CLOSED, OPEN = 0.05, 0.95  # a gate's value beyond which it passes nothing, or all
SATURATED = 0.9  # share of a gate's values on one side from which on it decides nothing any more
UNIFORM, COLLAPSED = 0.99, 0.05  # relative entropy of attention
STILL = 0.999  # cosine of a trained feature table with the raw features from which on it has not moved
UNMOVED_LISTS = 0.9  # overlap of lists from which on content changes little
HEAD, TAIL = 0.2, 0.2  # shares of train interactions that make an item popular, or a rare one
_BLOCK = 4096  # rows at a time


class Lists(NamedTuple):
    """What a model ranks first for the V users of a split: [V], [V, k], and whether the k-th score is also the next."""

    users: Tensor
    items: Tensor
    tied: Tensor


@dataclass
class Audit:
    """What was found; JSON types all through."""

    run: str
    model: str
    dataset: str
    protocol: str
    split: str
    k: int
    users: int
    quality: dict[str, float]
    content: list[dict[str, Any]] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    attention: dict[str, float] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    popularity: dict[str, float] = field(default_factory=dict)
    data: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def audit(run: LoadedRun, k: int = 20, split: Split = "test", seed: int = 0, resamples: int = 2000) -> Audit:
    """Asks all questions of a run. `k`: length of the lists; `seed`: of exchanged content and of the bootstrap.

    Raises `ValueError` where the split has no user to rank for, or k is beyond the items.
    """
    data, protocol = run.dataset, run.config.train.protocol
    if not 1 <= k <= data.n_items:
        raise ValueError(
            f"audit: k must be in 1..{data.n_items}, the items of {data.name!r}, got {k}: choose another by --k"
        )
    if not len(getattr(data, split).users):
        raise ValueError(f"audit: the {split} split of {data.name!r} is empty")
    lists, relevant = ranked(run, run.model, split, k), getattr(data, split)
    graph = rows_of(lists.users, [relevant], data.n_items)
    own = user_metrics(lists.items, graph, (k,), ("recall", "ndcg", "hit_rate"))
    out = Audit(
        run=str(run.run_dir),
        model=run.config.train.model,
        dataset=data.name,
        protocol=protocol,
        split=split,
        k=k,
        users=len(lists.users),
        quality={name: float(values.mean()) for name, values in own.items()},
    )
    out.content = _content(run, lists, own[f"recall@{k}"], graph, split, seed, resamples)
    out.gates, out.attention = gates_of(run.model), _attention(run.model)
    out.tables = tables_of(run.model, run.dataset)
    out.items, out.popularity = _popularity(data, lists, relevant)
    out.data = _data(data) | {"users_with_ties_at_the_cut": float(lists.tied.double().mean())}
    out.findings = findings(out)
    return out


def ranked(run: LoadedRun, model: Recommender, split: Split, k: int) -> Lists:
    """Lists under the run's protocol for the users of a split."""
    data, cfg = run.dataset, run.config.train
    masked = [data.train, *([data.valid] if split == "test" and cfg.protocol == "strict" else [])]
    users = torch.unique(getattr(data, split).users)
    ranker, device, more = Ranker(model), usable_device(cfg.device), min(k + 1, data.n_items)
    items, tied = [], []
    for block in users.split(cfg.eval_batch_size):
        seen = rows_of(block, masked, data.n_items).to(device)
        scores, index = (t.cpu() for t in ranker.topk(block.to(device), more, seen))
        items.append(index[:, :k])
        last = scores[:, k] if more > k else torch.full((len(block),), -torch.inf)
        tied.append((scores[:, k - 1] == last) & last.isfinite())
    return Lists(users, torch.cat(items), torch.cat(tied))


def overlap(a: Tensor, b: Tensor) -> float:
    """Mean share of the items of lists a [V, k] that are also in b [V, k]."""
    return float((a[:, :, None] == b[:, None, :]).any(dim=2).double().mean())


def _content(
    run: LoadedRun, lists: Lists, recall: Tensor, relevant: Any, split: Split, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """Recall and lists with content removed or exchanged: of each modality, and of all."""
    named = run.model.features_read(run.config.model)
    read = list(run.dataset.features) if named is None else named
    groups = [(m,) for m in read] + ([tuple(read)] if len(read) > 1 else [])
    changes: tuple[Change, ...] = ("removed", "exchanged")
    rows, differences = [], []
    for group in groups:
        for change in changes:
            other = ranked(run, without_content(run, group, change, seed), split, lists.items.shape[1])
            (theirs,) = user_metrics(other.items, relevant, (lists.items.shape[1],), ("recall",)).values()
            differences.append((theirs - recall).numpy())
            rows.append(
                {
                    "of": list(group),
                    "change": change,
                    "recall": float(theirs.mean()),
                    "overlap": overlap(lists.items, other.items),
                }
            )
    if not rows:
        return []
    found: list[Difference] = paired_bootstrap(np.stack(differences, axis=1), resamples, seed)
    for row, difference, p in zip(rows, found, holm([d.p for d in found]), strict=True):
        row.update(difference=difference.mean, low=difference.low, high=difference.high, p=p)
    return rows


def gates_of(model: Recommender) -> list[dict[str, Any]]:
    """Values of each sigmoid module in a forward pass over all nodes."""
    values: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Sigmoid):

            def keep(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
                sums = torch.stack([out.sum(), (out < CLOSED).sum(), (out > OPEN).sum()]).double()
                values.setdefault(name, []).append(torch.cat([sums.cpu(), torch.tensor([float(out.numel())])]))

            hooks.append(module.register_forward_hook(keep))
    try:
        if model.factored:
            with evaluating(model):
                model.embeddings()
    finally:
        for hook in hooks:
            hook.remove()
    out = []
    for name, parts in values.items():
        total, closed, opened, count = torch.stack(parts).sum(0).tolist()
        shares = {"mean": total / count, "closed": closed / count, "open": opened / count}
        out.append({"gate": name.rpartition(".")[0] or name, **shares})
    return out


def _attention(model: Recommender) -> dict[str, float]:
    with evaluating(model):
        return {name: value for name, value in model.statistics().items() if name.startswith("attention")}


def tables_of(model: Recommender, dataset: Dataset) -> list[dict[str, Any]]:
    """How far trained feature tables are from the raw features that they began with."""
    out = []
    for name, parameter in model.named_parameters():
        m = name.removeprefix("features.")
        if name == m or m not in dataset.features or not parameter.requires_grad:
            continue
        trained, raw = parameter.detach().cpu().double(), dataset.features[m].double()
        cosine = F.cosine_similarity(trained, raw, dim=1)
        change = (trained - raw).norm() / raw.norm().clamp(min=1e-30)
        out.append({"modality": m, "cosine": float(cosine[raw.norm(dim=1) > 0].mean()), "change": float(change)})
    return out


def _popularity(data: Dataset, lists: Lists, relevant: Pairs) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Recall and share of the places by how popular items are in train, and how like the lists are to the popular."""
    count = torch.bincount(data.train.items, minlength=data.n_items).double()
    order = count.argsort(descending=True, stable=True)
    share = torch.empty_like(count)
    share[order] = (count[order].cumsum(0) - count[order]) / count.sum().clamp(min=1)  # of those before it
    group = torch.where(share < HEAD, 0, torch.where(share < 1 - TAIL, 1, 2))
    user_of = torch.searchsorted(lists.users, relevant.users)
    hit = (lists.items[user_of] == relevant.items[:, None]).any(dim=1)
    shown = lists.items[lists.items >= 0]
    rows = []
    for number, name in enumerate(("head", "middle", "tail")):
        wanted = group[relevant.items] == number
        row = {"items": name, "number": int((group == number).sum()), "relevant": int(wanted.sum())}
        row["recall"] = float(hit[wanted].double().mean()) if bool(wanted.any()) else None
        row["places"] = float((group[shown] == number).double().mean())
        rows.append(row)
    popular = []  # the k most popular that a user has not seen
    for users in lists.users.split(_BLOCK):
        seen = rows_of(users, [data.train], data.n_items)
        popular.append(
            ops.masked_topk(torch.ones(len(users), 1), count.float()[:, None], lists.items.shape[1], seen)[1]
        )
    figures = {
        "coverage": float(shown.unique().numel() / data.n_items),
        "overlap_with_popular": overlap(lists.items, torch.cat(popular)),
        "mean_train_count_shown": float(count[shown].mean()),
        "mean_train_count_relevant": float(count[relevant.items].mean()),
    }
    return rows, figures


def _data(data: Dataset) -> dict[str, float]:
    """What may make numbers too good, or items indistinguishable."""
    keys = {
        name: getattr(data, name).users * data.n_items + getattr(data, name).items
        for name in ("train", "valid", "test")
    }
    shared = sum(
        int(torch.isin(keys[a], keys[b]).sum()) for a, b in (("train", "valid"), ("train", "test"), ("valid", "test"))
    )
    out: dict[str, float] = {"pairs_in_two_splits": shared}
    out |= {name: number for name, number in data.report.items() if number}
    count = torch.bincount(data.train.items, minlength=data.n_items)
    out["test_pairs_of_items_without_train"] = int((count[data.test.items] == 0).sum())
    for m, rows in data.features.items():
        out[f"{m}_items_with_features_of_another"] = rows.shape[0] - len(groups(rows))
        out[f"{m}_items_without_features"] = int((rows == 0).all(dim=1).sum())
    return out


def findings(a: Audit) -> list[str]:
    """What a reader should know, in words, from the figures alone."""
    out = []
    for row in a.content:
        of, sure = " and ".join(row["of"]), row["p"] < LEVEL
        change = f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}, p {row['p']:.3g})"
        if sure and row["difference"] < 0:
            out.append(f"content matters: with {of} {row['change']}, recall@{a.k} changes by {change}")
        elif sure:
            out.append(f"content harms: with {of} {row['change']}, recall@{a.k} rises by {change}")
        elif row["overlap"] >= UNMOVED_LISTS:
            out.append(
                f"content hardly matters: with {of} {row['change']}, lists stay {row['overlap']:.1%} the same and "
                f"recall@{a.k} changes by {change}"
            )
    for gate in a.gates:
        for side, does in (("open", "passes all"), ("closed", "passes nothing")):
            if gate[side] >= SATURATED:
                out.append(f"gate {gate['gate']} {does}: {gate[side]:.1%} of its values are {_beyond(side)}")
        if gate["open"] + gate["closed"] >= SATURATED > max(gate["open"], gate["closed"]):
            share = gate["open"] + gate["closed"]
            out.append(f"gate {gate['gate']} only switches: {share:.1%} of its values are beyond {CLOSED} or {OPEN}")
    for name, value in a.attention.items():
        if "entropy" in name and value >= UNIFORM:
            out.append(f"{name} is {value:.3f} of the largest possible: attention is uniform and chooses nothing")
        elif "entropy" in name and value <= COLLAPSED:
            out.append(f"{name} is {value:.3f} of the largest possible: attention has collapsed on one dimension")
    for table in a.tables:
        if table["cosine"] >= STILL:
            out.append(
                f"the feature table of {table['modality']} has hardly moved (mean cosine with the raw features "
                f"{table['cosine']:.6f}): --freeze-features would spare its memory and its part of each step"
            )
    rows = {row["items"]: row for row in a.items}
    if rows and rows["tail"]["recall"] == 0.0:
        out.append(f"no relevant item of the tail ({rows['tail']['relevant']:,} pairs) is in any list")
    if a.popularity.get("overlap_with_popular", 0) >= 0.5:
        out.append(
            f"{a.popularity['overlap_with_popular']:.0%} of the places hold the items that are popular with everyone"
        )
    for name, number in a.data.items():
        leak = name == "pairs_in_two_splits" or name.endswith("features_of_another")
        if leak and number:
            out.append(f"{name.replace('_', ' ')}: {number:,.0f}")
    if (ties := a.data["users_with_ties_at_the_cut"]) > 0.01:
        out.append(
            f"{ties:.1%} of the users have equal scores at rank {a.k} and the next: their lists depend on item numbers"
        )
    return out or ["nothing stands out"]


def _beyond(side: str) -> str:
    return f"above {OPEN}" if side == "open" else f"below {CLOSED}"
