"""Spectral ops, losses and the step on a feature table."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from benchmarks import floors
from benchmarks.ceilings import Floor
from benchmarks.inputs import FEATURE_WIDTHS, SIZES, WIDTH, shrunk, size_of
from benchmarks.interleave import Case, Comparison, Contender, Setting
from benchmarks.op_contenders import arguments, both, op_comparison
from benchmarks.peers import eager_preference, scipy_fusion
from smore_ext import ops, reference
from smore_ext.models import FactoredAdam, TableLinear
from smore_ext.testing.cases import (
    Args,
    OpCase,
    bpr_case,
    counted_case,
    dropout_case,
    filter_case,
    fusion_case,
    gather_case,
    keys_case,
    nce_case,
    preference_case,
    row_logsumexp_case,
)

FUSION_ROWS = (*(SIZES[name].items for name in ("baby", "clothing", "elec")), 250_000)
FILTER_WIDTHS = (32, 48, 63, 64, 96, 100, 127, 128, 256, 512)
KEPT_ROWS, KEPT = 20_000, {64: (4, 8, 16, 24), 128: (4, 16, 32, 48), 512: (4, 16, 48, 64)}
BATCH = 8
PHASES = {"forward": False, "forward + backward": True}


def fusion(rows: int, phase: str) -> Case:
    def make(setting: Setting) -> Comparison:
        n, backward = shrunk(rows, setting.shrink), PHASES[phase]
        peers = {"torch.fft": reference}
        if not backward:
            peers["scipy.fft"] = SimpleNamespace(spectrum_fusion=scipy_fusion(setting.threads))
        floor = floors.fusion(n, WIDTH, 2, backward)
        return op_comparison(fusion_case(2, n, WIDTH), peers, lambda _: floor, backward, setting.device)

    return Case(f"spectrum_fusion, {phase}", f"N = {rows:,}", make, quick=rows < 30_000)


def spectral_filter(width: int, phase: str) -> Case:
    def make(setting: Setting) -> Comparison:
        n, backward = shrunk(SIZES["clothing"].items, setting.shrink), PHASES[phase]
        floor = floors.spectral_filter(n, width, backward)
        peers = {"torch.fft": reference}
        return op_comparison(filter_case(n, width), peers, lambda _: floor, backward, setting.device)

    return Case(f"spectral_filter, {phase}", f"d = {width}", make, quick=width in (64, 100))


def kept_frequencies(width: int, keep: int) -> Case:
    """The lowest frequencies only, against all: where they are too many to skip work, both take the same way."""

    def make(setting: Setting) -> Comparison:
        case = filter_case(shrunk(KEPT_ROWS, setting.shrink), width, keep)
        args = arguments(case, True, setting.device)
        rows = len(args[0])
        peers = {"own, all frequencies": Contender(both(case, ops, args[:2]))}
        floor = floors.kept_frequencies(rows, width, keep)
        return Comparison(Contender(both(case, ops, args)), peers, floor)

    return Case("spectral_filter of few frequencies, forward + backward", f"d = {width}, n = {keep}", make, keep == 16)


def filter_batch(rows: int) -> Case:
    """[8, N, d] against the same rows as [8 N, d]."""

    def make(setting: Setting) -> Comparison:
        n = shrunk(rows, setting.shrink)
        case = filter_case((BATCH, n), WIDTH)
        args = arguments(case, True, setting.device)
        flat = [args[0].detach().view(BATCH * n, WIDTH).requires_grad_(), args[1]]
        peers = {"own, rows in one": Contender(both(case, ops, flat))}
        floor = floors.spectral_filter(BATCH * n, WIDTH, True)
        return Comparison(Contender(both(case, ops, args)), peers, floor)

    return Case("spectral_filter of a batch, forward + backward", f"{BATCH} x {rows:,}", make, quick=True)


def fused_only(rows: int) -> Case:
    """The fusion without filters of its arrays, as a model without filters needs it."""

    def make(setting: Setting) -> Comparison:
        n = shrunk(rows, setting.shrink)
        case, filtered = fusion_case(2, n, WIDTH, filtered=False), fusion_case(2, n, WIDTH)
        args = arguments(case, True, setting.device)
        peers = {
            "own, filtered too": Contender(both(filtered, ops, arguments(filtered, True, setting.device))),
            "torch.fft": Contender(both(case, reference, args)),
        }
        return Comparison(Contender(both(case, ops, args)), peers, floors.fusion(n, WIDTH, 2, True, filtered=False))

    return Case("spectrum_fusion, fused only, forward + backward", f"N = {rows:,}", make)


def loss(row: str, batch: int, op_case: Callable[[int, int], OpCase], floor: Callable[[Args, int], Floor]) -> Case:
    def make(setting: Setting) -> Comparison:
        n = shrunk(batch, setting.shrink)
        case = op_case(n, setting.shrink)
        return op_comparison(case, {"eager torch": reference}, lambda args: floor(args, n), True, setting.device)

    return Case(f"{row}, forward + backward", f"batch {batch:,}", make, quick=batch == 2048)


def info_nce(batch: int) -> Case:
    return loss("info_nce", batch, lambda n, _: nce_case(n, WIDTH, 0.2), lambda _, n: floors.info_nce(n, WIDTH))


def info_nce_counted(batch: int) -> Case:
    """A batch that has each pair of rows once or twice, 1.5 times in the mean."""

    def repeated(x: Tensor, y: Tensor, temperature: float, keys: None, reduction: str, counts: Tensor) -> Tensor:
        return ops.info_nce(x.repeat_interleave(counts, 0), y.repeat_interleave(counts, 0), temperature)

    def make(setting: Setting) -> Comparison:
        n = 2 * shrunk(batch, setting.shrink) // 3
        peers = {"eager torch": reference, "own, rows repeated": SimpleNamespace(info_nce=repeated)}
        case = counted_case(n, WIDTH, 0.2, most=2)
        return op_comparison(case, peers, lambda _: floors.info_nce(n, WIDTH), True, setting.device)

    return Case("info_nce of counts, forward + backward", f"batch {batch:,}", make, quick=batch == 2048)


def items_as_keys(batch: int) -> Case:
    """A batch against all items of Baby, with a learned temperature, as LGMRec has it."""

    def make(n: int, shrink: int) -> OpCase:
        return keys_case(n, size_of("baby", shrink)[1], WIDTH, 0.2, "mean")

    return loss("info_nce with keys", batch, make, lambda args, n: floors.score_sums(n, len(args[3]), WIDTH))


def full_softmax(batch: int) -> Case:
    """The normaliser of a softmax over all items of Baby."""

    def make(n: int, shrink: int) -> OpCase:
        return row_logsumexp_case(n, size_of("baby", shrink)[1], WIDTH, 0.5)

    return loss("row_logsumexp", batch, make, lambda args, n: floors.score_sums(n, len(args[1]), WIDTH))


def dropout(rows: int) -> Case:
    """Against torch's own, whose generator draws one number after the other."""

    def make(setting: Setting) -> Comparison:
        case = dropout_case(shrunk(rows, setting.shrink), WIDTH, p=0.5)
        args = arguments(case, True, setting.device)
        torchs = SimpleNamespace(dropout=lambda x, p, seed, offset: nn.functional.dropout(x, p))
        peers = {"torch dropout": Contender(both(case, torchs, args))}
        return Comparison(Contender(both(case, ops, args)), peers, floors.dropout(args[0].numel()))

    return Case("dropout, forward + backward", f"{rows:,} x {WIDTH}", make, quick=rows < 30_000)


