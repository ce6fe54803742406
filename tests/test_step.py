"""The training step: as eager PyTorch takes it, in bfloat16 on request, and captured on a GPU."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from test_models import batch, config
from test_models import dataset as dataset  # the fixture
from torch.utils._python_dispatch import TorchDispatchMode

from smore_ext import SMORE, Batch, Dataset, LightGCN, LightGCNConfig
from smore_ext.models.contract import BACKENDS, distinct, padded_distinct
from smore_ext.training.optimizers import adam, set_rate
from smore_ext.training.step import WARM_UP, make_step


@pytest.mark.parametrize("nodes", [[7], [3, 3, 3], [9, 0, 4, 0, 9, 9, 2], list(range(50, 0, -1))])
def test_padded_nodes_are_the_distinct_ones(nodes: list[int], device: torch.device) -> None:
    ids = torch.tensor(nodes, device=device)
    values, place = padded_distinct(ids)
    exact_values, exact_place = ids.unique(return_inverse=True)
    n = len(exact_values)
    assert values.shape == ids.shape and torch.equal(values[:n], exact_values) and torch.equal(place, exact_place)
    assert (values[n:] == exact_values[-1]).all()
    assert torch.equal(distinct(ids)[1], exact_place)


def triples(data: Dataset, seed: int, device: torch.device, size: int = 128) -> Batch:
    return Batch(*(ids[:size].to(device) for ids in batch(data, seed)))


def trained(model, steps: int, amp: bool = False, captured: bool = False, rates=(1e-2, 5e-3)) -> list[dict[str, float]]:
    """Losses of some steps; the rate changes half way and the last batch is smaller."""
    data, device = model.data, next(model.parameters()).device
    optimizer = adam(model, rates[0], fused=True, capturable=captured)
    step, losses = make_step(model, optimizer, amp, captured), []
    for number in range(steps):
        set_rate(optimizer, rates[number >= steps // 2])
        size = 128 if number % 5 < 4 else 77
        losses.append({k: v.item() for k, v in step(triples(data, number, device, size)).items()})
    return losses


@pytest.fixture(params=["SMORE", "LightGCN"])
def model(request: pytest.FixtureRequest, dataset: Dataset, device: torch.device):
    torch.manual_seed(2)
    if request.param == "SMORE":
        made = SMORE(dataset, config(modalities=("image", "text")))
    else:
        made = LightGCN(dataset, LightGCNConfig(16, 3, 0.01, 128))
    made.data = dataset
    return made.to(device)


def test_a_step_is_what_the_plain_loop_does(model) -> None:
    twin = copy.deepcopy(model)
    losses = trained(model, 4, rates=(1e-2, 1e-2))
    optimizer = adam(twin, 1e-2, fused=True)
    for number in range(4):
        optimizer.zero_grad()
        loss = twin.loss(*triples(twin.data, number, next(twin.parameters()).device))
        loss.backward()
        optimizer.step()
        assert losses[number]["loss"] == loss.item()
        assert set(losses[number]) == {"loss", *twin.loss_parts}
    for ours, plain in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, plain)


def test_bfloat16_stays_near_float32(model) -> None:
    twin = copy.deepcopy(model)
    for half, full in zip(trained(model, 6, amp=True), trained(twin, 6), strict=True):
        assert half["loss"] == pytest.approx(full["loss"], rel=0.02) and half["loss"] != full["loss"]
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_amp_narrows_graph_products_and_not_the_losses(dataset: Dataset, device: torch.device, monkeypatch) -> None:
    model, native = SMORE(dataset, config(modalities=("image", "text"))).to(device), BACKENDS["native"]
    model.data, seen = dataset, {"propagate": set(), "bpr_loss": set(), "info_nce": set()}

    def spy(name: str):
        function = getattr(native, name)

        def call(*args, **named):
            result = function(*args, **named)
            seen[name].add(result.dtype if name == "propagate" else args[0].dtype)
            return result

        monkeypatch.setattr(native, name, call)

    for name in seen:
        spy(name)
    trained(model, 1, amp=True)
    assert seen == {"propagate": {torch.bfloat16}, "bpr_loss": {torch.float32}, "info_nce": {torch.float32}}


def test_a_rate_on_the_device_is_set_in_place() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(3))]
    optimizer = torch.optim.Adam(parameters, lr=torch.tensor(1e-3))
    rate = optimizer.param_groups[0]["lr"]
    set_rate(optimizer, 0.5)
    assert optimizer.param_groups[0]["lr"] is rate and rate.item() == 0.5
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    set_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] == 0.25


def test_captured_steps_give_the_bits_of_eager_ones(model, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a GPU (--device cuda)")
    twin = copy.deepcopy(model)
    steps = 3 * WARM_UP + 8
    assert trained(model, steps, captured=True) == trained(twin, steps)
    for captured, eager in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(captured, eager)


def test_the_models_say_whether_they_can_be_captured(model) -> None:
    assert model.capturable
    model.config.backend = "reference"
    assert not model.capturable


class Calls(TorchDispatchMode):
    """Counts the ops that a block runs, but for views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op.name().partition(".")[0]
        if not op.is_view and not name.startswith(("profiler::", "aten::empty", "aten::detach")):
            self.of[name] += 1
        return op(*args, **(kwargs or {}))


def test_a_step_of_smore_is_few_ops(dataset: Dataset) -> None:
    """195 before side information and gathered rows were ops: on a GPU each is a kernel or several."""
    model = SMORE(dataset, config(modalities=("image", "text"), dropout=0.1))
    step = make_step(model, adam(model, 1e-2, fused=True), False, False)
    step(triples(dataset, 0, torch.device("cpu")))
    with Calls() as calls:
        step(triples(dataset, 1, torch.device("cpu")))
    assert sum(calls.of.values()) <= 145
    for gone in ("embedding", "embedding_dense_backward", "_softmax", "bernoulli_"):
        assert calls.of[f"aten::{gone}"] == 0
    assert calls.of["smore_ext::modality_preference"] == calls.of["smore_ext::modality_preference_backward"] == 1
