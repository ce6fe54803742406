"""Each fault of a dataset folder gives one clear error: which file, what was expected, what came."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folder import N_ITEMS, ROWS, fails, write_features, write_graph, write_table

from smore_ext.data import Dataset, DatasetError, load_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_table(tmp_path / "toy")
    return tmp_path / "toy"


# --- the folder and the table ---


def test_missing_folder_and_files(tmp_path: Path) -> None:
    fails(tmp_path / "absent", str(tmp_path / "absent"), "expected a dataset folder, got nothing there")
    (tmp_path / "file").write_text("")
    fails(tmp_path / "file", "expected a dataset folder, got a file")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "expected an interaction table empty.inter", "got none")


@pytest.mark.parametrize(
    "header, missing",
    [("user\tthing\tx_label", "missing: itemID"), ("0\t1587\t0", "missing: userID, itemID, x_label")],
)
def test_missing_column(tmp_path: Path, header: str, missing: str) -> None:
    path = write_table(tmp_path / "toy", header=header)
    fails(path.parent, str(path), "expected the columns userID, itemID, x_label", header.split("\t")[1], missing)


def test_column_given_twice(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [(0, 0, 0, 0)], "userID\tuser_id\titemID\tx_label")
    fails(path.parent, str(path), "expected one userID column, got 'userID' and 'user_id'")


@pytest.mark.parametrize(
    "row, expected, got",
    [
        ((-1, 0, 0), "a user id (integer from 0 to 2147483646) in column userID", "'-1'"),
        ((0, -7, 0), "an item id (integer from 0 to 2147483646) in column itemID", "'-7'"),
        ((1.5, 0, 0), "a user id", "'1.5'"),
        (("A1X", 0, 0), "a user id", "'A1X'"),
        ((0, "", 0), "an item id", "nothing"),
        ((0, "NA", 0), "an item id", "'NA'"),
        ((0, "inf", 0), "an item id", "'inf'"),
        ((0, 2**40, 0), "an item id", f"'{2**40}'"),
        ((0, "9" * 30, 0), "an item id", f"'{'9' * 30}'"),
        ((0, "9" * 400, 0), "an item id", f"'{'9' * 70}"),
        ((0, "9" * 5000, 0), "an item id", f"'{'9' * 70}"),
        ((0, 0, 3), "a split label 0 (train), 1 (validation) or 2 (test) in column x_label", "'3'"),
        ((0, 0, -1), "a split label", "'-1'"),
        ((0, 0, 0.5), "a split label", "'0.5'"),
        ((0, 0, "train"), "a split label", "'train'"),
        ((0, 0), "a split label", "nothing"),
    ],
)
def test_bad_values_name_the_line(tmp_path: Path, row: tuple, expected: str, got: str) -> None:
    path = write_table(tmp_path / "toy", [*ROWS, row, (0, 2, 0)])
    fails(path.parent, f"{path}, line 11: expected {expected}", f"got {got}")


def test_line_number_counts_blank_lines(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [(0, 0, 0), (1, -2, 0)], end="\r\n\r\n")
    fails(path.parent, f"{path}, line 5:", "got '-2'")


def test_a_column_of_truth_values_is_no_id(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [("True", 0, 0), ("False", 1, 0)])
    fails(path.parent, "line 2: expected a user id", "got 'True'")


@pytest.mark.parametrize("place, line", [(0, 2), (3, 5)])
def test_too_many_fields(tmp_path: Path, place: int, line: int) -> None:
    rows = list(ROWS)
    rows[place] = (*rows[place], 9)
    path = write_table(tmp_path / "toy", rows)
    fails(path.parent, str(path), f"line {line}")


def test_empty_tables(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "toy.inter"
    path.write_bytes(b"")
    fails(path.parent, str(path), "expected a header line and interactions, got an empty file")
    write_table(path.parent, [])
    fails(path.parent, str(path), "expected at least one train interaction", "got an empty table")
    write_table(path.parent, [(0, 0, 1), (0, 1, 2)])
    fails(path.parent, str(path), "expected at least one train interaction", "got none")


def test_table_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    path = tmp_path / "toy" / "toy.inter"
    path.write_bytes(b"userID\titemID\tx_label\n\xff\xfe\t1\t0\n")
    fails(path.parent, str(path), "expected a UTF-8 table")


# --- features ---


@pytest.mark.parametrize("rows", [N_ITEMS - 1, 0])
def test_feature_rows_must_be_the_items(folder: Path, rows: int) -> None:
    write_features(folder, rows=rows)
    fails(folder, "image_feat.npy", "expected 5 feature rows", "largest item id + 1", f"got {rows}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_feature_values_must_be_finite(folder: Path, value: float, dtype: type) -> None:
    write_features(folder, "text")
    values = write_features(folder, "image", dtype=dtype)
    values[3, 2] = value
    np.save(folder / "image_feat.npy", values)
    fails(folder, "image_feat.npy (image)", "expected finite", f"got {value} in row 3, column 2")


def test_float64_too_large_for_float32(folder: Path) -> None:
    values = write_features(folder, dtype=np.float64)
    values[1, 0] = 1e300
    np.save(folder / "image_feat.npy", values)
    fails(folder, "expected finite float32 features, got 1e+300 in row 1, column 0")


def test_nan_is_found_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smore_ext.data.dataset._BLOCK_BYTES", 64)  # 2 rows of 8
    for row in range(7):
        features = torch.zeros(7, 8)
        features[row, 5] = float("nan")
        with pytest.raises(DatasetError, match=f"row {row}, column 5"):
            Dataset.from_pairs("x", 1, 7, ([0], [0]), ([], []), ([], []), {"m": features})


@pytest.mark.parametrize("dtype", [bool, np.complex64, "U3", "V4", "M8[s]"])
def test_feature_dtype(folder: Path, dtype: object) -> None:
    np.save(folder / "image_feat.npy", np.zeros((N_ITEMS, 3), dtype=dtype))
    fails(folder, "image_feat.npy", "expected float32 or float64", f"got dtype {np.dtype(dtype)}")


@pytest.mark.parametrize("shape", [(N_ITEMS,), (N_ITEMS, 2, 2), (N_ITEMS, 0), ()])
def test_feature_shape(folder: Path, shape: tuple) -> None:
    np.save(folder / "image_feat.npy", np.zeros(shape, dtype=np.float32))
    fails(folder, "image_feat.npy", "expected features of shape [items, width >= 1]", f"got shape {shape}")


def test_pickles_are_not_read(folder: Path) -> None:
    path = folder / "image_feat.npy"
    np.save(path, np.array([{"a": 1}] * N_ITEMS), allow_pickle=True)
    fails(folder, str(path), "expected a float32 or float64 array, got pickled Python objects")
    path.write_bytes(pickle.dumps(np.zeros((N_ITEMS, 3), dtype=np.float32)))
    fails(folder, str(path), "expected a .npy array", "got a pickle")


def test_damaged_npy(folder: Path) -> None:
    path = folder / "image_feat.npy"
    write_features(folder)
    whole = path.read_bytes()
    for length in (0, 4, 7, 30, 127, 130, len(whole) - 1):
        path.write_bytes(whole[:length])
        fails(folder, str(path), ".npy array")
    path.write_bytes(whole[:-1])
    fails(folder, "expected a complete .npy array", f"got {len(whole) - 1} bytes")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    fails(folder, "expected a .npy array", "b'version '")
    rng = np.random.default_rng(0)
    for _ in range(200):  # whatever the header has become, the error is ours
        damaged = bytearray(whole)
        for place in rng.integers(6, 128, 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            load_dataset(folder)
        except DatasetError as error:
            assert str(path) in str(error)


def test_modality_name(folder: Path) -> None:
    write_features(folder, "image.v2")
    fails(folder, "image.v2_feat.npy", "expected a modality name of letters", "got 'image.v2'")


# --- graphs ---


@pytest.mark.parametrize("key", ["row", "col", "weight", "shape"])
def test_graph_key_missing(folder: Path, key: str) -> None:
    path = write_graph(folder, drop=[key])
    fails(folder, str(path), "expected the arrays row, col, weight, shape", f"missing: {key}")


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({"shape": np.array([4, 5])}, ("expected shape [5, 5]", "got [4, 5]")),
        ({"shape": np.array(5)}, ("expected shape [5, 5]", "got 5")),
        ({"row": np.array([0, 0, 2, 5])}, ("expected row indices from 0 to 4", "got 5 at position 3")),
        ({"col": np.array([0, -1, 2, 4])}, ("expected col indices from 0 to 4", "got -1 at position 1")),
        ({"col": np.array([0.0, 1.0, 2.0, 4.0])}, ("expected col to be a vector of 4 integers", "float64")),
        ({"col": np.array([0, 1])}, ("expected col to be a vector of 4 integers", "(2,)")),
        ({"weight": np.ones(3, dtype=np.float32)}, ("expected weight to be a vector of 4 numbers", "(3,)")),
        ({"weight": np.ones(4, dtype=np.int64)}, ("expected weight to be a vector of 4 numbers", "int64")),
        ({"weight": np.array([1, 2, np.nan, 1])}, ("expected finite weights", "got nan at position 2")),
        ({"weight": np.array([1, 2, 1, 1e300])}, ("expected finite weights", "got inf at position 3")),
        ({"row": np.zeros((2, 2), dtype=int)}, ("expected row to be a vector", "(2, 2)")),
        ({"row": np.array([{}] * 4)}, ("expected an .npz archive without pickles",)),
    ],
)
def test_graph_faults(folder: Path, changes: dict, parts: tuple[str, ...]) -> None:
    write_features(folder)
    path = write_graph(folder, **changes)
    fails(folder, str(path), *parts)


def test_damaged_npz(folder: Path) -> None:
    path = write_graph(folder)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        fails(folder, str(path), "expected an .npz archive")
    damaged = bytearray(whole)
    damaged[150] ^= 0xFF  # inside the first array: the archive's checksum fails
    path.write_bytes(bytes(damaged))
    fails(folder, str(path), "expected an .npz archive")


@pytest.mark.parametrize("column", [0, 1])
def test_raw_ids_are_refused_before_allocation(tmp_path: Path, column: int) -> None:
    row = [0, 0, 0]
    row[column] = 900_000_000
    path = write_table(tmp_path / "toy", [*ROWS, tuple(row)])
    distinct = len({entry[column] for entry in ROWS}) + 1
    fails(path.parent, str(path), f"got 900000000 as the largest of {distinct} distinct ids")


def test_the_named_table_must_be_there(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected an interaction table other.inter, got toy.inter"):
        load_dataset(folder, "other")
