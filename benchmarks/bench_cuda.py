"""The same cases on a CUDA device; skipped, with the reason, where there is none. SMORE_BENCH_DEVICE=cpu: smoke form.

Contenders take turns as on the CPU. A measurement is several calls in a row with a wait for the device before and after
(`interleave.queued`): the host launches ahead as it does in real use, so launching counts where it is what limits. The
training step is ours as the trainer runs it, captured as a CUDA graph. float32 products are in full float32 throughout.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from benchmarks import device as devices
from benchmarks import floors
from benchmarks.bench_dense import (
    FILTER_WIDTHS,
    PHASES,
    bpr_loss,
    feature_table,
    fusion,
    gather_rows,
    info_nce,
    kept_frequencies,
    modality_preference,
    spectral_filter,
)
from benchmarks.bench_items import masked_topk, sample_negatives
from benchmarks.bench_sparse import GRAPHS, gated, narrow_rows, poly_filter, propagate, spmm, weighted
from benchmarks.inputs import FEATURE_WIDTHS, PUBLISHED, SIZES, dataset, published_config, shrunk, size_of
from benchmarks.interleave import Case, Comparison, Contender, Setting, queued
from benchmarks.op_contenders import op_comparison
from benchmarks.peers import blocked_knn, sparse_backend
from benchmarks.training import as_trained, make_step, step_floor
from smore_ext import Dataset, SMOREConfig, backends, build_info, reference
from smore_ext.models.contract import BACKENDS
from smore_ext.testing.cases import knn_case
from smore_ext.training.device import usable_device

WHY_NOT = devices.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

LARGE, K = 200_000, 40
FUSION_ROWS = (SIZES["baby"].items, SIZES["clothing"].items, LARGE)
FUSED_WIDTHS = (32, 48, 63, 64, 128, 256, 512)  # of FILTER_WIDTHS those that have kernels on the chip
COMPILE_MODES = ("reduce-overhead", "default")  # the first that works


def on_device(case: Case, *peers: str, row: str | None = None, captured: bool = False) -> Case:
    """A case against these of its peers, measured on `setting.device`.

    captured: ours replays a CUDA graph, whose memory is held all the time: a peak would say nothing.
    """

    def make(setting: Setting) -> Comparison:
        comparison = case.make(setting)
        kept = {name: comparison.peers[name] for name in peers}
        native = queued(comparison.native, setting.device)
        return replace(
            comparison,
            native=replace(native, peak_mb=None) if captured else native,
            peers={name: peer and queued(peer, setting.device) for name, peer in kept.items()},
        )

    return Case(f"CUDA {row or case.row}", case.size, make, case.quick)


def fusion_by_size(rows: int, phase: str) -> Case:
    size = "large" if rows == LARGE else "small"
    return on_device(fusion(rows, phase), "torch.fft", row=f"spectrum_fusion {size}, {phase}")


def cufft_path() -> AbstractContextManager[None]:
    """Spectral ops by way of cuFFT; nothing changes in a build without CUDA kernels, which has no such choice."""
    return backends.spectral_path("cufft") if build_info()["cuda"] else nullcontext()


def filter_paths(width: int) -> Case:
    case = spectral_filter(width, "forward")
    if width not in FUSED_WIDTHS:
        return on_device(case, "torch.fft")

    def make(setting: Setting) -> Comparison:
        comparison = case.make(setting)
        other = replace(comparison.native, context=cufft_path)
        return replace(comparison, peers=comparison.peers | {"own cuFFT path": other})

    return on_device(replace(case, make=make), "torch.fft", "own cuFFT path")


def products_of_bytes() -> AbstractContextManager[None]:
    """knn by candidates of products of bytes; nothing changes in a build without CUDA kernels."""
    return backends.knn_products("int8") if build_info()["cuda"] else nullcontext()


def knn(rows: int) -> Case:
    """Against itself by products of bytes, all similarities at once with topk, and these similarities alone."""

    def make(setting: Setting) -> Comparison:
        n, width = shrunk(rows, setting.shrink), FEATURE_WIDTHS["image"]
        peers = {"torch mm + topk": SimpleNamespace(knn=partial(blocked_knn, block=n))}
        comparison = op_comparison(knn_case(n, width, K), peers, lambda _: floors.knn(n, width), False, setting.device)
        unit = F.normalize(torch.randn(n, width, device=setting.device), dim=1)
        similarity = torch.empty(n, n, device=setting.device)
        alone = Contender(lambda: torch.mm(unit, unit.T, out=similarity))
        by_bytes = replace(comparison.native, context=products_of_bytes)
        return replace(
            comparison, peers=comparison.peers | {"torch mm alone": alone, "own products of bytes": by_bytes}
        )

    peers = "torch mm + topk", "torch mm alone", "own products of bytes"
    return on_device(Case("knn", f"N = {rows:,}, k = {K}", make), *peers)


def compiled_step(data: Dataset, config: SMOREConfig, device: torch.device) -> tuple[Contender | None, str]:
    """The published structure with torch.compile and fused Adam, and what exactly that was; None: it did not compile.

    Sparse tensors are not supported by torch.compile, so their products are left as they are.
    """
    BACKENDS["coo apart"] = sparse_backend(torch.compiler.disable(reference.spmm))
    failures = []
    for mode in COMPILE_MODES:
        model, _, step = make_step(data, config, "coo apart", True, device)
        model.loss = torch.compile(model.loss, mode=mode)

        def marked(step=step) -> None:
            torch.compiler.cudagraph_mark_step_begin()
            step()

        try:
            for _ in range(3):
                marked()
            devices.synchronize(device)
        except Exception as error:  # whatever a compiler raises, the other contenders are still worth timing
            failures.append(f"{mode}: {type(error).__name__}: {str(error).strip().splitlines()[:1]}")
            torch._dynamo.reset()
            continue
        what = f"torch.compile, mode {mode}, of all but the sparse products; fused Adam"
        return Contender(marked), "; ".join([what, *(f"failed: {failure}" for failure in failures)])
    return None, "torch.compile failed: " + "; ".join(failures)


def training_step(name: str) -> Case:
    def make(setting: Setting) -> Comparison:
        size, config = size_of(name, setting.shrink), published_config(name)
        data = dataset(size, config.knn_k)
        model, _, native = make_step(data, config, "native", True, setting.device)
        compiled, what = compiled_step(data, config, setting.device)
        peers = {
            "published": Contender(make_step(data, config, "reference", False, setting.device)[2]),
            "compiled, fused Adam": compiled,
        }
        notes = {"compiled, fused Adam": what}
        return Comparison(Contender(native, as_trained), peers, step_floor(model, size), notes)

    case = Case(f"training step, {name}", f"{SIZES[name].items:,} items", make)
    return on_device(case, "published", "compiled, fused Adam", captured=True)


CASES = [
    *(fusion_by_size(rows, phase) for phase in PHASES for rows in FUSION_ROWS),
    *(filter_paths(width) for width in FILTER_WIDTHS),
    *(on_device(kept_frequencies(width, keep), "own, all frequencies") for width in (48, 100, 384) for keep in (8, 16)),
    *(on_device(spmm(name, False), "torch CSR", "torch COO") for name in GRAPHS),
    *(on_device(propagate(size), "own spmm", "torch CSR", "torch COO") for size in PUBLISHED),
    *(on_device(narrow_rows(size), "own float32") for size in PUBLISHED),
    *(on_device(weighted(size), "own constant weights", "embedding_bag") for size in PUBLISHED),
    *(on_device(poly_filter(size), "own spmm", "torch CSR, stored transpose") for size in PUBLISHED),
    *(on_device(gated(f"knn10 {size}"), "own spmm, gated before", "torch CSR") for size in PUBLISHED),
    knn(SIZES["clothing"].items),
    *(on_device(masked_topk(size), "torch matmul + mask + topk") for size in ("baby", "sports", "elec")),
    *(on_device(sample_negatives(size), "vectorised torch") for size in PUBLISHED),
    *(on_device(info_nce(batch), "eager torch") for batch in (2048, 8192)),
    *(on_device(bpr_loss(batch), "eager torch") for batch in (2048, 8192)),
    *(on_device(gather_rows(batch), "F.embedding") for batch in (2048, 8192)),
    *(on_device(modality_preference(rows), "eager torch") for rows in (5000, 32_768)),
    *(on_device(feature_table(SIZES[name].items), "fused Adam", "default Adam") for name in ("baby", "clothing")),
    *(training_step(name) for name in ("baby", "clothing")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuda(measure, case: Case) -> None:
    measure(case, usable_device(str(devices.chosen())))
