"""Variants of SMORE that experiments train, and what is measured of them: equal to SMORE where they must be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from smore_ext.data import Dataset, SyntheticConfig, SyntheticTruth, generate
from smore_ext.data.rows import mean_cosine
from smore_ext.experiments.knockout import without_content_of
from smore_ext.experiments.probes import Trained, cosines, signal_to_noise, step_of
from smore_ext.experiments.studies import smore_probes, variants
from smore_ext.experiments.studies.frequencies import KEPT, kernel_times
from smore_ext.models.smore import SMORE, SMOREConfig
from smore_ext.runs import resolve
from smore_ext.training.optimizers import adam

ALL = [
    cls
    for cls in vars(variants).values()
    if isinstance(cls, type) and issubclass(cls, SMORE) and cls not in (SMORE, variants.BandFilter, variants._Kept)
]
CONFIG = SyntheticConfig(n_users=40, n_items=50, n_interactions=300, noise=2.0)


@pytest.fixture(scope="module")
def planted() -> tuple[Dataset, SyntheticTruth]:
    return generate(CONFIG)


def made(cls: type[SMORE], dataset: Dataset, **settings: Any) -> SMORE:
    torch.manual_seed(0)
    return cls(dataset, SMOREConfig(n_ui_layers=2, knn_k=5, **settings))


def batch(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return dataset.train.users[:64], dataset.train.items[:64], dataset.train.items[64:128]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_variants_train(cls: type[SMORE], planted: tuple[Dataset, SyntheticTruth]) -> None:
    model = made(cls, planted[0])
    model.begin_epoch(3, torch.Generator().manual_seed(0))
    optimizer = adam(model, 1e-2, True, False)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model.loss(*batch(planted[0]))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    users, items = model.eval().embeddings()
    assert bool(users.isfinite().all() and items.isfinite().all())


def copied(model: SMORE, other: SMORE) -> SMORE:
    other.load_state_dict(model.state_dict(), strict=False)
    return other


@pytest.mark.parametrize("cls", ["RandomFilter", "ModalityDropout", "ClosableGates", "LearnedGraphs", "LearnedMask"])
def test_variants_are_smore_where_they_change_nothing(cls: str, planted: tuple[Dataset, SyntheticTruth]) -> None:
    plain = made(SMORE, planted[0]).eval()
    other = copied(plain, made(getattr(variants, cls), planted[0])).eval()
    with torch.no_grad():
        for name in ("openness", "share"):
            value = getattr(other, name, None)
            for part in (
                value.values() if isinstance(value, torch.nn.ParameterDict) else [value] if value is not None else []
            ):
                part.fill_(50.0)
        for ours, theirs in zip(plain.embeddings(), other.embeddings(), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def test_filters_of_other_kinds_are_filters(planted: tuple[Dataset, SyntheticTruth]) -> None:
    plain = made(SMORE, planted[0]).eval()
    with torch.no_grad():
        for weight in (*plain.filter.values(), plain.fusion_filter):
            weight[..., 1] = 0
    xs = [torch.randn(50, 64) for _ in range(2)]
    with torch.no_grad():
        for cls, settings in (
            (variants.RealFilter, {}), (variants.HighPass, {"spectral": 33}), (variants.ByEnergy, {"spectral": 33}),
        ):  # fmt: skip
            other = copied(plain, made(cls, planted[0], **settings)).eval()
            torch.testing.assert_close(other._fusion(xs), plain._fusion(xs))
        none = made(variants.Unfiltered, planted[0])
        assert torch.equal(none._fusion(xs)[0][0], xs[0])
        high = copied(plain, made(variants.HighPass, planted[0], spectral=4)).eval()
        energy = torch.fft.rfft(high._fusion(xs)[0][0]).abs().sum(0)
        assert float(energy[:29].max()) < 1e-4 < float(energy[29:].min())
        loud = torch.zeros(50, 33, dtype=torch.complex64)
        loud[:, 7] = 1.0
        tone = torch.fft.irfft(loud, n=64)
        one = made(variants.ByEnergy, planted[0], spectral=1)
        assert one.mask("image", tone).nonzero().flatten().tolist() == [7]


def test_parameters_of_denoisers_are_as_stated(planted: tuple[Dataset, SyntheticTruth]) -> None:
    from smore_ext.experiments.studies.denoisers import DENOISERS, PLAIN

    for label, (name, number) in DENOISERS.items():
        if label == PLAIN:
            continue
        cls = getattr(variants, name.partition(":")[2])
        model = made(cls, planted[0])
        own = sum(p.numel() for p in model.denoiser["text"].parameters())
        assert own == number, label
        assert not model.fusion_filter.requires_grad


def test_no_fusion_leaves_the_fused_view_out(planted: tuple[Dataset, SyntheticTruth]) -> None:
    model = made(variants.NoFusion, planted[0]).eval()
    behaviour, views = torch.randn(5, 64), torch.randn(5, 192)
    changed = views.clone()
    changed[:, 128:] = 7.0
    with torch.no_grad():
        assert torch.equal(model._side(behaviour, views), model._side(behaviour, changed))


def test_without_its_term_the_fused_view_still_steers_attention(planted: tuple[Dataset, SyntheticTruth]) -> None:
    model = made(variants.NoFusedTerm, planted[0]).eval()
    generator = torch.Generator().manual_seed(1)
    behaviour, views = torch.randn(5, 64, generator=generator), torch.randn(5, 192, generator=generator)
    changed = views.clone()
    changed[:, 128:] = torch.randn(5, 64, generator=generator)
    with torch.no_grad():
        *of_modalities, term = model._terms(behaviour, views).values()
        torch.testing.assert_close(model._side(behaviour, views), sum(of_modalities) / 2)
        assert not torch.equal(model._side(behaviour, views), model._side(behaviour, changed))
        assert term.abs().sum() > 0


# Probes: they see what is planted, and nothing where nothing is.


def test_signal_to_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(4000, 16, generator=generator)
    noise = [torch.randn(4000, 16, generator=generator) for _ in range(2)]
    for ratio in (0.0, 10.0, -10.0):
        scale = 10 ** (-ratio / 20)
        assert signal_to_noise(*(signal + scale * n for n in noise)) == pytest.approx(ratio, abs=0.4)
    assert signal_to_noise(signal, signal) > 200


@pytest.mark.parametrize("planted_filter", [True, False])
def test_denoising_is_seen(planted: tuple[Dataset, SyntheticTruth], planted_filter: bool) -> None:
    """With the planted projection, a filter that lets the signal's bins pass gains; one that lets all pass does not."""
    dataset, truth = planted
    model = made(SMORE, dataset)
    with torch.no_grad():
        for m in model.modalities:
            model.projection[m].weight.copy_(torch.from_numpy(truth.projections[m].T).float())
            model.projection[m].bias.zero_()
            model.filter[m].zero_()
            model.filter[m][0, :, 0] = 1.0
            if planted_filter:
                first, last = CONFIG.noise_bins
                model.filter[m][0, first : last + 1] = 0
    before = model.state_dict()["features.text"].clone()
    figures = smore_probes.denoising(Trained(model, dataset, truth, resolve({})))
    gain = figures["snr_denoised"] - figures["snr_projected"]
    assert gain > 30 if planted_filter else abs(gain) < 0.01
    assert figures["snr_raw"] == pytest.approx(-6, abs=1.5)  # noise 2
    assert torch.equal(model.state_dict()["features.text"], before)


