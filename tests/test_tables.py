"""Folders as they are found: separators, quotes, packed, hidden or split tables, unused arrays, lines of faults."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import numpy as np
import pytest
from data_folder import N_ITEMS, ROWS, fails, pairs, write_features, write_graph, write_table

from smore_ext.data import DatasetError, ReadOptions, load_dataset
from smore_ext.data.readers import read_dataset

MAC = bytes.fromhex("0005160700020000") + b"Mac OS X" + bytes(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_table(tmp_path / "toy")
    return tmp_path / "toy"


def many(n_users: int = 12, n_items: int = 15) -> list[tuple[int, int, int]]:
    draw = random.Random(0)
    chosen = [(user, draw.sample(range(n_items), 6)) for user in range(n_users)]
    return [(user, item, 0 if n < 4 else n - 3) for user, items in chosen for n, item in enumerate(items)]


def write_csv(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inter.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def n_pairs(folder: Path) -> int:
    data = load_dataset(folder)
    return sum(len(split.users) for split in (data.train, data.valid, data.test))


# --- quotes ---


def titles(first: str, last: str, at: tuple[int, int], title_first: bool = False) -> list[str]:
    """A table of 72 rows with a title; two rows have a stray quote in it."""
    out = ["title,userID,itemID,x_label" if title_first else "userID,itemID,x_label,title"]
    for n, (user, item, label) in enumerate(many()):
        title = first if n == at[0] else last if n == at[1] else "tube"
        out.append(f"{title},{user},{item},{label}" if title_first else f"{user},{item},{label},{title}")
    return out


@pytest.mark.parametrize("title_first", [False, True])
@pytest.mark.parametrize("at", [(10, 60), (10, 11), (0, 71), (70, 71)])
@pytest.mark.parametrize("first, last", [('"5in tube', '"5in tube'), ('"5in tube', 'tube 5"'), ('"tube', 'a ""tube"')])
def test_a_stray_quote_names_its_line(
    tmp_path: Path, first: str, last: str, at: tuple[int, int], title_first: bool
) -> None:
    path = write_csv(tmp_path / "toy", titles(first, last, at, title_first))
    fails(path.parent, f"{path}, line {at[0] + 2}: expected quotes that enclose a field")


@pytest.mark.parametrize("row", [10, 71])
def test_a_quote_that_never_closes_names_its_line(tmp_path: Path, row: int) -> None:
    path = write_csv(tmp_path / "toy", titles('"tube', "tube", (row, -1)))
    fails(path.parent, f"{path}, line {row + 2}: expected quotes that enclose a field")


@pytest.mark.parametrize(
    "title", ['"tube, 5in"', '"a ""tube"""', 'tube 5"', '5" tube', '"good, very\nnice"', '"\n\n"', '"0\n1,2\n3"', '""']
)
@pytest.mark.parametrize("title_first", [False, True])
def test_quotes_that_enclose_fields_are_read(tmp_path: Path, title: str, title_first: bool) -> None:
    write_csv(tmp_path / "toy", titles(title, title, (10, 60), title_first))
    assert n_pairs(tmp_path / "toy") == len(many())


def test_a_quote_in_the_header_names_its_line(tmp_path: Path) -> None:
    rows = [f"{user},{item},{label},{chr(34) * (n == 4)}tube" for n, (user, item, label) in enumerate(many())]
    path = write_csv(tmp_path / "toy", ['userID,itemID,x_label,"title', *rows])
    fails(path.parent, f"{path}, line 1: expected a header on one line", "up to line 6")


def test_quotes_of_tab_separated_tables_are_characters(tmp_path: Path) -> None:
    rows = [(*row, '"5in' if n in (10, 60) else "tube") for n, row in enumerate(many())]
    write_table(tmp_path / "toy", rows, "userID\titemID\tx_label\ttitle")
    assert n_pairs(tmp_path / "toy") == len(rows)


