"""The built-in data set: reproducible, and what its docstring says is planted is there."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from smore_ext.data import DatasetError, SyntheticConfig, builtin_dataset, generate

SMALL = {"n_users": 150, "n_items": 400, "n_interactions": 2000}


def spectrum(modality: str, config: SyntheticConfig) -> np.ndarray:
    """rfft of the projected signal, `[I, d // 2 + 1]`."""
    data, truth = generate(config)
    projected = data.features[modality].double().numpy() @ truth.projections[modality]
    return np.fft.rfft(projected, axis=1, norm="ortho")


def band_energy(values: np.ndarray, bins: tuple[int, int]) -> float:
    return float((np.abs(values[:, bins[0] : bins[1] + 1]) ** 2).sum())


def noise_of(modality: str, config: SyntheticConfig) -> np.ndarray:
    first, last = config.noise_bins
    return spectrum(modality, config)[:, first : last + 1]


def test_defaults() -> None:
    start = time.perf_counter()
    data = builtin_dataset()
    assert time.perf_counter() - start < 10  # well under 2 s on an idle machine
    config = SyntheticConfig()
    assert (data.name, data.n_users, data.n_items) == ("synthetic", config.n_users, config.n_items)
    assert {modality: f.shape for modality, f in data.features.items()} == {
        modality: (config.n_items, width) for modality, width in config.modalities.items()
    }
    total = sum(len(split.users) for split in (data.train, data.valid, data.test))
    assert total == pytest.approx(config.n_interactions, rel=0.05)
    assert data.report["users_without_train"] == 0
    assert not any(count for key, count in data.report.items() if key != "items_without_train")


def test_seed_decides_everything() -> None:
    first = builtin_dataset("synthetic", 1, **SMALL)
    assert builtin_dataset("synthetic", 1, **SMALL).fingerprint == first.fingerprint
    assert builtin_dataset("synthetic", 2, **SMALL).fingerprint != first.fingerprint


def test_blocks_of_users_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtin_dataset(**SMALL)
    monkeypatch.setattr("smore_ext.data.synthetic._BLOCK_VALUES", 7 * SMALL["n_items"])
    blocked = builtin_dataset(**SMALL)
    assert torch.equal(blocked.train.items, whole.train.items)


def test_split_is_80_10_10_within_each_user() -> None:
    data = builtin_dataset(**SMALL, min_user_interactions=7)
    train, valid, test = (
        torch.bincount(split.users, minlength=data.n_users) for split in (data.train, data.valid, data.test)
    )
    total = train + valid + test
    assert int(total.min()) >= 7 and int(train.min()) >= 1
    assert torch.equal(valid, test)
    assert torch.equal(valid, (total / 10).round().long().clamp(min=1))


def test_noise_options_leave_the_interactions_alone() -> None:
    plain = builtin_dataset(**SMALL)
    loud = builtin_dataset(**SMALL, noise=5.0, noise_correlation=0.5)
    assert torch.equal(plain.train.items, loud.train.items)
    assert torch.equal(plain.test.items, loud.test.items)
    assert plain.fingerprint != loud.fingerprint


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("modality", ["image", "text"])
def test_noise_is_in_its_bins_at_the_stated_strength(modality: str, noise: float) -> None:
    config = SyntheticConfig(**SMALL, noise=noise, signal_bins=(2, 9), noise_bins=(15, 20))
    values = spectrum(modality, config)
    everything = band_energy(values, (0, 32))
    signal, planted = band_energy(values, (2, 9)), band_energy(values, (15, 20))
    assert signal + planted == pytest.approx(everything, rel=1e-9)  # the float32 features leave 1e-14 elsewhere
    assert np.sqrt(planted / signal) == pytest.approx(noise, rel=0.05, abs=1e-6)


def test_mean_square_of_a_feature_is_one_plus_noise_squared() -> None:
    data = builtin_dataset(**SMALL, noise=2.0)
    for table in data.features.values():
        assert table.double().square().mean().item() == pytest.approx(5.0, rel=0.1)


def test_features_carry_the_tastes() -> None:
    data, truth = generate(SyntheticConfig(**SMALL, noise=0.0))
    tastes = truth.item_tastes / np.linalg.norm(truth.item_tastes, axis=1, keepdims=True)
    for table in data.features.values():  # the lift keeps every angle between items
        rows = table.double().numpy()
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(rows @ rows.T, tastes @ tastes.T, atol=1e-5)


@pytest.mark.parametrize("correlation", [0.0, 0.4, 1.0])
def test_noise_correlation_across_modalities(correlation: float) -> None:
    config = SyntheticConfig(**SMALL, noise_correlation=correlation)
    image, text = (noise_of(modality, config).view(np.float64).ravel() for modality in ("image", "text"))
    assert np.corrcoef(image, text)[0, 1] == pytest.approx(correlation, abs=0.05)


def test_choices_follow_tastes_and_popularity() -> None:
    config = SyntheticConfig(**SMALL)
    data, truth = generate(config)
    affinity = truth.user_tastes @ truth.item_tastes.T
    chosen = affinity[data.test.users.numpy(), data.test.items.numpy()]
    assert chosen.mean() > affinity.mean() + 0.5 * affinity.std()
    popular = truth.popularity[data.test.items.numpy()]
    assert popular.mean() > truth.popularity.mean() + 0.5 * truth.popularity.std()


@pytest.mark.parametrize("names", [{"only": 64}, {"a": 64, "b": 70, "c": 300}, {}])
def test_any_number_of_modalities(names: dict[str, int]) -> None:
    data = builtin_dataset(**SMALL, modalities=names)
    assert {modality: f.shape[1] for modality, f in data.features.items()} == names


def test_every_user_can_be_given_a_negative() -> None:
    data = builtin_dataset(n_users=40, n_items=30, n_interactions=600, activity_spread=3.0)
    counts = torch.bincount(data.train.users, minlength=40)
    assert int(counts.max()) < len(data.candidates)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"seed": -1}, "seed to be an integer of at least 0, got -1"),
        ({"n_users": 0}, "n_users to be an integer of at least 1, got 0"),
        ({"n_users": 2.5}, "n_users to be an integer of at least 1, got 2.5"),
        ({"n_items": 9}, "n_items to be an integer of at least 10, got 9"),
        ({"min_user_interactions": 2}, "min_user_interactions to be an integer of at least 3, got 2"),
        ({"n_interactions": 100}, "n_interactions to be an integer from 10000"),
        ({"n_interactions": 10**9}, "n_interactions to be an integer from 10000"),
        ({"noise": -0.1}, "noise to be a finite number of at least 0, or one of each modality (image, text), got -0.1"),
        (
            {"noise": float("nan")},
            "noise to be a finite number of at least 0, or one of each modality (image, text), got nan",
        ),
        (
            {"noise": "loud"},
            "noise to be a finite number of at least 0, or one of each modality (image, text), got 'loud'",
        ),
        ({"taste_strength": float("inf")}, "taste_strength to be a finite number"),
        ({"noise_correlation": 1.5}, "noise_correlation to be between 0 and 1, got 1.5"),
        (
            {"signal_bins": (0, 4)},
            "signal_bins to be (first, last) with 1 <= first <= last <= 31, got (0, 4)",
        ),
        ({"signal_bins": (1, 4)}, "n_tastes to be at most 8, two a signal bin, got"),
        (
            {"noise_bins": (20, 32)},
            "noise_bins to be (first, last) with 1 <= first <= last <= 31, got (20, 32)",
        ),
        ({"noise_bins": (20, 18)}, "noise_bins to be (first, last)"),
        ({"noise_bins": 3}, "noise_bins to be (first, last)"),
        ({"modalities": {"image": 63}}, "modalities to be {name: width}"),
        ({"modalities": ["image"]}, "modalities to be {name: width}"),
        ({"projected_dim": 3}, "projected_dim to be an integer of at least 4, got 3"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        builtin_dataset(**options)
    assert f"synthetic data: expected {message}" in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(DatasetError, match="unknown option 'noise_band'; did you mean 'noise_bins'"):
        builtin_dataset(noise_band=(1, 2))
    with pytest.raises(DatasetError, match=r"expected a built-in data set \(synthetic\), got 'movies'"):
        builtin_dataset("movies")


def test_lists_are_taken_for_bins() -> None:
    assert SyntheticConfig(signal_bins=[2, 20]).signal_bins == (2, 20)


def test_the_first_numbers_are_those_of_the_first_version() -> None:
    """Options added since draw from streams of their own: the built-in data set is the one that results are of."""
    assert builtin_dataset().fingerprint.startswith("60b2017d49de1658")


def test_signal_and_noise_are_the_features() -> None:
    data, truth = generate(SyntheticConfig(**SMALL, noise={"image": 2.0, "text": 0.0}))
    for m, table in data.features.items():
        np.testing.assert_allclose(table.numpy(), truth.signal[m] + truth.noise[m], rtol=1e-5, atol=1e-6)
        strength = np.sqrt((truth.noise[m] ** 2).mean() / (truth.signal[m] ** 2).mean())
        assert strength == pytest.approx({"image": 2.0, "text": 0.0}[m], rel=0.1)


def test_items_without_features_are_rows_of_zeros() -> None:
    whole, _ = generate(SyntheticConfig(**SMALL))
    data, truth = generate(SyntheticConfig(**SMALL, missing=0.4))
    assert torch.equal(data.train.items, whole.train.items)
    for m, table in data.features.items():
        gone = torch.from_numpy(truth.missing[m])
        assert gone.double().mean() == pytest.approx(0.4, abs=0.1)
        assert not table[gone].any() and torch.equal(table[~gone], whole.features[m][~gone])
    assert not np.array_equal(truth.missing["image"], truth.missing["text"])


def test_pure_users_lean_to_one_taste() -> None:
    _, truth = generate(SyntheticConfig(**SMALL, taste_purity=1.0))
    largest = (truth.user_tastes**2).max(axis=1) / (truth.user_tastes**2).sum(axis=1)
    pure, mixed = truth.purity > 0.8, truth.purity < 0.2
    assert largest[pure].mean() > 0.75 > 0.5 > largest[mixed].mean()
    assert not generate(SyntheticConfig(**SMALL))[1].purity.any()


def test_noise_names_every_modality() -> None:
    with pytest.raises(DatasetError, match=r"or one of each modality \(image, text\), got \{'image': 1.0\}"):
        SyntheticConfig(noise={"image": 1.0})