def test_attention_is_seen(planted: tuple[Dataset, SyntheticTruth]) -> None:
    dataset, truth = planted
    model = made(SMORE, dataset)

    def asked() -> dict[str, Any]:
        return smore_probes.attention(Trained(model, dataset, truth, resolve({})))

    alive = asked()
    assert len(alive["entropy"]) == dataset.n_users and alive["overlap 1"] == 1.0
    assert alive["filter text"].shape == (2, 33)
    np.testing.assert_array_equal(alive["activity"].sum(), len(dataset.train.users))
    with torch.no_grad():
        for m in model.modalities:
            model.query[m][2].weight.zero_()
    dead = asked()
    assert dead["entropy"].min() > 0.9999 and dead["attention_variation"] == pytest.approx(0, abs=1e-9)
    assert alive["attention_variation"] > 0.001
    np.testing.assert_array_equal(dead["temperature 0.1"], dead["temperature 10"])


def test_preference_gates_are_scaled(planted: tuple[Dataset, SyntheticTruth]) -> None:
    """Gates that are one half whatever the temperature change no list; live ones do, and are as they were after."""
    dataset, truth = planted
    model = made(SMORE, dataset)
    linear = [gate[0] for gate in (*model.preference_gate.values(), model.fusion_preference_gate)]
    with torch.no_grad():
        for layer in linear:
            layer.weight.mul_(20)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    alive = smore_probes.preference_gates(Trained(model, dataset, truth, resolve({})))
    assert set(alive) == {f"gate {what} {t}" for what in ("temperature", "overlap") for t in ("0.1", "0.3", "3", "10")}
    assert alive["gate overlap 10"] < 1.0 and len(alive["gate temperature 10"]) == len(dataset.test.users.unique())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for layer in linear:
            layer.weight.zero_()
            layer.bias.zero_()
    dead = smore_probes.preference_gates(Trained(model, dataset, truth, resolve({})))
    assert dead["gate overlap 10"] == dead["gate overlap 0.1"] == 1.0


