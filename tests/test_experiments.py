"""Experiments: each detects a planted effect and is silent on a planted null; cells, records, command, report."""

from __future__ import annotations

import csv
import dataclasses
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smore_ext.data import SyntheticConfig, generate
from smore_ext.data.graph_cache import item_knn_graph
from smore_ext.experiments import charts, content, evidence
from smore_ext.experiments.__main__ import main
from smore_ext.experiments.cells import Cell, Data, Record, Records, read_record, write_record
from smore_ext.experiments.jobs import processes
from smore_ext.experiments.studies import STUDIES, settings
from smore_ext.experiments.studies.common import FULL, QUICK, SAME, cells_of, variant
from smore_ext.experiments.study import Contrast, Outcome, Scale, contrast, correct
from smore_ext.experiments.training_cells import open_data, train_cell, train_cells

USERS = 400
SCALE = dataclasses.replace(FULL, folders={"lfm2k": FULL.folders["lfm2k"]})
TINY = {"n_users": 60, "n_items": 50, "n_interactions": 500}


class Figures(dict[str, Any]):
    """Figures that no test looks at."""

    def __missing__(self, name: str) -> float:
        return 1.0


class Planted:
    """Records of runs that were never made: recall of a user is her own level, the run's luck, and what is planted."""

    def __init__(
        self,
        effect: Callable[[Cell], float] = lambda _: 0.0,
        inference: float = 0.0,
        entropy: float = 0.9,
        salt: int = 0,
    ) -> None:
        self.effect, self.inference, self.entropy, self.salt = effect, inference, entropy, salt

    def __getitem__(self, cell: Cell) -> Record:
        level = np.random.default_rng(0).uniform(0.2, 0.6, USERS)
        rng = np.random.default_rng(zlib.crc32(f"{self.salt} {cell.text}".encode()))
        recall = level + rng.normal(0, 0.05, USERS) + rng.normal(0, 0.002) + self.effect(cell)
        arrays: dict[str, np.ndarray] = {
            name: rng.uniform(0, 1, USERS) for name in ("preference", "activity", "taste purity")
        }
        arrays["entropy"] = np.full(USERS, self.entropy)
        arrays["open"] = np.array([0.9, 0.9, 0.9])
        for name in ("removed all", "exchanged all", "removed image", "mismatched"):
            arrays[f"recall {name}"] = recall + rng.normal(0, 0.02, USERS) - self.inference
        for t in (0.1, 0.3, 1, 3, 10):
            for what in ("temperature", "gate temperature"):
                arrays[f"{what} {t:g}"] = recall + rng.normal(0, 0.02, USERS) - self.inference * (t != 1)
        arrays |= {f"filter {m}": np.ones((2, 33)) for m in ("image", "text")}
        return Record(
            {"recall@20": recall, "ndcg@20": recall / 2}, [0.1, 0.3, 0.2], [0.69, 0.5, 0.4], 1, 0.01, Figures(), arrays
        )


def concluded(name: str, found: Planted) -> tuple[Outcome, str, list[Contrast]]:
    outcome = STUDIES[name].conclude(found, SCALE)
    correct([outcome])
    answer = outcome.answer()
    return outcome, answer.brief, answer.said


def setting(cell: Cell, name: str) -> Any:
    return cell.settings.get(name)


def noise_of(cell: Cell) -> Any:
    return cell.data.options.get("noise")


