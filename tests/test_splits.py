"""Splits made of tables without labels, and ids that are no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_folder import fails, pairs, write_features

from smore_ext.data import Dataset, DatasetError, ReadOptions, load_dataset
from smore_ext.data.splits import split_labels

RNG = np.random.default_rng(0)
TABLE = [
    (user, item, 1000 + n)
    for n, (user, item) in enumerate(RNG.permutation([(u, i) for u in range(20) for i in range(30)])[:300].tolist())
]


def write(folder: Path, rows=TABLE, header="user_id\titem_id\ttimestamp", name="toy.inter") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return folder


def load(folder: Path, **options: object) -> Dataset:
    return load_dataset(folder, options=ReadOptions(**options))


def parts(data: Dataset) -> list[set[tuple[int, int]]]:
    return [set(pairs(split)) for split in (data.train, data.valid, data.test)]


def test_a_table_without_labels_names_the_way_out(tmp_path: Path) -> None:
    fails(write(tmp_path / "toy"), "missing: x_label", "--split random")


@pytest.mark.parametrize("rule", ["random", "user_time", "time", "leave_one_out"])
def test_every_pair_is_in_one_split(tmp_path: Path, rule: str) -> None:
    train, valid, test = parts(load(write(tmp_path / "toy"), split=rule))
    assert len(train) + len(valid) + len(test) == len(TABLE)
    assert train | valid | test == {(user, item) for user, item, _ in TABLE}


def test_random_by_user_follows_its_seed_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy")
    data = load(folder, split="random", split_ratios=(0.6, 0.2, 0.2), split_seed=3)
    assert data.split == {"rule": "random", "ratios": [0.6, 0.2, 0.2], "seed": 3}
    assert data.fingerprint == load(folder, split="random", split_ratios=(0.6, 0.2, 0.2), split_seed=3).fingerprint
    assert data.fingerprint != load(folder, split="random", split_ratios=(0.6, 0.2, 0.2), split_seed=4).fingerprint
    counts = np.bincount([user for user, _, _ in TABLE], minlength=20)
    for split in (data.valid, data.test):
        got = np.bincount(split.users.numpy(), minlength=20)
        np.testing.assert_array_equal(
            got, np.floor(counts * 0.4 / 2) if split is data.valid else np.ceil(np.floor(counts * 0.4) / 2)
        )


def test_the_counts_of_the_fields_folders(tmp_path: Path) -> None:
    """Of n interactions 20 % rounded down are held out, the smaller half for validation; of fewer than ten, two."""
    rows = [(n, item) for n in range(5, 60) for item in range(n)]
    data = load(write(tmp_path / "toy", rows, "userID\titemID"), split="random")
    for n in range(5, 60):
        held = n // 5 if n >= 10 else 2
        got = [int((split.users == n).sum()) for split in (data.train, data.valid, data.test)]
        assert got == [n - held, held // 2, held - held // 2]


@pytest.mark.parametrize("name", ["baby", "clothing"])
def test_every_user_of_real_folders_has_as_many_held_out(name: str, shared_data: Path) -> None:
    data = load_dataset(shared_data / name)
    sizes = [np.bincount(split.users.numpy(), minlength=data.n_users) for split in (data.train, data.valid, data.test)]
    users = np.repeat(np.arange(data.n_users), sum(sizes))
    labels = split_labels(users, None, ReadOptions(split="random"))
    for label, wanted in enumerate(sizes):
        np.testing.assert_array_equal(np.bincount(users[labels == label], minlength=data.n_users), wanted)


@pytest.mark.parametrize("rule", ["leave_one_out", "user_time"])
def test_equal_times_favour_no_item(tmp_path: Path, rule: str) -> None:
    """As whole days are: a table ordered by item must not give a user's last items away."""
    rows = [(user, item, 86_400 * (item % 2)) for user in range(400) for item in range(20)]
    data = load(write(tmp_path / "toy", rows), split=rule)
    held = np.array([item for part in parts(data)[1:] for _, item in part])
    assert set(held % 2) == {1}  # the later day
    assert abs(held.mean() - 10) < 1  # of 1, 3, ... 19, whose deviation is 5.7; the last of all would be 18 and more
    assert data.fingerprint != load(tmp_path / "toy", split=rule, split_seed=1).fingerprint


