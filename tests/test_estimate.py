"""What a run would take: the fit on planted costs, the data it is measured on, the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write_dataset

import smore_ext
from smore_ext import runs, train
from smore_ext.data import builtin_dataset
from smore_ext.experiments import estimate as module
from smore_ext.experiments.estimate import Counts, Point, estimate, random_data
from smore_ext.settings.config import RunConfig

SMALL = Counts(400, 300, 6000, 600, 600, {"image": 16})
FAST = {"model": "LightGCN", "embedding_dim": "16", "batch_size": 500, "threads": 1}


def config_of(device: str) -> RunConfig:
    return runs.resolve(FAST).replace(device=device)


@pytest.mark.parametrize(
    ("cost", "powers"), [(lambda x: 400 + 300 * x, 2), (lambda x: 5 + 80 * x**2, 2), (lambda x: 0.01 + 0.2 * x, 1)]
)
def test_a_planted_cost_is_read_off(cost, powers: int) -> None:  # type: ignore[no-untyped-def]
    points = [(share, cost(share)) for share in (0.0625, 0.125, 0.25)]
    assert module._at_one(points, powers) == pytest.approx(cost(1), rel=1e-6)
    noisy = [(share, value * (1 + 0.01 * (-1) ** n)) for n, (share, value) in enumerate(points)]
    assert module._at_one(noisy, powers) == pytest.approx(cost(1), rel=0.2)


def test_what_was_measured_whole_is_not_fitted() -> None:
    assert module._at_one([(0.5, 3.0), (1.0, 4.0)], 2) == 4.0


def test_random_data_has_the_counts() -> None:
    assert Counts.of(random_data(SMALL, 1.0)) == SMALL
    half = Counts.of(random_data(SMALL, 0.5))
    assert half == Counts(200, 150, 3000, 300, 300, {"image": 16})
    dense = Counts.of(random_data(Counts(20, 10, 150, 20, 20, {}), 1.0))
    assert (dense.train + dense.valid + dense.test, dense.users) == (190, 20)


def test_an_estimate_of_a_small_run() -> None:
    config = runs.resolve({"model": "LightGCN", "embedding_dim": "16", "batch_size": 500, "threads": 1})
    told: list[Point] = []
    found = smore_ext.estimate(SMALL, config, seconds=60.0, largest=0.5, tell=told.append)
    assert [point.share for point in told] == [pytest.approx(64 / 300), pytest.approx(128 / 300), 0.5]
    assert found.points == tuple(told) and found.steps == 12 and found.step > 0
    weights = (400 + 300) * 16 * 4
    assert found.checkpoint == pytest.approx(3 * weights, rel=0.25)  # with Adam's moments
    assert 50e6 < found.memory < 5e9 and found.epoch > 12 * found.step
    assert estimate(SMALL, config, seconds=0, largest=0.25, reading=1e12).memory == 1e12


def test_a_larger_run_that_fails_ends_the_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(counts: Counts, config: object, share: float) -> Point:
        if share > 0.3:
            raise ValueError("out of memory")
        return Point(share, 1e9 + 8e12 * share, 0.1, 0.1, 1e6)

    monkeypatch.setattr(module, "_measured", measured)
    found = estimate(SMALL, runs.resolve({"model": "LightGCN"}))
    assert found.memory == pytest.approx(8e12, rel=0.01) and len(found.points) == 1


def test_what_a_run_raises_is_told() -> None:
    config = runs.resolve({"model": "LightGCN", "device": "cuda:77"})
    with pytest.raises(ValueError, match=r"a run of 21\.3% of the data: .*cuda"):
        estimate(SMALL, config)


def test_a_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_dataset(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    flags = ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "--threads", "1", "--dry-run"]
    assert train.main([*flags, "-o", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "what LightGCN on tiny would take" in out and "memory at the peak" in out
    assert sorted(tmp_path.rglob("*")) == before
    asked: list[str] = []
    monkeypatch.setattr(train, "available_memory", lambda device: asked.append(device) or 1000)
    assert train.main(flags) == 1
    assert "this will not fit: 0 MB are available" in capsys.readouterr().out and asked == ["cpu"]
    gpu = config_of("cuda")
    monkeypatch.setattr(train, "estimate", lambda *_, **__: smore_ext.estimate(SMALL, runs.resolve(FAST), largest=0.3))
    assert train.say_what_it_takes(SMALL, gpu) == 1 and asked[-1] == "cuda"
    monkeypatch.setattr(train, "available_memory", lambda device: 1 << 40)
    assert train.say_what_it_takes(SMALL, gpu) == 0
    assert train.main(["--dry-run", "--overwrite"]) == 2
    assert "--dry-run: expected neither --resume nor --overwrite" in capsys.readouterr().err


def test_counts_are_of_what_the_model_reads() -> None:
    data = builtin_dataset()
    assert Counts.of(data).widths == {name: table.shape[1] for name, table in data.features.items()}
