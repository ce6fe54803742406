"""The commands: what they print, where they write, how they fail."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import tiny
import yaml
from safetensors import SafetensorError

from smore_ext import __main__ as smore
from smore_ext import doctor, evaluate, recommend, runs, train
from smore_ext.models import MODELS
from smore_ext.settings.config import TrainConfig
from smore_ext.settings.fields import settings_of
from smore_ext.training import checkpoint

ERROR = 2
pytestmark = pytest.mark.usefixtures("command_surroundings")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_dataset(tmp_path_factory.mktemp("data"))


def flags(data: Path, run_dir: Path, *more: str) -> list[str]:
    small = ["--epochs", "2", "--embedding-dim", "8", "--batch-size", "32", "--lr", "0.05"]
    return ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "-o", str(run_dir), *small, *more]


@pytest.fixture(scope="module")
def run_dir(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test changes."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert train.main(flags(data, path)) == 0
    return path


@pytest.fixture(scope="module")
def seeds_dir(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "seeds"
    assert train.main(flags(data, path, "--seeds", "10,9", "-q")) == 0
    return path


def numbers(text: str) -> list[str]:
    """The rows of a table of metrics."""
    return re.findall(r"(?:validation|test)?\s+(?:5|10|20|50)\s+([01]\.\d{4}.*)", text)


# train


def test_train_writes_and_prints(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(flags(data, run, "--protocol", "strict")) == 0
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "last.safetensors", "best.safetensors", "metrics.jsonl", "result.json"}
    out = capsys.readouterr().out
    assert "protocol strict (train items masked, at test validation items too)" in out
    assert "LightGCN" in out and "seed 999" in out and "epoch   1" in out and str(run) in out
    assert len(numbers(out)) == 8  # four cut-offs on validation and on test
    result = json.loads((run / "result.json").read_text())
    assert f"{result['test']['recall@20']:.4f}" in out
    assert result["config"]["train"]["lr"] == 0.05 and result["protocol"]["name"] == "strict"


def test_config_file_written_by_a_run_repeats_it(data: Path, tmp_path: Path, run_dir: Path) -> None:
    again = tmp_path / "again"
    assert train.main(["--config", str(run_dir / "config.yaml"), "-o", str(again), "-q"]) == 0
    first, second = (json.loads((path / "result.json").read_text()) for path in (run_dir, again))
    assert first["test"] == second["test"]


def test_quiet_leaves_out_the_epochs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(flags(data, tmp_path / "run", "--quiet")) == 0
    assert "epoch   1" not in capsys.readouterr().out


def test_data_path_may_be_the_dataset_itself(data: Path, tmp_path: Path) -> None:
    small = ["--epochs", "1", "--data-path", str(data / "tiny"), "-m", "LightGCN"]
    assert train.main([*small, "-o", str(tmp_path / "a")]) == 0
    assert train.main([*small, "-d", "tiny", "-o", str(tmp_path / "b")]) == 0


def test_builtin_dataset_names_its_automatic_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "n_users=60,n_items=50,n_interactions=600"
    run = str(tmp_path / "run")
    assert train.main(["-m", "Popularity", "--dataset-options", options, "-o", run]) == 0
    assert "preset synthetic (automatic for this data set)" in capsys.readouterr().out


def test_seeds(seeds_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((seeds_dir / "result.json").read_text())
    each = [json.loads((seeds_dir / f"seed-{seed}" / "result.json").read_text()) for seed in (10, 9)]
    values = [one["test"]["ndcg@10"] for one in each]
    assert [one["seed"] for one in each] == result["seeds"] == [10, 9]
    assert values[0] != values[1]
    assert result["test"]["ndcg@10"]["mean"] == pytest.approx(sum(values) / 2)
    assert train.main(["--resume", str(seeds_dir)]) == 0
    out = capsys.readouterr().out
    assert "is finished: nothing is left to do" in out
    assert f"{result['test']['ndcg@10']['mean']:.4f} ±{result['test']['ndcg@10']['std']:.4f}" in out


def test_resume_with_more_epochs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(flags(data, run)) == 0
    assert train.main(["--resume", str(run)]) == 0
    assert "is finished" in capsys.readouterr().out
    assert train.main(["--resume", str(run), "--epochs", "3"]) == 0
    assert "resumed: epochs up to 1 are done" in capsys.readouterr().out
    assert json.loads((run / "result.json").read_text())["epochs_run"] == 3


def test_overwrite(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(flags(data, run, "-q")) == 0
    assert train.main(flags(data, run, "-q")) == ERROR
    assert "already holds a run" in capsys.readouterr().err
    assert train.main(flags(data, run, "-q", "--overwrite")) == 0


def test_overwrite_keeps_the_old_run_until_the_new_one_stands(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(flags(data, run, "-q")) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    wrong = ["-m", "SMORE", "-d", "tiny", "--data-path", str(data), "-o", str(run), "--overwrite"]
    assert train.main([*wrong, "--modalities", "imgae"]) == ERROR  # found out when the model is built
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert train.main(flags(data, run, "-q", "--overwrite", "--seeds", "1,2")) == 0
    assert {path.name for path in run.iterdir()} == {"config.yaml", "result.json", "seed-1", "seed-2"}


def test_tensorboard(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert train.main(flags(data, tmp_path / "run", "--tensorboard")) == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--help"]) == 0
    text = capsys.readouterr().out
    for cls in (TrainConfig, *(model.config_class for model in MODELS.values())):
        for name in settings_of(cls):
            assert f"--{name.replace('_', '-')}" in text
    assert "Training:" in text and "Model SMORE:" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cl-wieght", "1"], "unknown flag --cl-wieght; did you mean --cl-weight?"),
        (["--learning-rate", "1"], "unknown flag --learning-rate; did you mean --lr?"),
        (["--no-freeze-feature"], "unknown flag --no-freeze-feature; did you mean --no-freeze-features?"),
        (["--lr", "fast"], "--lr: expected a valid number, got 'fast'"),
        (["-m", "LightGCN", "--no-freeze-features"], "--freeze-features: LightGCN has no such setting"),
        (["-d", "baby"], "data set 'baby' is not built in (synthetic): name the folder that holds it"),
        (["-d", "baby", "--data-path", "nowhere"], "--data-path nowhere does not exist"),
        (["--data-path", "nowhere"], "--data-path nowhere does not exist"),
        (["-d", "baby", "--data-path", __file__], "test_cli.py is a file, expected a folder"),
        (["-d", "../baby", "--data-path", "."], "dataset: expected a name, got the path '../baby'"),
        (["--lr-decay", "nan"], "--lr-decay: expected at most 1, got 'nan'"),
        (["--config", "nowhere.yaml"], "configuration file nowhere.yaml does not exist"),
        (["--resume", "nowhere"], "nowhere holds no run"),
        (["--resume", "nowhere", "--preset", "smore-baby"], "--resume goes on as the run began"),
        (["--dataset-options", "nois=3"], "unknown option 'nois'; did you mean 'noise'?"),
        (["extra"], "unexpected extra argument"),
        (["-m", "smore"], f"unknown model 'smore' (of {', '.join(MODELS)}); did you mean 'SMORE'?"),
        (["--cl-loss", "1"], "unknown flag --cl-loss; did you mean --cl-weight?"),
        (["--model.lr", "1"], "unknown flag --model.lr"),
        (["--dataset-options", "n_users=*a"], "expected n_users to be an integer of at least 1, got '*a'"),
        (["--dataset-options", "{n_users: *a}"], "--dataset-options: expected name=value pairs, got '{n_users: *a}'"),
        (["--seed", str(2**63)], "--seed: expected integers below 2^63, got 9223372036854775808"),
        (["--eval-k", "1" + "0" * 30], "--eval-k: expected integers below 2^63, got 1000"),
        (
            ["--select-by", "recall@1" + "0" * 30],
            "--select-by: expected a metric at a rank such as recall@20, got 'rec",
        ),
        (["--lr", "1e999"], "--lr: expected finite numbers, got inf"),
        (["--lr", "x" * 1000], f"--lr: expected a valid number, got '{'x' * 76}...\n"),
        (["--" + "x" * 1000], f"unknown flag --{'x' * 78}\n"),
    ],
)
def test_train_errors_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert train.main([*arguments, *(() if "--resume" in arguments else ("-o", str(tmp_path / "run")))]) == ERROR
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


class OwnRate(tiny.Tiny):
    """A model with settings of the loop's names, and one of the command's."""

    @dataclass(frozen=True)
    class Config(tiny.TinyConfig):
        """resume: how much of it."""

        lr: float = 0.25
        resume: bool = False

    config_class = Config


def test_a_setting_that_the_loop_and_the_model_share(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MODELS, "OwnRate", OwnRate)
    run = tmp_path / "run"
    call = ["-m", "OwnRate", "-d", "tiny", "--data-path", str(data), "-o", str(run), "--epochs", "1", "-q"]
    assert train.main([*call, "--lr", "0.1"]) == ERROR
    assert "--lr: both the training loop and OwnRate have this setting: write it as" in capsys.readouterr().err
    assert train.main([*call, "--train.lr", "0.125", "--model.lr", "0.5", "--model.resume"]) == 0
    stored = json.loads((run / "result.json").read_text())["config"]
    assert (stored["train"]["lr"], stored["model"]["lr"], stored["model"]["resume"]) == (0.125, 0.5, True)
    assert json.loads((run / "metrics.jsonl").read_text())["lr"] == 0.125
    assert runs.load_run(run).config.model == OwnRate.Config(lr=0.5, resume=True)
    capsys.readouterr()
    assert train.main(["--resume", str(run), "--epochs", "2", "--model.lr", "0.1"]) == ERROR
    assert "--model.lr cannot change when a run is resumed: it was 0.5, is 0.1" in capsys.readouterr().err
    assert train.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--train.lr NUMBER" in text and "--model.lr NUMBER" in text
    assert "--model.resume / --no-model.resume how much of it" in text
    # the others keep the plain flag
    assert train.main(flags(data, tmp_path / "other", "-q")) == 0


def test_flags_of_a_model_that_a_file_names(data: Path, tmp_path: Path) -> None:
    file, run = tmp_path / "my.yaml", tmp_path / "run"
    name = f"{__name__}:OwnRate"  # one that no registry holds
    train_section = f"train: {{model: '{name}', dataset: tiny, data_path: {data}, epochs: 1}}"
    file.write_text(f"{train_section}\n{name}: {{embedding_dim: 3, model: {{lr: 1}}}}\n")
    call = ["--config", str(file), "-o", str(run), "-q", "--model.lr", "0.5"]
    assert train.main(call) == 0
    assert train.main(["--resume", str(run), "--epochs", "2", "--model.lr", "0.5"]) == 0
    stored = json.loads((run / "result.json").read_text())["config"]["model"]
    assert (stored["lr"], stored["embedding_dim"]) == (0.5, 3)


def test_old_run_folders(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of version 0.1 hold flat settings: in config.yaml, in result.json and in the checkpoints."""
    run = shutil.copytree(run_dir, tmp_path / "run")
    new = yaml.safe_load((run / "config.yaml").read_text())
    flat = {**new["train"], **new["model"]}
    (run / "config.yaml").write_text(yaml.safe_dump(flat))
    for name in ("best.safetensors", "last.safetensors"):
        tensors, metadata = checkpoint.load(run / name)
        checkpoint.save(run / name, tensors, metadata | {"config": flat})
    assert evaluate.main([str(run), "--json", str(tmp_path / "e.json")]) == 0
    stored = json.loads((run_dir / "result.json").read_text())
    assert json.loads((tmp_path / "e.json").read_text())["config"] == stored["config"]
    assert train.main(["--resume", str(run), "--epochs", "3"]) == 0
    assert json.loads((run / "result.json").read_text())["epochs_run"] == 3
    again = ["--config", str(tmp_path / "old.yaml"), "-o", str(tmp_path / "again"), "-q"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(flat))
    assert train.main(again) == 0
    assert json.loads((tmp_path / "again" / "result.json").read_text())["test"] == stored["test"]