def test_two_moments_divide_what_is_of_one_day(tmp_path: Path) -> None:
    rows = [(user, item, 86_400 * (item // 4)) for user in range(30) for item in range(22)]
    data = load(write(tmp_path / "toy", rows), split="time")
    train, valid, test = ({item // 4 for _, item in part} for part in parts(data))
    assert (train, valid, test) == ({0, 1, 2, 3}, {4}, {5})
    alike = load(write(tmp_path / "one", [(*row[:2], 5) for row in rows]), split="time")
    assert [len(part) for part in parts(alike)] == [len(rows), 0, 0]


def test_by_time_the_latest_are_held_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", RNG.permutation(TABLE).tolist())
    moment = {(user, item): time for user, item, time in TABLE}
    data = load(folder, split="time", split_ratios=(0.7, 0.1, 0.2))
    train, valid, test = ([moment[pair] for pair in part] for part in parts(data))
    assert max(train) < min(valid) and max(valid) < min(test)
    assert (len(train), len(valid), len(test)) == (210, 30, 60)
    data = load(folder, split="user_time")
    for user in range(20):
        train, valid, test = ([moment[pair] for pair in part if pair[0] == user] for part in parts(data))
        assert max(train) < min(valid) and max(valid) < min(test)
    assert data.split == {"rule": "user_time", "ratios": [0.8, 0.1, 0.1], "seed": 0}


def test_leave_one_out(tmp_path: Path) -> None:
    data = load(write(tmp_path / "toy"), split="leave_one_out")
    for user in range(20):
        times = {(user, item): time for who, item, time in TABLE if who == user}
        last = sorted(times, key=times.__getitem__)[-2:]
        assert [[pair for pair in part if pair[0] == user] for part in parts(data)[1:]] == [[last[0]], [last[1]]]
    assert data.split == {"rule": "leave_one_out", "order": "time", "seed": 0}
    folder = write(tmp_path / "untimed", [row[:2] for row in TABLE], "userID\titemID")
    first, other = load(folder, split="leave_one_out"), load(folder, split="leave_one_out", split_seed=1)
    assert first.split == {"rule": "leave_one_out", "order": "random", "seed": 0}
    assert first.fingerprint != other.fingerprint and len(first.test.users) == len(other.test.users) == 20


@pytest.mark.parametrize("rule", ["random", "user_time", "leave_one_out"])
def test_users_with_few_interactions_train_first(tmp_path: Path, rule: str) -> None:
    rows = [(0, 0, 1), (1, 0, 1), (1, 1, 2), (2, 0, 1), (2, 1, 2), (2, 2, 3)]
    train, valid, test = parts(load(write(tmp_path / "toy", rows), split=rule))
    assert [sum(pair[0] == user for pair in train) for user in range(3)] == [1, 1, 1]
    assert [sum(pair[0] == user for pair in test) for user in range(3)] == [0, 1, 1]
    assert [sum(pair[0] == user for pair in valid) for user in range(3)] == [0, 0, 1]


def test_a_repeated_pair_counts_once_as_the_earliest(tmp_path: Path) -> None:
    rows = [(0, 0, 9), (0, 1, 5), (0, 2, 6), (0, 0, 1), (0, 1, 7)]
    data = load(write(tmp_path / "toy", rows), split="leave_one_out")
    assert parts(data) == [{(0, 0)}, {(0, 1)}, {(0, 2)}]
    assert data.report["repeated_pairs"] == 2


def test_labels_are_left_alone_by_other_rules(tmp_path: Path) -> None:
    rows = [(*row, "x") for row in TABLE]
    folder = write(tmp_path / "toy", rows, "userID\titemID\ttimestamp\tx_label")
    assert len(load(folder, split="time").train.users) == 240


@pytest.mark.parametrize("value", ["", "soon", "nan", "inf"])
def test_times_are_numbers(tmp_path: Path, value: str) -> None:
    folder = write(tmp_path / "toy", [(0, 0, 1), (0, 1, value)])
    with pytest.raises(DatasetError, match=r"toy.inter, line 3: expected a time as a number in column timestamp, got"):
        load(folder, split="time")
    with pytest.raises(DatasetError, match="missing: timestamp"):
        load(write(tmp_path / "untimed", [row[:2] for row in TABLE], "userID\titemID"), split="time")


# --- raw ids ---

RAW = [("anna", "B01", 0), ("Bob", "007", 0), ("anna", "7", 0), ("NA", "B01", 0), ("anna", "ü/x", 1), ("Bob", "B01", 2)]


def test_raw_ids_are_numbered_as_they_come(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", RAW, "userID\titemID\tx_label")
    fails(folder, "line 2: expected a user id", "got 'anna'", "--ids raw")
    data = load(folder, ids="raw")
    assert data.user_ids == ("anna", "Bob", "NA") and data.item_ids == ("B01", "007", "7", "ü/x")
    assert parts(data) == [{(0, 0), (1, 1), (0, 2), (2, 0)}, {(0, 3)}, {(1, 0)}]
    assert data.user_number("Bob") == 1
    with pytest.raises(DatasetError, match="user: expected one of the 3 raw ids of the data, got 'bob'"):
        data.user_number("bob")
    write(folder, [("Anna" if user == "anna" else user, *rest) for user, *rest in RAW], "userID\titemID\tx_label")
    assert load(folder, ids="raw").fingerprint != data.fingerprint  # the same numbers for other names


def test_raw_ids_in_two_splits_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", [*RAW, ("Bob", "007", 2)], "userID\titemID\tx_label")
    with pytest.raises(DatasetError, match=r"user 1, item 1, raw ids 'Bob', '007' \(lines 3 and 8\)"):
        load(folder, ids="raw")


def test_hashed_ids_are_raw(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "toy", [(2**62 + user, 10**30 + item, 0) for user, item, _ in TABLE], "userID\titemID\tx_label"
    )
    data = load(folder, ids="raw")
    assert (data.n_users, data.n_items) == (20, 30)
    assert data.item_ids is not None and int(data.item_ids[0]) == 10**30 + TABLE[0][1]


def test_a_raw_id_is_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "inter.csv").write_text('userID,itemID,x_label\nanna,B1,0\n"an\nna",B2,0\n')
    with pytest.raises(DatasetError, match=r"inter.csv, line 3: expected an id in column userID, got 'an\\nna'"):
        load(tmp_path, ids="raw")


@pytest.mark.parametrize("value", ["", "  "])
def test_a_raw_id_is_not_blank(tmp_path: Path, value: str) -> None:
    folder = write(tmp_path / "toy", [*RAW, ("x", value, 0)], "userID\titemID\tx_label")
    with pytest.raises(DatasetError, match=r"toy.inter, line 8: expected an id in column itemID, got nothing"):
        load(folder, ids="raw")


def test_numbers_may_have_raw_ids_in_a_map(tmp_path: Path) -> None:
    rows = [(0, 2, 0), (1, 0, 0), (1, 2, 1)]
    folder = write(tmp_path / "toy", rows, "userID\titemID\tx_label")
    with pytest.raises(
        DatasetError, match=r"expected u_id_mapping.csv or i_id_mapping.csv for ids mapped, got neither"
    ):
        load(folder, ids="mapped")
    write_features(folder, rows=4)
    (folder / "i_id_mapping.csv").write_text("asin\titemID\nB3\t3\nB0\t0\nB2\t2\nB1\t1\n")
    data = load(folder, ids="mapped")
    assert (data.user_ids, data.item_ids) == (None, ("B0", "B1", "B2", "B3"))
    assert pairs(data.train) == [(0, 2), (1, 0)] and data.user_number("1") == 1
    write(folder, [*rows, (0, 4, 0)], "userID\titemID\tx_label")
    with pytest.raises(
        DatasetError, match=r"expected item ids up to 3, as i_id_mapping.csv has them, got 4 \(line 5\)"
    ):
        load(folder, ids="mapped")


def test_a_quote_that_never_closes_is_refused_with_raw_ids_too(tmp_path: Path) -> None:
    rows = "".join(f"{user},{item},{label},{chr(34) * (user == 'NA')}tube\n" for user, item, label in RAW)
    (tmp_path / "inter.csv").write_text(f"userID,itemID,x_label,title\n{rows}")
    with pytest.raises(DatasetError, match=r"inter.csv, line 5: expected quotes that enclose a field"):
        load(tmp_path, ids="raw")


def test_a_map_says_which_row_is_whose(tmp_path: Path) -> None:
    folder = write(tmp_path / "toy", RAW, "userID\titemID\tx_label")
    features = write_features(folder, rows=6)
    with pytest.raises(DatasetError, match=r"expected i_id_mapping.csv, raw ids and their rows"):
        load(folder, ids="raw")
    assert load(folder, ids="raw", features=()).n_items == 4
    lines = ["asin\titemID", "7\t2", "new\t0", "B01\t5", "ü/x\t4", "007\t1", "old\t3"]
    (folder / "i_id_mapping.csv").write_text("\n".join(lines) + "\n")
    data = load(folder, ids="raw")
    assert data.item_ids == ("new", "007", "7", "old", "ü/x", "B01")
    assert pairs(data.train)[0] == (0, 5) and data.features["image"].shape == features.shape
    for damaged, message in (
        (lines[:-2], "expected the numbers from 0 to 3, each once"),
        ([*lines, "007\t6"], "line 8: expected each raw id once, got '007' again"),
        ([*lines, "x\tsix"], r"line 8: expected a raw id and its number, got 'x\\tsix'"),
        (["asin\titemID", "7\t0"], "toy.inter, line 2: expected an id of i_id_mapping.csv, got 'B01'"),
        (["asin\titemID"], "expected the numbers from 0"),
    ):
        (folder / "i_id_mapping.csv").write_text("\n".join(damaged) + "\n")
        with pytest.raises(DatasetError, match=message):
            load(folder, ids="raw")


@pytest.mark.parametrize("ids", [("a",), ("a", "a"), ("a", "b", "c"), (1, 2)])
def test_from_pairs_checks_raw_ids(ids: tuple) -> None:
    with pytest.raises(DatasetError, match="expected 2 different texts as raw item ids"):
        Dataset.from_pairs("x", 1, 2, ([0], [0]), ([], []), ([], []), item_ids=ids)