def gather_rows(batch: int) -> Case:
    """Rows of two tables of all nodes of Baby, as InfoNCE takes them."""

    def make(setting: Setting) -> Comparison:
        n, rows = shrunk(batch, setting.shrink), sum(size_of("baby", setting.shrink)[:2])
        case = gather_case(rows, n, WIDTH, WIDTH)
        floor = floors.gather_rows(rows, n, 2 * WIDTH)
        return op_comparison(case, {"F.embedding": reference}, lambda _: floor, True, setting.device)

    return Case("gather_rows, forward + backward", f"batch {batch:,}", make, quick=batch == 2048)


def modality_preference(rows: int) -> Case:
    """The nodes of a batch, two modalities, dropout as published; the peer draws with torch's generator."""

    def make(setting: Setting) -> Comparison:
        n = shrunk(rows, setting.shrink)
        case = preference_case(n, 2, WIDTH, p=0.1)
        args = arguments(case, True, setting.device)
        eager = Contender(both(case, SimpleNamespace(modality_preference=eager_preference), args))
        return Comparison(
            Contender(both(case, ops, args)), {"eager torch": eager}, floors.modality_preference(n, 2, WIDTH)
        )

    return Case("modality_preference, forward + backward", f"R = {rows:,}", make, quick=rows < 10_000)


