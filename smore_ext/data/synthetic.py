"""The built-in data set: generated from a seed, with planted structure that makes the paper's claim testable.

Construction (`d` = `projected_dim`, bins are those of `rfft` over `d` values with `norm="ortho"`):

1. Every user and item has a taste vector of `n_tastes` normal numbers. A user chooses items without
   replacement with probability proportional to
   `exp(taste_strength * <user, item> / sqrt(n_tastes)) * rank^-popularity`: a taste part, and a long tail of
   popularity that features know nothing of. With `taste_purity` a user's taste leans to one of the `n_tastes`:
   the vector is `sqrt(1 - p) * normal + sqrt(p * n_tastes) * s * e_j` with a sign s and a dimension j of the user's
   own, and p drawn evenly from 0 to `taste_purity`.
2. Modality `m` holds the item's tastes as a signal of `d` values: a fixed orthonormal map takes the tastes
   to the complex coefficients of `signal_bins`; all other bins are zero. Each modality has its own map.
3. Noise is a random signal in `noise_bins` only, drawn anew for every item. Its energy is `noise^2` times
   the signal's; `noise_correlation` is the correlation of two modalities' noise (1: the same noise in all
   of them).
4. `features = (signal + noise) @ P_m`, where `P_m` `[d, D_m]` has orthogonal rows: similarities between
   items are the same before and after, and `signal + noise` is the linear projection
   `features @ pinv(P_m)`.
5. A share `missing` of the items, chosen anew in each modality, has no features: rows of zeros, as real folders have.

"Projected signal" means that projection: the one with which a denoising filter is trivial (keep the signal
bins, drop the noise bins). A model learns its own projection and may do as well with another basis;
:func:`generate` gives the planted one, and the tastes, for experiments that want to compare.

The numbers are the same for the same numpy version and seed; another CPU or BLAS may move a feature's last
bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from smore_ext.data.dataset import Dataset, DatasetError, Pairs
from smore_ext.registry import did_you_mean

_BLOCK_VALUES = 8_000_000  # user x item scores held at once


@dataclass(frozen=True)
class SyntheticConfig:
    """Every knob of the built-in data set; docs/spec.md, section 6 names what the noise and modality knobs are for."""

    seed: int = 0
    n_users: int = 2000
    n_items: int = 2000
    n_interactions: int = 16_000  # about: the share of each user is rounded
    min_user_interactions: int = 5  # at least 3, so that every split gets one
    activity_spread: float = 0.6  # sigma of the log-normal activity of users
    n_tastes: int = 12
    taste_strength: float = 3.0  # 0: choices follow popularity only
    popularity: float = 0.8  # exponent of the long tail; 0: all items alike
    # name: width D_m
    modalities: Mapping[str, int] = field(default_factory=lambda: {"image": 128, "text": 96})
    projected_dim: int = 64
    signal_bins: tuple[int, int] = (1, 12)  # first and last, both included
    noise_bins: tuple[int, int] = (18, 31)
    noise: float | Mapping[str, float] = 1.0  # noise over signal, root mean square; of all modalities or of each
    noise_correlation: float = 0.0  # between the noise of two modalities, 0 to 1
    missing: float = 0.0  # share of the items without features, in each modality
    taste_purity: float = 0.0  # largest share of a user's taste that lies in one dimension, 0 to 1

    def __post_init__(self) -> None:
        """Raises DatasetError that names the option, what it must be and what it is."""
        for name, least in (("seed", 0), ("n_users", 1), ("n_tastes", 1), ("min_user_interactions", 3)):
            self._require(_is_integer(getattr(self, name), least), name, f"an integer of at least {least}")
        self._require(_is_integer(self.projected_dim, 4), "projected_dim", "an integer of at least 4")
        # a user may take up to half of the items: enough are left to draw negatives from
        least = 2 * self.min_user_interactions
        self._require(_is_integer(self.n_items, least), "n_items", f"an integer of at least {least}")
        least, most = self.n_users * self.min_user_interactions, self.n_users * (self.n_items // 2)
        self._require(
            _is_integer(self.n_interactions, least) and self.n_interactions <= most,
            "n_interactions",
            f"an integer from {least} (n_users * min_user_interactions) to {most} (n_users * n_items / 2)",
        )
        for name in ("activity_spread", "taste_strength", "popularity"):
            self._require(_is_number(getattr(self, name)), name, "a finite number of at least 0")
        for name in ("noise_correlation", "missing", "taste_purity"):
            value = getattr(self, name)
            self._require(_is_number(value) and value <= 1, name, "between 0 and 1")
        last = (self.projected_dim - 1) // 2
        for name in ("signal_bins", "noise_bins"):
            bins = getattr(self, name)
            self._require(
                isinstance(bins, (tuple, list))
                and len(bins) == 2
                and all(_is_integer(b, 1) for b in bins)
                and bins[0] <= bins[1] <= last,
                name,
                # bins 0 and d/2 are real: half of what is planted there would be lost
                f"(first, last) with 1 <= first <= last <= {last}",
            )
            object.__setattr__(self, name, tuple(bins))  # YAML gives lists
        room = 2 * _n_bins(self.signal_bins)
        self._require(self.n_tastes <= room, "n_tastes", f"at most {room}, two a signal bin")
        self._require(
            isinstance(self.modalities, Mapping)
            and all(isinstance(m, str) and _is_integer(w, self.projected_dim) for m, w in self.modalities.items()),
            "modalities",
            f"{{name: width}} with integer widths of at least projected_dim = {self.projected_dim}",
        )
        object.__setattr__(self, "modalities", dict(sorted(self.modalities.items())))
        of_each = isinstance(self.noise, Mapping)
        strengths = self.noise if of_each else dict.fromkeys(self.modalities, self.noise)
        self._require(
            strengths.keys() == self.modalities.keys() and all(map(_is_number, strengths.values())),
            "noise",
            f"a finite number of at least 0, or one of each modality ({', '.join(self.modalities) or 'none'})",
        )
        if of_each:
            object.__setattr__(self, "noise", dict(sorted(strengths.items())))

    def noise_of(self, modality: str) -> float:
        """Noise over signal of a modality, root mean square."""
        return self.noise[modality] if isinstance(self.noise, Mapping) else self.noise

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            raise DatasetError(f"synthetic data: expected {name} to be {expected}, got {getattr(self, name)!r}")


@dataclass(frozen=True, eq=False)
class SyntheticTruth:
    """What was planted: choices are drawn by `user_tastes @ item_tastes.T + popularity` (log-odds).

    Attributes:
        user_tastes: `[U, n_tastes]` float64; taste_strength is already in it.
        item_tastes: `[I, n_tastes]` float64.
        popularity: `[I]` float64.
        purity: `[U]` float64, the share of each user's taste that lies in one dimension.
        projections: `{modality: [D_m, d] float64}`; `features @ projection` is signal plus noise, of which
            only `signal_bins` and `noise_bins` are not zero.
    """

    user_tastes: np.ndarray
    item_tastes: np.ndarray
    popularity: np.ndarray
    purity: np.ndarray
    projections: dict[str, np.ndarray]
    signal: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    missing: dict[str, np.ndarray]


def builtin_dataset(name: str = "synthetic", seed: int = 0, **options: Any) -> Dataset:
    """A data set that needs no files. `options` are the other fields of :class:`SyntheticConfig`.

    Raises:
        DatasetError: unknown name or option (the nearest known one is named), or an option out of range.
    """
    if name not in BUILTIN_DATASETS:
        raise DatasetError(f"expected a built-in data set ({', '.join(BUILTIN_DATASETS)}), got {name!r}")
    known = [entry.name for entry in dataclasses.fields(SyntheticConfig)]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) or f"; known: {', '.join(known)}"
            raise DatasetError(f"{name} data: unknown option {option!r}{hint}")
    return generate(BUILTIN_DATASETS[name](seed=seed, **options))[0]


def generate(config: SyntheticConfig) -> tuple[Dataset, SyntheticTruth]:
    """The data set and what was planted in it. Noise and modality options leave the interactions alone."""
    # one stream a purpose: the first numbers of spawn() stay when there are more of them
    streams = np.random.SeedSequence(config.seed).spawn(6)
    tastes, choices, split, features, lean, gaps = (np.random.Generator(np.random.PCG64(stream)) for stream in streams)

    user_tastes = tastes.standard_normal((config.n_users, config.n_tastes))
    purity = _lean(config, lean, user_tastes)
    user_tastes *= config.taste_strength / math.sqrt(config.n_tastes)
    item_tastes = tastes.standard_normal((config.n_items, config.n_tastes))
    popularity = -config.popularity * np.log(1.0 + tastes.permutation(config.n_items))

    users, items = _choose(config, choices, user_tastes, item_tastes, popularity)
    labels = _split(split, users)
    tables, truth = _features(config, features, item_tastes)
    truth["missing"] = {m: gaps.random(config.n_items) < config.missing for m in tables}
    for m, table in tables.items():
        table[truth["missing"][m]] = 0.0
    data = Dataset.from_pairs(
        "synthetic",
        config.n_users,
        config.n_items,
        *(Pairs(users[labels == label], items[labels == label]) for label in range(3)),
        features=tables,
    )
    return data, SyntheticTruth(user_tastes, item_tastes, popularity, purity, **truth)


def _lean(config: SyntheticConfig, rng: np.random.Generator, user_tastes: np.ndarray) -> np.ndarray:
    """Turns tastes `[U, n_tastes]`, in place, to one dimension each; the share of it, `[U]`."""
    purity = config.taste_purity * rng.random(config.n_users)
    dimension, sign = rng.integers(config.n_tastes, size=config.n_users), rng.choice([-1.0, 1.0], config.n_users)
    user_tastes *= np.sqrt(1.0 - purity)[:, None]
    user_tastes[np.arange(config.n_users), dimension] += sign * np.sqrt(purity * config.n_tastes)
    return purity


def _choose(
    config: SyntheticConfig,
    rng: np.random.Generator,
    user_tastes: np.ndarray,
    item_tastes: np.ndarray,
    popularity: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of all interactions, `[E]` each, by user."""
    activity = rng.lognormal(0.0, config.activity_spread, config.n_users)
    extra = config.n_interactions - config.n_users * config.min_user_interactions
    counts = config.min_user_interactions + np.floor(extra * activity / activity.sum() + 0.5).astype(np.int64)
    counts = np.minimum(counts, config.n_items // 2)

    items = []
    block = max(1, _BLOCK_VALUES // config.n_items)
    for start in range(0, config.n_users, block):
        count = counts[start : start + block]
        most = int(count.max())
        # the n largest of log-odds + Gumbel noise are n draws without replacement
        score = user_tastes[start : start + block] @ item_tastes.T + popularity
        score += rng.gumbel(size=score.shape)
        top = np.argpartition(-score, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(score, top, axis=1), axis=1)
        ranked = np.take_along_axis(top, order, axis=1)
        items.append(ranked[np.arange(most) < count[:, None]])
    return np.repeat(np.arange(config.n_users), counts), np.concatenate(items)


def _split(rng: np.random.Generator, users: np.ndarray) -> np.ndarray:
    """Labels 0 train, 1 validation, 2 test: a random tenth of each user's interactions each, at least one."""
    counts = np.bincount(users)
    shuffled = np.lexsort((rng.random(len(users)), users))  # users stay in place, their interactions do not
    place = np.empty(len(users), dtype=np.int64)
    place[shuffled] = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = np.maximum(1, np.rint(counts / 10).astype(np.int64))[users]
    return np.where(place < held_out, 1, np.where(place < 2 * held_out, 2, 0))


def _features(
    config: SyntheticConfig, rng: np.random.Generator, item_tastes: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Feature tables `{modality: [I, D_m] float32}`, and the parts of the truth that are by modality."""
    d, n_items = config.projected_dim, config.n_items
    n_signal, n_noise = 2 * _n_bins(config.signal_bins), 2 * _n_bins(config.noise_bins)
    shared = rng.standard_normal((n_items, n_noise))
    tables: dict[str, np.ndarray] = {}
    truth: dict[str, dict[str, np.ndarray]] = {"projections": {}, "signal": {}, "noise": {}}
    for modality, width in config.modalities.items():
        mix = _orthonormal_rows(rng, config.n_tastes, n_signal)  # [n_tastes, n_signal]
        own = rng.standard_normal((n_items, n_noise))
        noise = math.sqrt(config.noise_correlation) * shared + math.sqrt(1.0 - config.noise_correlation) * own
        # sum of squares a row: n_tastes of tastes, n_noise of noise; scaled so that a value's mean square
        # is 1 and noise^2
        signal = _wave(item_tastes @ mix, config.signal_bins, d) * math.sqrt(d / config.n_tastes)
        noise = _wave(noise, config.noise_bins, d) * (config.noise_of(modality) * math.sqrt(d / n_noise))
        basis = _orthonormal_rows(rng, d, width)  # [d, D_m]
        scale = math.sqrt(width / d)  # mean square of a feature = mean square of a value of the wave
        tables[modality] = ((signal + noise) @ basis * scale).astype(np.float32)
        truth["projections"][modality] = basis.T / scale
        truth["signal"][modality], truth["noise"][modality] = signal @ basis * scale, noise @ basis * scale
    return tables, truth


def _wave(values: np.ndarray, bins: tuple[int, int], d: int) -> np.ndarray:
    """Signals `[I, d]` with nothing outside `bins`, of the norm of `values` `[I, 2 * bins]` (re, im)."""
    n_bins = _n_bins(bins)
    spectrum = np.zeros((len(values), d // 2 + 1), dtype=np.complex128)
    spectrum[:, bins[0] : bins[1] + 1] = (values[:, :n_bins] + 1j * values[:, n_bins:]) / math.sqrt(2.0)
    return np.fft.irfft(spectrum, n=d, axis=1, norm="ortho")


def _orthonormal_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Random matrix `[rows, columns]`, rows <= columns, with orthonormal rows."""
    q, r = np.linalg.qr(rng.standard_normal((columns, rows)))
    return (q * np.sign(np.diag(r))).T  # the sign that LAPACK is free to choose


def _n_bins(bins: tuple[int, int]) -> int:
    return bins[1] - bins[0] + 1


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


BUILTIN_DATASETS = {"synthetic": SyntheticConfig}