def test_lines_are_counted_as_an_editor_counts(tmp_path: Path) -> None:
    lines = ["review,userID,itemID,x_label"]
    for n, (user, item, label) in enumerate(many()):
        review = "good, very\nnice" if n == 3 else "soft\n" if n == 20 else "soft"
        lines.append(f'"{review}",{user},{"B0xx" if n == 20 else item},{label}')
    path = write_csv(tmp_path / "toy", lines)
    (number,) = (n for n, line in enumerate(path.read_text().split("\n"), start=1) if "B0xx" in line)
    fails(path.parent, f"{path}, line {number}: expected an item id", "got 'B0xx'")


def test_a_record_that_is_too_long_names_its_line(tmp_path: Path) -> None:
    lines = ["review,userID,itemID,x_label", '"a\nb",0,0,0', '"a\nb",0,1,0', "c,0,2,0,9"]
    path = write_csv(tmp_path / "toy", lines)
    fails(path.parent, f"{path}, line 6: expected as many fields as the header has, 4, got 5")


def test_a_huge_field_is_not_echoed(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [*ROWS, ("x" * 2_000_000, 0, 0)])
    with pytest.raises(DatasetError) as caught:
        load_dataset(path.parent)
    assert len(str(caught.value)) < 500 and f"{path}, line 11" in str(caught.value)
    for header in ("y" * 2_000_000, "\t".join(f"c{n}" for n in range(50_000))):
        write_table(tmp_path / "toy", header=header)
        with pytest.raises(DatasetError) as caught:
            load_dataset(path.parent)
        assert len(str(caught.value)) < 1000
    long = write_csv(tmp_path / "csv", ["t,userID,itemID,x_label", f'"{"z" * 2_000_000}",0,0,-1'])
    fails(long.parent, f"{long}, line 2: expected a split label")


# --- columns and separators ---


@pytest.mark.parametrize("separator", [",", ";", "|", " "])
def test_the_header_shows_the_separator(tmp_path: Path, separator: str) -> None:
    write_table(tmp_path / "toy", sep=separator)
    data = load_dataset(tmp_path / "toy")
    assert pairs(data.valid) == [(0, 3)] and data.notes == (
        f"toy.inter: columns separated by {separator!r}, as its header",
    )
    write_table(tmp_path / "tabs", name="inter.csv")
    assert pairs(load_dataset(tmp_path / "tabs").valid) == [(0, 3)]


@pytest.mark.parametrize("given, separator", [("comma", ","), (":", ":"), ("tab", "\t"), ("\\t", "\t")])
def test_a_separator_that_is_given(tmp_path: Path, given: str, separator: str) -> None:
    write_table(tmp_path / "toy", sep=separator)
    data = load_dataset(tmp_path / "toy", options=ReadOptions(field_separator=given))
    assert pairs(data.valid) == [(0, 3)] and data.notes == ()
    with pytest.raises(DatasetError, match=r"expected the columns userID, itemID, x_label .*; no '\|', the separator"):
        load_dataset(tmp_path / "toy", options=ReadOptions(field_separator="pipe"))


@pytest.mark.parametrize("header", ["userID\tuserID\titemID\tx_label", "userID\titemID\tx_label\tx_label"])
def test_a_column_given_twice(tmp_path: Path, header: str) -> None:
    path = write_table(tmp_path / "toy", [(0, 0, 0, 0)], header)
    fails(path.parent, str(path), "expected one")


def test_any_column_given_twice(tmp_path: Path) -> None:
    path = write_table(tmp_path / "toy", [(0, 0, 0, 1, 2)], "userID\titemID\tx_label\trating\trating")
    fails(path.parent, str(path), "expected each column once in the header, got 'rating' twice")


def test_columns_of_other_names(tmp_path: Path) -> None:
    names = {"user": "reviewer", "item": "asin", "label": "part"}
    write_table(tmp_path / "toy", [(7, *row) for row in ROWS], "userID\treviewer:token\tasin\tpart")
    data = load_dataset(tmp_path / "toy", options=ReadOptions(column_names=names))
    assert pairs(data.train) == [(0, 0), (0, 1), (1, 1), (2, 3), (2, 0)]
    with pytest.raises(
        DatasetError, match=r"expected the columns reviewer, itemID, x_label .*missing: itemID, x_label"
    ):
        load_dataset(tmp_path / "toy", options=ReadOptions(column_names={"user": "reviewer"}))