# For each experiment: in which runs something is planted, 1 or how many times as much, and a contrast that must be
# shown, with its verdict.
PLANTED: dict[str, tuple[Callable[[Cell], float], str, str]] = {
    "denoising": (
        lambda c: c.model == "SMORE" and noise_of(c) == 2.0,
        "spectral filter against no filter, noise 2",
        "better",
    ),
    "denoisers": (lambda c: c.model.endswith(":Attention"), "self-attention against spectral filter, noise", "better"),
    "frequencies": (lambda c: -(setting(c, "spectral") in (1, 2)), "low-pass, 2 of 33", "worse"),
    "modalities": (
        lambda c: len(c.data.options.get("modalities", ())) > 1,
        "2 modalities against 1",
        "better",
    ),
    "modalities, fills": (
        lambda c: -any(change.get("filled") == "neighbours" and change["share"] == 0.9 for change in c.data.changes),
        "missing features as neighbours against zero, 90%",
        "worse",
    ),
    "modalities, repairs": (
        lambda c: c.model.endswith(":ModalityDropout") and not c.data.changes,
        "modality dropout against as it is, with no third",
        "better",
    ),
    "feature-quality": (
        lambda c: -(c.model == "SMORE" and bool(c.data.changes) and c.data.changes[0].get("to") == 1),
        "SMORE, rank 1 against true",
        "worse",
    ),
    "layers": (
        lambda c: (setting(c, "n_ui_layers"), setting(c, "n_mm_layers")) == (4, 3),
        "4 user-item and 3 item layers against 2 and 1",
        "better",
    ),
    "correlated-noise": (
        lambda c: -(c.data.options.get("noise_correlation") == 0.5 and c.model == "SMORE"),
        "fused view against none, correlation 0.5",
        "worse",
    ),
    "draws": (
        lambda c: c.model == "SMORE" and c.data.options.get("seed") == 2 and not c.data.changes,
        "SMORE against LightGCN, draw 2",
        "better",
    ),
    "settings": (lambda c: setting(c, "cl_weight") == 0.001, "cl_weight 0.001 against 0.01, width 64", "better"),
    "claims": (lambda c: c.model.endswith(":ModalityDropout"), "modality dropout against none", "better"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_effect_of_little_more_than_is_detectable_is_shown(name: str) -> None:
    """What the report calls detectable: half as much again, planted, is shown, and nothing is where nothing is."""
    where, label, verdict = PLANTED[name]
    study = name.partition(",")[0]

    def of(found: Planted) -> tuple[list[Contrast], list[Contrast]]:
        outcome, brief, said = concluded(study, found)
        assert brief
        return [c for c in outcome.every if c.label.startswith(label)], [*outcome.head, *outcome.answer().head, *said]

    nothing = of(Planted())[0]
    assert nothing and not any(c.shown for c in nothing)
    size = 1.5 * max(c.detectable for c in nothing)
    assert size < 0.03
    found, listed = of(Planted(lambda cell: size * float(where(cell))))
    assert {c.verdict for c in found} == {verdict}, [c.text for c in found]
    assert any(c in listed for c in found)


def test_planted_nulls_are_not() -> None:
    """Of 88 families of contrasts without any effect, each of which may err with probability .05, ten or more do so
    with one of .02."""
    wrong = []
    for name in STUDIES:
        for salt in range(4):
            outcome, brief, _ = concluded(name, Planted(salt=salt))
            for family in (outcome.head, outcome.contrasts):
                wrong += [f"{name} {salt}: {c.label}: {c.text}" for c in family if c.shown][:1]
            assert brief and len({c.label for c in outcome.every}) == len(outcome.every)
    assert len(wrong) <= 9, wrong


@pytest.mark.parametrize("name", ["modalities", "attention", "claims"])
def test_what_inference_without_a_part_costs_is_shown(name: str) -> None:
    outcome, _, said = concluded(name, Planted(inference=0.02))
    hit = [c for c in outcome.every if c.inference]
    assert hit and all(c.worse for c in hit) and all(c in [*outcome.head, *said] for c in hit)


def test_each_modality_is_knocked_out_and_reported() -> None:
    outcome, _, said = concluded("modalities", Planted())
    assert {"built-in data: image content removed at inference against kept"} <= {c.label for c in said}
    assert sum(" all content " in c.label for c in outcome.head) == 4


def test_every_setting_of_layers_is_compared() -> None:
    outcome = concluded("layers", Planted())[0]
    assert sum(" item layers against 2 and 1" in c.label for c in outcome.contrasts) == 27


def test_intervals_and_p_values_agree_and_repeats_count_once() -> None:
    for name in ("draws", "layers"):
        for c in concluded(name, Planted(lambda c: 0.004 * (c.seed != 9) * (c.model == "SMORE")))[0].every:
            assert c.shown == (c.effect.low > 0 or c.effect.high < 0) == (c.p < 0.05)
    a, b = (cells_of(SCALE, Data("synthetic", {"seed": seed})) for seed in (1, 2))
    twice = [contrast(Planted(), label, *pair) for label, pair in {"a": (a, b), "b": (b, a)}.items()]
    probed = contrast(Planted(), "c", cells_of(SCALE, Data("synthetic", {"seed": 1}), probes=[contrast]), b)
    correct([Outcome(lambda: None, [], [*twice, probed])])  # type: ignore[arg-type, return-value]
    assert {c.family for c in (*twice, probed)} == {1} and twice[0].effect.mean == -twice[1].effect.mean


def test_no_two_labels_share_a_colour() -> None:
    """All plots of the report in one: series and marks of every panel that is not of steps of one quantity."""
    colours, of = charts.Colours(SAME), dict[str, str]()
    for study in STUDIES.values():
        for panel in study.conclude(Planted(), SCALE).panels:
            if panel.kind != "heat" and not panel.ordered:
                of |= {label: colours[label] for label in (*panel.series, *panel.marks)}
    names = {SAME.get(label, label) for label in of}
    assert len(set(of.values())) == len(names) > 15
    assert of["spectral filter"] == of["SMORE"] and charts.FAINT not in of.values()
    assert len(set(charts.PALETTE)) == len(charts.PALETTE) and len(set(charts.shades(5))) == 5
    with pytest.raises(ValueError, match="PALETTE needs another"):
        [colours[f"another {number}"] for number in range(len(charts.PALETTE))]


@pytest.mark.parametrize(("entropy", "verdict"), [(0.995, "uniform"), (0.01, "one dimension"), (0.7, "diverse")])
def test_collapse_is_said(entropy: float, verdict: str) -> None:
    assert f"Attention is {verdict}" in concluded("attention", Planted(entropy=entropy))[1]


def test_uncorrected_contrasts_have_no_verdict() -> None:
    one = cells_of(SCALE, Data("synthetic", TINY))
    with pytest.raises(ValueError, match="not corrected"):
        _ = contrast(Planted(), "a against b", one, one).verdict


def test_plateau_and_patience_are_read_from_curves() -> None:
    def record(bpr: list[float], validation: list[float]) -> Record:
        return Record({}, validation, bpr, 0, 0.0)

    ln2 = math.log(2)
    assert settings.plateau(record([ln2, 0.69, 0.5], [])) == 2
    assert settings.plateau(record([ln2, ln2], [])) == 2  # it never left
    assert settings.plateau(record([0.1], [])) == 0
    curve = record([], [0.1, 0.2, 0.15, 0.15, 0.15, 0.3])
    assert settings.stopped_by(curve, 2) == 1 and settings.stopped_by(curve, 3) == 5


# Cells


def test_cells_are_named_by_what_they_are(tmp_path: Path) -> None:
    data = Data("synthetic", {"n_users": 60, "n_items": 50})
    one = Cell(data, "SMORE", {"lr": 0.1, "epochs": 2}, 1)
    same = Cell(Data("synthetic", {"n_items": 50, "n_users": 60}), "SMORE", {"epochs": 2, "lr": 0.1}, 1)
    others = [dataclasses.replace(one, seed=2), dataclasses.replace(one, data=data.changed("rank", to=2))]
    assert one.key == same.key and len({one.key, *(other.key for other in others)}) == 3
    assert Records(tmp_path).missing([one, same, *others]) == [same, *others]


def test_records_come_back(tmp_path: Path) -> None:
    cell = Cell(Data("synthetic"), "SMORE", {}, 1)
    record = Record(
        {"recall@20": np.arange(3.0)}, [0.1], [0.5], 0, 0.25, {"a": 1.5}, {"b": np.eye(2)}, {"commit": "abc"}
    )
    write_record(tmp_path / "x.npz", cell, record)
    back = read_record(tmp_path / "x.npz")
    assert dataclasses.asdict(back).keys() == dataclasses.asdict(record).keys()
    assert (back.validation, back.bpr, back.figures, back.seconds) == ([0.1], [0.5], {"a": 1.5}, 0.25)
    assert back.made == {"commit": "abc"}
    np.testing.assert_array_equal(back.recall, record.recall)
    np.testing.assert_array_equal(back.arrays["b"], record.arrays["b"])


def tiny_cell(**settings: Any) -> Cell:
    return Cell(Data("synthetic", TINY), "LightGCN", {"epochs": 2, "batch_size": 256} | settings, 1)


def test_a_cell_is_the_run_that_its_settings_are(tmp_path: Path) -> None:
    first, again = train_cell(tiny_cell()), train_cell(tiny_cell())
    np.testing.assert_array_equal(first.recall, again.recall)
    assert len(first.validation) == len(first.bpr) == 2 and len(first.recall) == TINY["n_users"]
    other = train_cell(tiny_cell(lr=0.5))
    assert not np.array_equal(first.recall, other.recall)


def test_a_cell_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    cells = [tiny_cell(lr=math.inf), tiny_cell()]
    records = Records(tmp_path)
    records.folder.mkdir()
    ended = dict(
        (cell.text, wrong) for cell, wrong in train_cells(cells, {c.key: records.file(c) for c in cells}, jobs=1)
    )
    assert "lr" in str(ended[cells[0].text]) and ended[cells[1].text] is None
    assert records.missing(cells) == cells[:1]


def test_on_a_gpu_processes_begin_afresh_and_without_one_it_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert processes("cuda").get_start_method() == "spawn"
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["settings", "--quick", "--device", "cuda", "-o", str(tmp_path / "runs")]) != 0
    assert "cuda" in capsys.readouterr().err and not (tmp_path / "runs").exists()


# Content


@pytest.mark.parametrize("kind", content.CHANGES)
def test_changes_keep_shapes_and_interactions_and_are_seeded(kind: str) -> None:
    arguments = {
        "noise": {"strength": 2.0, "band": [0.5, 1.0]},
        "rank": {"to": 2},
        "bits": {"to": 1},
        "shuffled": {"share": 0.5},
        "random": {},
        "missing": {"share": 0.5, "filled": "neighbours"},
    }[kind]
    data = generate(SyntheticConfig(**TINY))[0]
    change = {"kind": kind, "only": ["text"], **arguments}
    one, same, other = (content.apply(data, c) for c in (change, change, change | {"seed": 1}))
    assert one.train is data.train and one.fingerprint == same.fingerprint != data.fingerprint
    assert torch.equal(one.features["image"], data.features["image"])
    text = one.features["text"]
    assert text.shape == data.features["text"].shape and text.dtype == torch.float32 and bool(text.isfinite().all())
    assert torch.equal(text, same.features["text"]) and not torch.equal(text, data.features["text"])
    if kind not in ("rank", "bits"):
        assert not torch.equal(text, other.features["text"])


def test_changes_do_what_they_say() -> None:
    data = generate(SyntheticConfig(**TINY))[0]
    x = data.features["text"].double()

    def after(kind: str, **arguments: Any) -> torch.Tensor:
        return content.apply(data, {"kind": kind, **arguments}).features["text"].double()

    spread = (x - x.mean(0)).square().mean()
    added = after("noise", strength=2.0, band=[0.5, 1.0]) - x
    assert added.square().mean() == pytest.approx(4 * float(spread), rel=1e-3)
    energy = torch.fft.rfft(added, norm="ortho").abs().square().sum(0)
    assert energy[:24].sum() < 1e-6 * energy.sum()
    low = after("rank", to=3)
    assert int(torch.linalg.matrix_rank(low - low.mean(0), atol=1e-3)) == 3
    assert all(len(column.unique()) <= 4 for column in after("bits", to=2).T)
    moved = (after("shuffled", share=0.5) != x).any(dim=1)
    assert int(moved.sum()) == 25
    zero, mean = after("missing", share=0.4, filled="zero"), after("missing", share=0.4, filled="mean")
    gone = (zero == 0).all(dim=1)
    assert (
        0 < int(gone.sum()) < 50 and torch.allclose(mean[gone], mean[gone][:1]) and torch.equal(mean[~gone], x[~gone])
    )
    kept = content.apply(data, {"kind": "kept", "only": ["text"]})
    assert list(kept.features) == ["text"]
    more = content.apply(data, {"kind": "random", "only": ["text"], "name": "useless"})
    assert list(more.features) == ["image", "text", "useless"] and torch.equal(
        more.features["text"], data.features["text"]
    )


def test_graphs_and_tables_are_shuffled_apart() -> None:
    data, _ = open_data(Data("synthetic", SCALE.synthetic), None)
    change = {"kind": "shuffled", "share": 1.0}
    both, graphs, tables = (content.apply(data, change | part) for part in ({}, {"part": "graphs"}, {"part": "tables"}))
    for m, x in data.features.items():
        assert torch.equal(graphs.features[m], x) and torch.equal(tables.features[m], both.features[m])
        assert not torch.equal(both.features[m], x) and not both.graphs
        right, wrong = item_knn_graph(x, 10), item_knn_graph(both.features[m], 10)
        assert torch.equal(tables.graphs[m].col, right.col) and torch.equal(graphs.graphs[m].col, wrong.col)
    with pytest.raises(ValueError, match="part: expected graphs or tables, got 'rows'"):
        content.apply(data, change | {"part": "rows"})


def test_a_comparison_is_also_judged_as_one_of_all() -> None:
    found = Planted(*PLANTED["feature-quality"][:1])
    outcomes = [STUDIES[name].conclude(found, SCALE) for name in ("feature-quality", "layers")]
    correct(outcomes)
    every = [c for outcome in outcomes for c in outcome.every]
    total = len({c.identity for c in every})
    for c in every:
        assert c.in_all == min(1.0, total * c.alone) and c.p == pytest.approx(min(1.0, (c.family or 1) * c.alone))
        assert c.in_all >= c.p - 1e-12


def test_neighbours_fill_better_than_the_mean() -> None:
    """The items of similar users have similar features, where choices follow tastes."""
    many = SyntheticConfig(n_users=400, n_items=60, n_interactions=6000, n_tastes=2, noise=0.0, popularity=0.0)
    data = generate(many)[0]
    x = data.features["text"]

    def error(filled: str) -> float:
        return float(
            (content.apply(data, {"kind": "missing", "share": 0.3, "filled": filled}).features["text"] - x).norm()
        )

    assert error("neighbours") < 0.95 * error("mean")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "blur"}, "expected a change of content"), ({"kind": "random", "only": ["smell"]}, "got smell")],
)
def test_unknown_changes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        content.apply(generate(SyntheticConfig(**TINY))[0], change)