# smore: all commands under one name


def test_smore_runs_the_commands(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smore.main(["evaluate", str(run_dir), "--json", str(tmp_path / "e.json")]) == 0
    assert json.loads((tmp_path / "e.json").read_text())["model"] == "LightGCN"
    assert smore.main(["recommend", str(run_dir), "--user", "30"]) == ERROR
    assert capsys.readouterr().err == "error: user: expected an id from 0 to 29, got 30\n"
    assert smore.main(["train", "--learning-rate", "1"]) == ERROR
    assert capsys.readouterr().err == "error: unknown flag --learning-rate; did you mean --lr?\n"
    assert smore.main(["trian"]) == ERROR
    assert capsys.readouterr().err == "error: unknown command trian; did you mean 'train'?\n"
    for call in ([], ["--help"]):
        assert smore.main(call) == 0
        out = capsys.readouterr().out
        assert all(f"  {name} " in out for name in smore.COMMANDS)
    assert smore.main(["train", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: smore train [OPTIONS]")
    assert smore.main(["--version"]) == 0


def test_smore_passes_exit_codes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: {"passed": False, "openmp": [], "warnings": [], "self_test": []})
    assert smore.main(["doctor"]) == 1

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "open_dataset", interrupt)
    assert smore.main(["train", "-o", str(tmp_path)]) == 130


def test_every_command_is_a_module_of_its_own() -> None:
    for name in smore.COMMANDS:
        module = import_module(f"smore_ext.{name}")
        if hasattr(module, "__path__"):
            module = import_module(f"smore_ext.{name}.__main__")
        assert module.main.__name__ == "main" and module.command.help


def test_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMORE_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        train.main(["-d", "baby"])


# evaluate


def test_evaluate_gives_the_numbers_of_the_run(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = json.loads((run_dir / "result.json").read_text())
    assert evaluate.main([str(run_dir), "--json", str(tmp_path / "mmrec.json")]) == 0
    assert "protocol mmrec (train items masked)" in capsys.readouterr().out
    assert evaluate.main([str(run_dir), "--protocol", "strict", "--json", str(tmp_path / "strict.json")]) == 0
    assert "protocol strict" in capsys.readouterr().out
    mmrec, strict = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("mmrec", "strict"))
    for name in ("test", "validation", "best_epoch", "data", "config"):
        assert mmrec[name] == stored[name]
    assert strict["validation"] == stored["validation"]
    assert strict["test"]["recall@20"] >= stored["test"]["recall@20"]  # fewer items compete
    assert strict["protocol"]["name"] == "strict"


def test_evaluate_seeds(seeds_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(seeds_dir), "--json", str(tmp_path / "all.json")]) == 0
    assert "±" in capsys.readouterr().out
    stored = json.loads((seeds_dir / "result.json").read_text())
    assert json.loads((tmp_path / "all.json").read_text())["seeds"] == [9, 10]
    assert json.loads((tmp_path / "all.json").read_text())["config"] == stored["config"]
    means = json.loads((tmp_path / "all.json").read_text())["test"]
    assert means["ndcg@10"]["mean"] == pytest.approx(stored["test"]["ndcg@10"]["mean"])