# --- files ---


def test_packed_tables(folder: Path, tmp_path: Path) -> None:
    plain = load_dataset(folder)
    packed = folder / "toy.inter.gz"
    packed.write_bytes(gzip.compress((folder / "toy.inter").read_bytes()))
    (folder / "toy.inter").unlink()
    assert load_dataset(folder).fingerprint == plain.fingerprint
    assert read_dataset("toy", folder).fingerprint == plain.fingerprint
    write_table(folder, [*ROWS, ("x", 0, 0)])
    packed.write_bytes(gzip.compress((folder / "toy.inter").read_bytes()))
    (folder / "toy.inter").unlink()
    fails(folder, f"{packed}, line 11: expected a user id")
    whole = packed.read_bytes()
    for damaged in (whole[:-5], whole[:30], b"", b"plain text", whole[:40] + b"\0\0\0" + whole[43:]):
        packed.write_bytes(damaged)
        fails(folder, str(packed))


@pytest.mark.parametrize("names", ["toy.{}.inter", "{}.inter", "toy.{}.inter.gz"])
def test_three_files(tmp_path: Path, names: str) -> None:
    folder = tmp_path / "toy"
    folder.mkdir()
    for label, split in enumerate(("train", "valid", "test")):
        lines = ["userID\titemID", *(f"{u}\t{i}" for u, i, which in ROWS if which == label)]
        content = ("\n".join(lines) + "\n").encode()
        (folder / names.format(split)).write_bytes(gzip.compress(content) if names.endswith("gz") else content)
    data = load_dataset(folder)
    assert (pairs(data.train)[-1], pairs(data.valid), pairs(data.test)) == ((2, 0), [(0, 3)], [(1, 0)])
    assert data.split == {"rule": "files"}
    write_table(tmp_path / "one")
    assert data.fingerprint == load_dataset(tmp_path / "one").fingerprint
    assert read_dataset("toy", folder).name == "toy" == read_dataset("toy", tmp_path).name


def test_a_pair_in_two_of_three_files_names_both(tmp_path: Path) -> None:
    for split, row in (("train", "0\t1"), ("valid", "0\t2"), ("test", "0\t1")):
        (tmp_path / f"a.{split}.inter").write_text(
            f"userID\titemID\n1\t0\n{row}\n" if split == "train" else f"userID\titemID\n{row}\n"
        )
    fails(tmp_path, "in both train and test", "(a.train.inter, line 3 and a.test.inter, line 2)")


def test_pairs_of_two_splits_may_stay_in_the_earliest(tmp_path: Path) -> None:
    write_table(tmp_path / "toy", [*ROWS, (2, 3, 1), (0, 3, 2), (0, 1, 2)])
    fails(tmp_path / "toy", "in both train and valid", "--overlap earliest")
    data = load_dataset(tmp_path / "toy", options=ReadOptions(overlap="earliest"))
    write_table(tmp_path / "plain")
    assert data.fingerprint == load_dataset(tmp_path / "plain").fingerprint
    assert data.report["pairs_in_two_splits"] == 3 and data.split == {"rule": "label", "overlap": "earliest"}


def test_hidden_files_are_nobodys(folder: Path) -> None:
    write_features(folder)
    write_graph(folder)
    before = load_dataset(folder)
    for name in (
        "._toy.inter",
        "._other.inter",
        "._image_feat.npy",
        "._image_graph.npz",
        ".hidden_feat.npy",
        "._inter.csv",
    ):
        (folder / name).write_bytes(MAC)
    (folder / "toy.inter").rename(folder / "other.inter")
    assert load_dataset(folder).fingerprint == before.fingerprint
    assert read_dataset("other", folder).name == "other"