def test_data_of_a_cell_are_planted_ones() -> None:
    dataset, truth = open_data(
        Data("synthetic", TINY | {"noise": {"image": 1.0, "text": 0.0}}).changed("rank", to=1), None
    )
    assert truth is not None and not truth.noise["text"].any() and dataset.n_items == TINY["n_items"]


# The command


def test_all_of_them_quickly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole of it on tiny data. Loose checks: what such data say is no evidence."""
    assert main(["all", "--quick", "--jobs", "2", "-o", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    page, html = (tmp_path / "evidence.md").read_text(), (tmp_path / "evidence.html").read_text()
    for name, study in STUDIES.items():
        assert study.question in out and f"## {name}" in page and study.question in html
        assert (tmp_path / "images" / "evidence" / f"{name}-differences.png").read_bytes().startswith(b"\x89PNG")
        rows = list(csv.DictReader((tmp_path / f"evidence-{name}.csv").open()))
        assert rows and all(0.02 < float(row["recall@20"]) < 0.9 for row in rows)
    assert "## significance" in page
    contrasts = list(csv.DictReader((tmp_path / "evidence-significance.csv").open()))
    assert len(contrasts) > 50 and all(0 <= float(row["p"]) <= 1 for row in contrasts)
    shown = [row["contrast"] for row in contrasts if row["verdict"] != "not shown"]
    assert any("VBPR, 100% shuffled" in label for label in shown)  # a model of nothing but content without it
    # Again: nothing is left to do, and the report is the same.
    (tmp_path / "evidence.md").unlink()
    assert main(["all", "--quick", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "evidence.md").read_text() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["denoisng"], "unknown experiment denoisng; did you mean 'denoising'"),
        (["layers", "--seeds", "one"], "--seeds: expected numbers as 1,2,3, got one"),
        (["layers", "--data-path", "/nowhere"], "--data-path: expected a directory with the folder lfm2k"),
        ([], "Missing argument"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_experiments_whose_runs_failed_are_left_out(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert evidence.conclude(STUDIES, records, QUICK) == []


def test_quick_is_a_part_of_full_in_kind() -> None:
    """Every study has cells at either scale, and the quick one fewer."""
    for study in STUDIES.values():
        quick, full = (len({c.key for c in study.cells(s)}) for s in (QUICK, FULL))
        assert 0 < quick < full


def test_variants_are_named_so_that_the_registry_finds_them() -> None:
    from smore_ext.models.registry import MODELS

    assert MODELS[variant("RandomFilter")].__name__ == "RandomFilter"


def test_scale_keeps_the_ends_of_a_grid() -> None:
    assert QUICK.some((1, 2, 3)) == [1, 3] and FULL.some((1, 2, 3)) == [1, 2, 3] and QUICK.some((1, 2)) == [1, 2]
    assert isinstance(QUICK, Scale)