def test_evaluate_names_unfinished_seeds(seeds_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(seeds_dir, tmp_path / "run")
    (run / "seed-10" / "result.json").unlink()
    shutil.rmtree(run / "seed-9")
    assert evaluate.main([str(run), "--json", str(tmp_path / "all.json")]) == 0
    warning = "seed 10 is not finished, seed 9 is not started; these numbers are not those of the whole run"
    assert json.loads((tmp_path / "all.json").read_text())["warnings"] == [warning]
    assert warning in " ".join(capsys.readouterr().out.split())


def test_evaluate_tells_of_the_whole_run(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(flags(data, run, "-q", "--epochs", "4", "--lr", "1e-9")) == 0
    stored = json.loads((run / "result.json").read_text())
    assert stored["best_epoch"] < 3
    for name in ("result.json", None):  # without it the last checkpoint tells
        assert evaluate.main([str(run), "--json", str(tmp_path / "e.json")]) == 0
        found = json.loads((tmp_path / "e.json").read_text())
        assert (found["best_epoch"], found["epochs_run"]) == (stored["best_epoch"], 4)
        assert found["seconds"]["training"] == stored["seconds"]["training"]
        assert found["stopped"] == ("epochs" if name else None)
        assert found["settings_from"] == stored["settings_from"] == ["flags"]
        (run / "result.json").unlink(missing_ok=True)


def test_resuming_keeps_where_settings_came_from(tmp_path: Path) -> None:
    run, options = tmp_path / "run", "n_users=60,n_items=50,n_interactions=600"
    few = ["-m", "LightGCN", "--epochs", "1", "-q", "--dataset-options", options, "-o", str(run)]
    assert train.main(few) == 0
    assert train.main(["--resume", str(run), "--epochs", "2"]) == 0
    sources = json.loads((run / "result.json").read_text())["settings_from"]
    assert sources == ["preset synthetic (automatic for this data set)", "flags", "flags of --resume"]


def test_evaluate_checks_the_data(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tiny.write_dataset(tmp_path, n_users=29)
    assert evaluate.main([str(run_dir), "--data-path", str(other)]) == ERROR
    assert "not made on this data (tiny)" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path)]) == ERROR
    assert "it holds no run" in capsys.readouterr().err


