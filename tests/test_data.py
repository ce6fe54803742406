"""Dataset folders and data in memory: what is read, what is counted, what is dropped."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folder import N_ITEMS, N_USERS, ROWS, dense, fails, pairs, write_features, write_graph, write_table

from smore_ext.data import Dataset, DatasetError, Pairs, load_dataset
from smore_ext.graph import Graph


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_table(tmp_path / "toy")
    return tmp_path / "toy"


# --- what is read ---


def test_reads_a_folder(folder: Path) -> None:
    image = write_features(folder, "image")
    audio = write_features(folder, "audio", width=7, dtype=np.float64)
    write_graph(folder)
    data = load_dataset(folder)

    assert (data.name, data.n_users, data.n_items) == ("toy", N_USERS, N_ITEMS)
    assert pairs(data.train) == [(0, 0), (0, 1), (1, 1), (2, 3), (2, 0)]  # in file order
    assert pairs(data.valid) == [(0, 3)]
    assert pairs(data.test) == [(1, 0)]
    assert all(column.dtype == torch.int64 for split in (data.train, data.valid, data.test) for column in split)
    assert list(data.features) == ["audio", "image"]
    assert all(f.dtype == torch.float32 and f.is_contiguous() for f in data.features.values())
    np.testing.assert_array_equal(data.features["image"].numpy(), image)
    np.testing.assert_array_equal(data.features["audio"].numpy(), audio.astype(np.float32))
    expected = torch.zeros(N_ITEMS, N_ITEMS)
    expected[0, 1], expected[0, 0], expected[2, 3], expected[4, 0] = 0.25, 1.0, 0.5, 2.0
    assert torch.equal(dense(data.graphs["image"]), expected)
    assert data.report == {
        "train_duplicates": 0,
        "valid_duplicates": 0,
        "test_duplicates": 0,
        "valid_pairs_dropped": 1,
        "test_pairs_dropped": 1,
        "users_without_train": 1,
        "items_without_train": 2,
        "users_who_saw_every_item": 0,
    }
    assert (data.split, data.notes, data.user_ids, data.item_ids) == ({"rule": "label"}, (), None, None)
    assert "4 users" in repr(data) and "image 3" in repr(data)


def test_seen_and_candidates(folder: Path) -> None:
    data = load_dataset(folder)
    expected = torch.zeros(N_USERS, N_ITEMS)
    expected[data.train.users, data.train.items] = 1.0
    assert torch.equal(dense(data.seen), expected)
    assert data.seen is data.seen
    assert data.candidates.tolist() == [0, 1, 3]
    assert data.candidates.dtype == torch.int64


@pytest.mark.parametrize(
    "header",
    [
        "userID\titemID\tx_label",
        "user_id:token\titem_id:token\tx_label:float",
        "USERID\tItemId\txlabel",
        " user_id \titem_id:token\tx_label:token",
    ],
)
def test_header_styles(tmp_path: Path, header: str) -> None:
    write_table(tmp_path / "toy", header=header)
    assert pairs(load_dataset(tmp_path / "toy").valid) == [(0, 3)]


def test_other_columns_in_any_order_and_windows_line_ends(tmp_path: Path) -> None:
    rows = [(label, "3.5", item, "1300000000", user) for user, item, label in ROWS]
    header = "x_label\trating\titemID\ttimestamp\tuserID"
    write_table(tmp_path / "unix", rows, header)
    write_table(tmp_path / "windows", rows, header, end="\r\n")
    unix, windows = load_dataset(tmp_path / "unix"), load_dataset(tmp_path / "windows")
    assert pairs(windows.train) == [(0, 0), (0, 1), (1, 1), (2, 3), (2, 0)]
    assert windows.fingerprint == unix.fingerprint


def test_byte_order_mark_blank_lines_and_integral_floats(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [(f"{u}.0", i, f"{label}.0") for u, i, label in ROWS])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\n\n"))
    assert len(load_dataset(tmp_path / "toy").train.users) == 5


def test_table_names(tmp_path: Path) -> None:
    toy = tmp_path / "toy"
    write_table(toy, name="inter.csv", sep=",")
    assert len(load_dataset(toy).train.users) == 5
    write_table(toy, ROWS[:4], name="other.inter")
    assert len(load_dataset(toy).train.users) == 4
    write_table(toy, name="third.inter")
    fails(toy, str(toy), "expected one .inter file or toy.inter, got 2", "other.inter, third.inter")
    write_table(toy, ROWS[:3])
    assert len(load_dataset(toy).train.users) == 3


@pytest.mark.filterwarnings("error")
def test_features_are_mapped_and_the_file_is_never_written(folder: Path) -> None:
    image = write_features(folder)
    tensor = load_dataset(folder).features["image"]
    tensor.zero_()  # writable, and without torch's warning about read-only memory
    np.testing.assert_array_equal(np.load(folder / "image_feat.npy"), image)
    np.testing.assert_array_equal(load_dataset(folder).features["image"].numpy(), image)


def test_mapped_features_are_not_copied(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    write_table(folder, [(0, 0, 0), (0, 3999, 0)])
    np.save(folder / "image_feat.npy", np.ones((4000, 2048), dtype=np.float32))  # 32 MB
    tracemalloc.start()
    data = load_dataset(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.features["image"].shape == (4000, 2048)
    assert peak < 16e6


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layout", ["fortran", "big-endian", "float64"])
def test_feature_layouts(folder: Path, layout: str) -> None:
    image = write_features(folder)
    stored = {
        "fortran": np.asfortranarray(image),
        "big-endian": image.astype(">f4"),
        "float64": image.astype("f8"),
    }
    np.save(folder / "image_feat.npy", stored[layout])
    tensor = load_dataset(folder).features["image"]
    assert tensor.is_contiguous()
    np.testing.assert_array_equal(tensor.numpy(), image)


def test_other_files_in_the_folder_are_left_alone(folder: Path) -> None:
    (folder / "user_graph_dict.npy").write_bytes(pickle.dumps({1: 2}))
    (folder / "baby.csv").write_text("x")
    assert load_dataset(folder).features == {}


def test_symlinked_folder_has_the_name_of_its_target(folder: Path, tmp_path: Path) -> None:
    os.symlink(folder, tmp_path / "link")
    assert load_dataset(tmp_path / "link").name == "toy"


def test_graph_without_features_is_kept_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_graph(folder, "text")
    assert list(load_dataset(folder).graphs) == ["text"]
    assert "no text_feat.npy beside it" in caplog.text


def test_graph_edges_given_twice_are_summed(folder: Path) -> None:
    write_graph(folder, row=np.array([0, 0]), col=np.array([1, 1]), weight=np.array([0.5, 0.25]))
    assert dense(load_dataset(folder).graphs["image"])[0, 1] == 0.75


# --- fingerprint ---


def test_fingerprint_changes_with_content_only(folder: Path, tmp_path: Path) -> None:
    write_features(folder)
    write_graph(folder)
    first = load_dataset(folder).fingerprint
    assert len(first) == 64
    assert load_dataset(folder).fingerprint == first
    folder.rename(tmp_path / "renamed")
    folder = tmp_path / "renamed"
    assert load_dataset(folder).fingerprint == first

    write_graph(folder, weight=np.array([0.25, 1.0, 0.5, 3.0], dtype=np.float32))
    other_graph = load_dataset(folder).fingerprint
    values = np.load(folder / "image_feat.npy")
    values[1, 1] += 1
    np.save(folder / "image_feat.npy", values)
    other_feature = load_dataset(folder).fingerprint
    (folder / "image_feat.npy").rename(folder / "text_feat.npy")
    other_modality = load_dataset(folder).fingerprint
    write_table(folder, ROWS[::-1], name="toy.inter")
    other_order = load_dataset(folder).fingerprint
    assert len({first, other_graph, other_feature, other_modality, other_order}) == 5


# --- duplicates and cold users ---


def test_duplicates_within_a_split_count_once(tmp_path: Path) -> None:
    write_table(tmp_path / "toy", [*ROWS, (0, 0, 0), (0, 0, 0), (0, 3, 1)])
    data = load_dataset(tmp_path / "toy")
    assert pairs(data.train) == [(0, 0), (0, 1), (1, 1), (2, 3), (2, 0)]
    assert data.report["train_duplicates"] == 2
    assert data.report["valid_duplicates"] == 1
    assert data.seen.n_edges == 5


@pytest.mark.parametrize("label, split", [(1, "valid"), (2, "test")])
def test_duplicates_across_splits(tmp_path: Path, label: int, split: str) -> None:
    path = write_table(tmp_path / "toy", [*ROWS, (2, 3, 0), (2, 3, label)])
    fails(path.parent, str(path), f"in both train and {split}", "user 2, item 3", "lines 5 and 12")


def test_duplicates_across_valid_and_test(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [*ROWS, (0, 3, 2)])
    fails(path.parent, "in both valid and test", "user 0, item 3")


# --- from_pairs ---


def test_from_pairs_takes_tensors_arrays_and_lists() -> None:
    train = ([0, 1, 1], [0, 1, 2])
    as_arrays = tuple(np.array(column, dtype=np.int32) for column in train)
    as_tensors = Pairs(*(torch.tensor(column) for column in train))
    none = ([], [])
    made = [Dataset.from_pairs("x", 2, 3, given, none, none) for given in (train, as_arrays, as_tensors)]
    assert len({data.fingerprint for data in made}) == 1
    assert pairs(made[0].train) == [(0, 0), (1, 1), (1, 2)]
    assert pairs(made[0].valid) == []


def test_from_pairs_does_not_copy_float32_features() -> None:
    features = torch.rand(3, 4)
    data = Dataset.from_pairs("x", 1, 3, ([0], [0]), ([], []), ([], []), {"m": features})
    assert data.features["m"].data_ptr() == features.data_ptr()


@pytest.mark.filterwarnings("error")
def test_from_pairs_takes_read_only_features() -> None:
    features = np.ones((3, 4), dtype=np.float32)
    features.flags.writeable = False
    data = Dataset.from_pairs("x", 1, 3, ([0], [0]), ([], []), ([], []), {"m": features})
    assert data.features["m"].sum() == 12


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_users": 0}, "dataset 'x': expected n_users between 1 and 2147483647, got 0"),
        ({"n_items": 2**40}, "expected n_items between 1 and"),
        ({"train": ([0, 2], [0, 1])}, "train users: expected ids from 0 to 1, got 2 at position 1"),
        ({"train": ([0, -1], [0, 1])}, "train users: expected ids from 0 to 1, got -1 at position 1"),
        ({"test": ([0], [3])}, "test items: expected ids from 0 to 2, got 3 at position 0"),
        ({"train": ([0, 1], [0])}, "train: expected as many users as items, got 2 and 1"),
        ({"train": ([0.5], [0])}, "train users: expected a vector of integers, got float64 of shape (1,)"),
        ({"train": ([[0]], [[0]])}, "train users: expected a vector of integers"),
        ({"train": ([], [])}, "expected at least one train interaction"),
        ({"valid": ([0], [0])}, "in both train and valid, for example user 0, item 0"),
        ({"features": {"m": torch.zeros(2, 4)}}, "features (m): expected 3 feature rows"),
        ({"features": {"": torch.zeros(3, 4)}}, "expected a modality name"),
        ({"graphs": {"m": torch.zeros(3, 3)}}, "graphs (m): expected a Graph, got Tensor"),
    ],
)
def test_from_pairs_errors(changes: dict, message: str) -> None:
    arguments = {
        "n_users": 2,
        "n_items": 3,
        "train": ([0], [0]),
        "valid": ([], []),
        "test": ([], []),
    } | changes
    with pytest.raises(DatasetError) as caught:
        Dataset.from_pairs("x", **arguments)
    assert message in str(caught.value)


def test_from_pairs_checks_graphs() -> None:
    good = {"n_users": 2, "n_items": 3, "train": ([0], [0]), "valid": ([], []), "test": ([], [])}
    index = torch.tensor([0, 1])
    with pytest.raises(DatasetError, match=r"graphs \(m\): expected a graph of shape \(3, 3\).*got \(2, 3\)"):
        Dataset.from_pairs("x", **good, graphs={"m": Graph.from_edges(index, index, None, (2, 3))})
    weight = torch.tensor([1.0, float("inf")])
    with pytest.raises(DatasetError, match="expected finite edge weights"):
        Dataset.from_pairs("x", **good, graphs={"m": Graph.from_edges(index, index, weight, (3, 3))})


# --- real data ---

REAL_DATA = Path(__file__).parents[1].parent / "shared" / "data"
REAL = {  # users, items, train, valid, test, widths
    "lfm2k": (1_858, 1_425, 44_327, 4_799, 7_219, {"audio": 128, "speech": 512, "text": 384}),
    "baby": (19_445, 7_050, 118_551, 20_559, 21_682, {"image": 128, "text": 128}),
    "clothing": (39_387, 23_033, None, None, None, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name: str) -> None:
    if not (REAL_DATA / name).is_dir():
        pytest.skip("the real data sets are not part of the repository: ../shared/data is absent")
    n_users, n_items, train, valid, test, widths = REAL[name]
    data = load_dataset(REAL_DATA / name)
    assert (data.name, data.n_users, data.n_items) == (name, n_users, n_items)
    assert {modality: f.shape[1] for modality, f in data.features.items()} == widths
    if train is not None:
        assert [len(split.users) for split in (data.train, data.valid, data.test)] == [train, valid, test]
    assert not any(count for key, count in data.report.items() if "duplicates" in key)
    assert list(data.graphs) == (["image", "text"] if name == "baby" else [])
    for graph in data.graphs.values():
        assert graph.n_edges == 10 * n_items
