"""The commands on data that has raw ids, no labels, or arrays that the model does not read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from smore_ext import evaluate, export, recommend, runs, train
from smore_ext.data import Dataset, DatasetError, ReadOptions, load_dataset
from smore_ext.data.readers import READERS, read_dataset
from smore_ext.runs import RunFolder
from smore_ext.training import checkpoint

ERROR = 2
pytestmark = pytest.mark.usefixtures("command_surroundings")


def small(run: Path, *more: str, model: str = "LightGCN") -> list[str]:
    return ["-m", model, "--epochs", "1", "--embedding-dim", "4", "-q", "-o", str(run), *more]


def user_id(user: int) -> str:
    return f"[u/{user:02}]"


def item_id(item: int) -> str:
    return f"B{item:04}"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The tiny data set with texts as ids, without labels."""
    lines = ["user_id,item_id,timestamp"]
    for n, (user, item) in enumerate(pair for part in tiny.interactions().values() for pair in part):
        lines.append(f"{user_id(user)},{item_id(item)},{n}")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "raw.inter").write_text("\n".join(lines) + "\n")
    return tmp_path / "raw"


def test_raw_ids_come_back(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(small(run, "--data-path", str(raw), "--ids", "raw", "--split", "leave_one_out")) == 0
    out = capsys.readouterr().out
    assert "split: leave_one_out, order time" in out and "columns separated by ','" in out
    result = json.loads((run / "result.json").read_text())
    assert result["data"]["split"] == {"rule": "leave_one_out", "order": "time", "seed": 0}
    assert result["data"]["ids"] == "raw"
    kept = json.loads((run / "ids.json").read_text())
    data = load_dataset(raw, options=ReadOptions(ids="raw", split="leave_one_out"))
    assert kept == {"users": list(data.user_ids or ()), "items": list(data.item_ids or ())}

    assert evaluate.main([str(run)]) == 0
    capsys.readouterr()
    wanted = user_id(7)
    assert recommend.main([str(run), "--user", wanted, "--k", "5", "--json", str(tmp_path / "lists.json")]) == 0
    assert wanted in capsys.readouterr().out
    lists = json.loads((tmp_path / "lists.json").read_text())
    assert list(lists) == [wanted] and len(lists[wanted]) == 5
    seen = {data.item_ids[item] for item in data.train.items[data.train.users == data.user_number(wanted)].tolist()}
    assert all(entry["item"] in kept["items"] and entry["item"] not in seen for entry in lists[wanted])
    assert recommend.main([str(run), "--user", "7"]) == ERROR
    assert "user: expected one of the 30 raw ids of the data, got '7'" in capsys.readouterr().err

    known = [data.item_ids[item] for item in data.train.items[:2].tolist()]
    new = [word for item in known for word in ("--history", item)]
    assert recommend.main([str(run), *new, "--k", "4", "--json", str(tmp_path / "new.json")]) == 0
    assert "somebody new (seen items left out: all)" in capsys.readouterr().out
    offered = [entry["item"] for entry in json.loads((tmp_path / "new.json").read_text())["somebody new"]]
    assert len(offered) == 4 and not set(offered) & set(known) and set(offered) <= set(kept["items"])
    assert recommend.main([str(run), "--history", "no such item"]) == ERROR
    assert "got 'no such item'" in capsys.readouterr().err
    assert recommend.main([str(run), *new, "--user", wanted]) == ERROR
    assert "--history ID for somebody new" in capsys.readouterr().err

    assert export.main([str(run), "-o", str(tmp_path / "out.safetensors")]) == 0
    assert export.main([str(run), "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out.ids.json").read_text()) == kept
    assert json.loads((tmp_path / "out" / "ids.json").read_text()) == kept
    vectors = load_file(tmp_path / "out.safetensors")
    scores = vectors["users"][kept["users"].index(wanted)] @ vectors["items"].T
    first = lists[wanted][0]
    assert scores[kept["items"].index(first["item"])].item() == pytest.approx(first["score"])
    RunFolder(run).delete()
    assert not (run / "ids.json").exists()


def test_numbers_as_ids_keep_no_list(tmp_path: Path) -> None:
    data = tiny.write_dataset(tmp_path / "data")
    assert train.main(small(tmp_path / "run", "-d", "tiny", "--data-path", str(data))) == 0
    assert not (tmp_path / "run" / "ids.json").exists()
    assert runs.load_run(tmp_path / "run").recommend([3], 4) == runs.load_run(tmp_path / "run").recommend(["3"], 4)


def test_a_random_split_is_named_with_its_seed(raw: Path, tmp_path: Path) -> None:
    flags = ["--data-path", str(raw), "--ids", "raw", "--split", "random", "--split-ratios", "0.6,0.2,0.2"]
    for seed in (0, 5):
        assert train.main(small(tmp_path / f"run{seed}", *flags, "--split-seed", str(seed))) == 0
    told = [json.loads((tmp_path / f"run{seed}" / "result.json").read_text())["data"] for seed in (0, 5)]
    assert told[1]["split"] == {"rule": "random", "ratios": [0.6, 0.2, 0.2], "seed": 5}
    assert told[0]["fingerprint"] != told[1]["fingerprint"]
    assert told[0]["interactions"] == told[1]["interactions"] == {"train": 150, "valid": 30, "test": 30}


def test_what_the_split_depends_on_cannot_change_on_resume(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(small(run, "--data-path", str(raw), "--ids", "raw", "--split", "random")) == 0
    assert train.main(["--resume", str(run), "--epochs", "2", "-q"]) == 0
    assert train.main(["--resume", str(run), "--epochs", "3", "--split-seed", "1"]) == ERROR
    assert "--split-seed cannot change when a run is resumed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--split", "random"], "split: expected the default, it is for data that --data-path names"),
        (["--ids", "raw"], "ids: expected the default"),
        (["--split", "randm"], "--split: expected 'label', 'random'"),
        (["--split-ratios", "0.5,0.5"], "--split-ratios: expected"),
        (["--split-ratios", "0.5,0.5,0.5"], "--split-ratios: expected three shares of sum 1"),
        (["--field-separator", "::"], "--field-separator: expected one character"),
        (["--column-names", "rating=stars"], "--column-names: expected names of user, item, label, time"),
        (["--dataset-options", "modalitie=3"], "unknown option 'modalitie'; did you mean 'modalities'?"),
    ],
)
def test_options_that_do_not_fit(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(small(tmp_path / "run", *flags)) == ERROR
    assert message in capsys.readouterr().err


# --- what is read ---


def test_arrays_that_the_model_does_not_read_stop_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_dataset(tmp_path / "data", features=True)
    flags = ["-d", "tiny", "--data-path", str(data)]
    (data / "tiny" / "audio_feat.npy").write_bytes(b"damaged")
    np.save(data / "tiny" / "user_feat.npy", np.ones((30, 4), dtype=np.float32))
    for model in ("LightGCN", "EASE", "Popularity"):
        more = ["--embedding-dim", "4"] if model == "LightGCN" else []
        assert train.main(["-m", model, "--epochs", "1", "-q", "-o", str(tmp_path / model), *flags, *more]) == 0
        assert json.loads((tmp_path / model / "result.json").read_text())["data"]["features"] == {}
    assert train.main(small(tmp_path / "two", *flags, "--modalities", "image,text", "--knn-k", "3", model="SMORE")) == 0
    assert train.main(small(tmp_path / "all", *flags, model="SMORE")) == ERROR
    assert "audio_feat.npy: expected a .npy array" in capsys.readouterr().err
    assert train.main(small(tmp_path / "far", *flags, "--modalities", "imag", model="SMORE")) == ERROR
    assert (
        "expected imag_feat.npy, got features of audio, image, text; did you mean 'image'?" in capsys.readouterr().err
    )
    knn = ["--modalities", "image", "--knn-k", "image=3,txt=4"]
    assert train.main(small(tmp_path / "knn", *flags, *knn, model="SMORE")) == ERROR
    assert "knn_k must name every modality (image), got image, txt" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["SMORE", "LATTICE"])