def test_data_may_move(run_dir: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(run_dir), "--data-path", str(tiny.write_dataset(tmp_path))]) == 0


# recommend


def test_recommend_gives_unseen_items(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "top.json"
    for mask, hidden in (("all", ("train", "valid", "test")), ("train", ("train",))):
        call = [str(run_dir), "--user", "5", "--user", "2", "--k", "30", "--mask", mask, "--json", str(file)]
        assert recommend.main(call) == 0
        lists = json.loads(file.read_text())
        assert sorted(lists) == ["2", "5"]
        for user, items in lists.items():
            ids = [entry["item"] for entry in items]
            scores = [entry["score"] for entry in items]
            split_of = {i: split for split, found in tiny.interactions().items() for u, i in found if u == int(user)}
            seen = {item for item, split in split_of.items() if split in hidden}
            assert len(ids) == len(set(ids)) == 30 and not seen & set(ids)
            assert scores == sorted(scores, reverse=True)
            held_out = {entry["item"]: entry["held_out"] for entry in items if entry["held_out"]}
            assert held_out == {
                item: {"valid": "validation"}.get(split, split)
                for item, split in split_of.items()
                if item in ids and split not in hidden
            }
    assert "user 5 (seen items left out: train)" in capsys.readouterr().out


def test_recommend_stops_where_items_end(run_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "top.json"
    assert recommend.main([str(run_dir), "--user", "0", "--k", "1000", "--json", str(file)]) == 0
    assert len(json.loads(file.read_text())["0"]) == 40 - 7


def test_recommend_errors(run_dir: Path, seeds_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recommend.main([str(run_dir), "--user", "30"]) == ERROR
    assert "user: expected an id from 0 to 29, got 30" in capsys.readouterr().err
    assert recommend.main([str(seeds_dir), "--user", "3"]) == ERROR
    assert "holds several seeds: name one of" in capsys.readouterr().err
    assert recommend.main([str(seeds_dir / "seed-9"), "--user", "3"]) == 0


def test_recommend_from_an_unfinished_run_of_seeds(
    seeds_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(seeds_dir, tmp_path / "run")
    shutil.rmtree(run / "seed-9")
    assert recommend.main([str(run), "--user", "3"]) == ERROR
    assert f"seed 9 is not started): name the one to use: {run / 'seed-10'}" in capsys.readouterr().err


def test_tables_fit_80_columns(seeds_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(seeds_dir)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out


# errors of one line


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SafetensorError("header too large"), "header too large"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\nframe #0"), "can't allocate memory"),
        (RuntimeError("Storage size calculation overflowed with sizes=[9]"), "out of memory: Storage size"),
        (ValueError("too large\\nException raised from f.h:7\\nframe #0"), "error: too large\\n"),
        (NotImplementedError("Could not run 'op'\nwith arguments"), "Could not run 'op'"),
    ],
)
def test_other_errors_are_one_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runs, "open_dataset", fail)
    assert train.main([]) == ERROR
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    monkeypatch.setenv("SMORE_TRACEBACK", "1")
    with pytest.raises(type(error)):
        train.main([])


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "open_dataset", lambda _: [][0])
    with pytest.raises(IndexError):
        train.main([])


def test_doctor_checks_the_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: pytest.fail("the self-test ran"))
    assert doctor.main(["--json", str(tmp_path / "no" / "x.json")]) == ERROR
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "cannot write into folder" in err


def test_a_damaged_result_names_the_file(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(run_dir, tmp_path / "run")
    (run / "result.json").write_text((run / "result.json").read_text()[:50])
    assert train.main(["--resume", str(run)]) == ERROR
    assert f"{run / 'result.json'} is damaged" in capsys.readouterr().err