def bpr_loss(batch: int) -> Case:
    """Baby's users and items; the gradients of both tables are dense, as autograd gives them."""
    return loss(
        "bpr_loss",
        batch,
        lambda n, shrink: bpr_case(*size_of("baby", shrink)[:2], WIDTH, n),
        lambda args, n: floors.bpr_loss(len(args[0]) + len(args[1]), n, WIDTH),
    )


def table_training(
    linear: nn.Linear, table: nn.Parameter, optimizer: torch.optim.Adam, grad: torch.Tensor
) -> Contender:
    def step() -> None:
        optimizer.zero_grad()
        linear(table).backward(grad)
        optimizer.step()

    return Contender(step)


def feature_table(rows: int) -> Case:
    """Linear forward, backward and Adam on a trained table, image features' width."""

    def make(setting: Setting) -> Comparison:
        n, width, device = shrunk(rows, setting.shrink), FEATURE_WIDTHS["image"], setting.device
        start, grad = torch.randn(n, width, device=device), torch.randn(n, WIDTH, device=device) / n

        def torch_adam(fused: bool) -> Contender:
            linear, table = nn.Linear(width, WIDTH).to(device), nn.Parameter(start.clone())
            options = {"fused": True} if fused else {}
            return table_training(linear, table, torch.optim.Adam([table, *linear.parameters()], **options), grad)

        linear, table = TableLinear(width, WIDTH).to(device), nn.Parameter(start.clone())
        native = table_training(linear, table, FactoredAdam([table, *linear.parameters()], [(table, linear)]), grad)
        peers = {"fused Adam": torch_adam(True), "default Adam": torch_adam(False)}
        return Comparison(native, peers, floors.table_step(n, width, WIDTH))

    return Case("feature table step", f"N = {rows:,}", make, quick=rows < 10_000)


CASES = [
    *(fusion(rows, phase) for phase in PHASES for rows in FUSION_ROWS),
    *(spectral_filter(width, phase) for phase in PHASES for width in FILTER_WIDTHS),
    *(kept_frequencies(width, keep) for width, kept in KEPT.items() for keep in kept),
    *(filter_batch(rows) for rows in (1000, 7050)),
    *(fused_only(SIZES[name].items) for name in ("baby", "clothing")),
    *(info_nce(batch) for batch in (2048, 8192)),
    *(info_nce_counted(batch) for batch in (2048, 8192)),
    *(items_as_keys(batch) for batch in (512, 2048)),
    *(full_softmax(batch) for batch in (512, 2048)),
    *(dropout(sum(SIZES[name][:2])) for name in ("baby", "clothing")),
    *(gather_rows(batch) for batch in (2048, 8192)),
    *(modality_preference(rows) for rows in (5000, 32_768)),
    *(bpr_loss(batch) for batch in (2048, 8192)),
    *(feature_table(SIZES[name].items) for name in ("baby", "clothing")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dense(measure, case: Case) -> None:
    measure(case)