def test_entropy_and_variation() -> None:
    one, even = torch.eye(4), torch.full((4, 4), 0.25)
    assert smore_probes.relative_entropy(one).max() == 0
    assert smore_probes.relative_entropy(even).tolist() == pytest.approx([1.0] * 4)
    assert smore_probes.variation(even) == 0 and smore_probes.variation(one) == pytest.approx(0.75)


def test_gates_and_tables_are_read(planted: tuple[Dataset, SyntheticTruth]) -> None:
    dataset, truth = planted
    config = resolve({"n_ui_layers": 2, "knn_k": 5})
    model = made(SMORE, dataset)
    with torch.no_grad():
        list(model.preference_gate["image"].children())[0].bias.fill_(100.0)  # saturated
        model.features["text"] += torch.randn_like(model.features["text"])  # moved
    figures = smore_probes.gates_and_tables(Trained(model, dataset, truth, config))
    assert figures["open image"] == 1.0 > figures["open text"]
    assert figures["cosine image"] == pytest.approx(1.0) and figures["cosine text"] < 0.95
    assert 0.0 <= figures["overlap mismatched"] < 1.0


def test_a_share_of_the_content_is_exchanged(planted: tuple[Dataset, SyntheticTruth]) -> None:
    dataset, _ = planted
    config = resolve({"n_ui_layers": 2, "knn_k": 5})
    model = made(SMORE, dataset)
    other = without_content_of(model, dataset, config, ("image",), "exchanged", share=0.7)
    moved = (other.features["image"] != model.features["image"]).any(dim=1)
    assert int(moved.sum()) == round(0.7 * dataset.n_items)
    assert torch.equal(other.features["text"], model.features["text"])


def test_knocked_out_content_is_seen(planted: tuple[Dataset, SyntheticTruth]) -> None:
    dataset, truth = planted
    config = resolve({"model": "SMORE", "n_ui_layers": 2, "knn_k": 5})
    model = SMORE(dataset, config.model)
    figures = smore_probes.knocked_out(Trained(model, dataset, truth, config))
    assert {"recall removed all", "overlap exchanged text", "recall exchanged image"} <= figures.keys()
    assert 0 <= figures["overlap removed all"] < 1


def test_gates_are_read(planted: tuple[Dataset, SyntheticTruth]) -> None:
    model = made(variants.ClosableGates, planted[0])
    figures = smore_probes.gates_open(Trained(model, planted[0], None, resolve({})))
    assert figures["open"].tolist() == pytest.approx([0.8808, 0.8808], abs=1e-4)
    assert smore_probes.gates_open(Trained(made(SMORE, planted[0]), planted[0], None, resolve({}))) == {}


def test_quartiles() -> None:
    assert smore_probes.quartiles([4.0, 1.0, 3.0, 2.0]).tolist() == [3, 0, 2, 1]
    assert np.bincount(smore_probes.quartiles(np.zeros(9))).tolist() == [3, 2, 2, 2]


def test_mean_cosine() -> None:
    rows = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    by_hand = [float(unit[i] @ unit[j]) for i in range(20) for j in range(20) if i != j]
    assert mean_cosine(rows) == pytest.approx(np.mean(by_hand))
    assert mean_cosine(torch.ones(5, 3)) == pytest.approx(1.0)


def test_oversmoothing_is_seen(planted: tuple[Dataset, SyntheticTruth]) -> None:
    model = made(SMORE, planted[0])
    figures = cosines(Trained(model, planted[0], None, resolve({})))
    with torch.no_grad():
        model.user_embedding.weight.copy_(torch.ones(40, 64))
        model.item_embedding.weight.copy_(torch.ones(50, 64))
    smooth = cosines(Trained(model, planted[0], None, resolve({})))
    assert smooth["cosine_users"] > 0.5 > abs(figures["cosine_users"])


def test_a_step_is_measured(planted: tuple[Dataset, SyntheticTruth]) -> None:
    """What attention keeps for its backward pass comes on top of what the model without a denoiser keeps."""
    bytes_ = {}
    for cls in (variants.Unfiltered, variants.Attention):
        figures = step_of(Trained(made(cls, planted[0]), planted[0], None, resolve({"batch_size": 64})))
        bytes_[cls] = figures["step_bytes"]
        assert figures["step_seconds"] > 0
    assert bytes_[variants.Attention] > bytes_[variants.Unfiltered] > 0


def test_the_kernel_is_timed_by_frequencies() -> None:
    times = kernel_times(Trained(None, None, None, None))  # type: ignore[arg-type]
    assert times.keys() == {f"{way} {kept}" for way in ("forward", "both") for kept in (*KEPT, 33)}
    assert all(0 < times[f"forward {kept}"] < times[f"both {kept}"] for kept in (*KEPT, 33))