@pytest.mark.parametrize("name", ["toy.inter", "image_feat.npy", "image_graph.npz"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link"])
def test_only_regular_files_are_read(folder: Path, name: str, kind: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else folder / "gone")
    got = {"folder": "a folder", "link": "a link to nothing"}.get(kind, "a pipe, a socket or a device")
    fails(folder, f"{path}: expected a regular file, got {got}")


@pytest.mark.parametrize("name", ["toy.inter", "image_feat.npy", "image_graph.npz"])
def test_a_file_that_cannot_be_read_is_not_called_missing(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_features(folder)
    write_graph(folder)
    opened = Path.open

    def refuse(path: Path, *args: object, **more: object) -> object:
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **more)

    monkeypatch.setattr(Path, "open", refuse)
    fails(folder, f"{folder / name}: cannot be read: Permission denied")


def test_a_folder_that_cannot_be_listed_is_not_called_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    fails(folder, f"{folder}: cannot be read: Permission denied")


# --- features ---


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint16, np.int64])
def test_other_numbers_are_converted_and_said(folder: Path, dtype: type) -> None:
    values = (np.arange(N_ITEMS * 3).reshape(N_ITEMS, 3) * 2).astype(dtype)
    np.save(folder / "image_feat.npy", values)
    data = load_dataset(folder)
    np.testing.assert_array_equal(data.features["image"].numpy(), values.astype(np.float32))
    assert data.notes == (f"image_feat.npy: {np.dtype(dtype)} converted to float32",)


def test_feature_rows_beyond_the_largest_id_are_items(folder: Path) -> None:
    write_features(folder, "image", rows=N_ITEMS + 3)
    write_features(folder, "text", rows=N_ITEMS + 3)
    data = load_dataset(folder)
    assert data.n_items == N_ITEMS + 3 and data.report["items_with_features_only"] == 3
    assert data.report["items_without_train"] == 5
    write_features(folder, "text", rows=N_ITEMS)  # the two disagree
    fails(folder, "image_feat.npy", f"expected {N_ITEMS} feature rows", f"got {N_ITEMS + 3}")


def test_features_that_are_not_asked_for_are_not_read(folder: Path) -> None:
    write_features(folder, "image")
    (folder / "text_feat.npy").write_bytes(b"damaged")
    os.mkfifo(folder / "audio_feat.npy")
    (folder / "text_graph.npz").write_bytes(b"damaged")
    assert list(load_dataset(folder, options=ReadOptions(features=("image",))).features) == ["image"]
    assert load_dataset(folder, options=ReadOptions(features=())).features == {}
    with pytest.raises(DatasetError, match=r"expected imag_feat.npy, got features of .*image.*did you mean 'image'"):
        (folder / "audio_feat.npy").unlink()
        load_dataset(folder, options=ReadOptions(features=("imag",)))


def test_features_of_users_are_no_modality(folder: Path) -> None:
    write_features(folder, "image")
    write_features(folder, "user", rows=4)
    data = load_dataset(folder)
    assert list(data.features) == ["image"] and data.notes == (
        "user_feat.npy is not read: features are those of items",
    )


def test_arrays_of_other_names_are_hinted_at(folder: Path) -> None:
    for name in ("image", "text"):
        np.save(folder / f"{name}.npy", np.zeros((N_ITEMS, 2)))
    assert (
        load_dataset(folder).hint == f"; image.npy, text.npy lie in {folder}: features are called <modality>_feat.npy"
    )
    with pytest.raises(DatasetError, match=r"expected image_feat.npy, got features of none; image.npy, text.npy lie"):
        load_dataset(folder, options=ReadOptions(features=("image",)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ids": "hashed"}, "ids: expected one of index, raw, mapped, got 'hashed'"),
        ({"split_ratios": (0.5, 0.5, 0.5)}, "split_ratios: expected three shares of sum 1"),
        ({"split_ratios": (0.0, 0.5, 0.5)}, "split_ratios: expected three shares of sum 1, the first above 0"),
        ({"field_separator": "::"}, "field_separator: expected one character or one of tab"),
        ({"column_names": {"rating": "stars"}}, "column_names: expected names of user, item, label, time"),
        ({"column_names": {"user": "a", "item": "a"}}, "column_names: expected a column of its own for each"),
    ],
)
def test_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        ReadOptions(**options)
    assert message in str(caught.value)