def test_arrays_of_other_names_are_named(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.write_dataset(tmp_path / "data", features=True)
    for name in ("image", "text"):
        (data / "tiny" / f"{name}_feat.npy").rename(data / "tiny" / f"{name}.npy")
    assert train.main(small(tmp_path / "run", "-d", "tiny", "--data-path", str(data), model=model)) == ERROR
    err = capsys.readouterr().err
    assert "has none; image.npy, text.npy lie in" in err and "features are called <modality>_feat.npy" in err


def test_runs_of_earlier_versions_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those read all features whatever the model: their fingerprint covers them."""
    data, run = tiny.write_dataset(tmp_path / "data", features=True), tmp_path / "run"
    assert train.main(small(run, "-d", "tiny", "--data-path", str(data))) == 0
    whole = load_dataset(data / "tiny")
    (run / "result.json").unlink()
    for path in (run / "best.safetensors", run / "last.safetensors"):
        tensors, metadata = checkpoint.load(path)
        assert metadata["data"]["fingerprint"] != whole.fingerprint
        metadata["data"]["fingerprint"] = whole.fingerprint
        checkpoint.save(path, tensors, metadata)
    assert runs.load_run(run).dataset.fingerprint == whole.fingerprint
    assert train.main(["--resume", str(run), "--epochs", "2", "-q"]) == 0
    (data / "tiny" / "image_feat.npy").unlink()
    assert evaluate.main([str(run)]) == ERROR
    assert "not made on this data" in capsys.readouterr().err


def test_readers_of_two_arguments_take_no_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "plain", lambda folder, name: tiny.tiny_dataset())
    assert read_dataset("x", tmp_path, "plain", ReadOptions(features=())).name == "tiny"
    with pytest.raises(DatasetError, match="ids: expected the default, as the reader 'plain' takes no options"):
        read_dataset("x", tmp_path, "plain", ReadOptions(ids="raw"))
    given: list[ReadOptions] = []

    def third(folder: Path, name: str, options: ReadOptions) -> Dataset:
        given.append(options)
        return tiny.tiny_dataset()

    monkeypatch.setitem(READERS, "third", third)
    read_dataset("x", tmp_path, "third", ReadOptions(ids="raw"))
    assert given == [ReadOptions(ids="raw")]


# --- users without negatives, dropped rows ---


@pytest.mark.parametrize("model", ["LightGCN", "LATTICE"])
def test_users_who_saw_every_item_are_skipped_and_counted(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny.write_dataset(tmp_path / "data", features=True)
    table = data / "tiny" / "tiny.inter"
    items = sorted({item for _, item in tiny.interactions()["train"]})
    table.write_text(table.read_text() + "".join(f"30\t{item}\t0\n" for item in items))
    assert train.main(small(tmp_path / "run", "-d", "tiny", "--data-path", str(data), model=model)) == 0
    assert "users who saw every item 1" in capsys.readouterr().out
    assert recommend.main([str(tmp_path / "run"), "--user", "30", "--json", str(tmp_path / "r.json")]) == 0
    shown = [entry["item"] for entry in json.loads((tmp_path / "r.json").read_text())["30"]]
    assert not set(shown) & set(items) and {item for part in tiny.interactions().values() for _, item in part} - set(
        items
    ) <= set(shown)


def test_the_pairs_that_are_trained_on() -> None:
    none: tuple[list[int], list[int]] = ([], [])
    data = Dataset.from_pairs("x", 3, 4, ([0, 1, 0, 2, 0], [0, 1, 1, 3, 3]), none, none)
    with torch.inference_mode():  # what is remembered serves training too
        assert not any(column.is_inference() for column in data.trained_on)
    assert data.report["users_who_saw_every_item"] == 1
    assert [column.tolist() for column in data.trained_on] == [[1, 2], [1, 3]]
    assert torch.equal(data.train.users, torch.tensor([0, 1, 0, 2, 0]))
    plain = tiny.tiny_dataset()
    assert plain.trained_on is plain.train


def test_nobody_has_an_item_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n0\t1\t0\n0\t2\t1\n")
    assert train.main(small(tmp_path / "run", "--data-path", str(tmp_path))) == ERROR
    assert "expected an item to draw as a negative, got users who saw them all" in capsys.readouterr().err


def test_why_there_is_no_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n1\t1\t1\n2\t1\t1\n")
    assert train.main(small(tmp_path / "run", "--data-path", str(tmp_path))) == ERROR
    assert (
        "got none that counts: all 2 were dropped, as their users have no train interaction" in capsys.readouterr().err
    )
