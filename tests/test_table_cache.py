"""Tables kept parsed: the same data set from disk, never a stale one, never a broken one."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smore_ext.data import Dataset, DatasetError, ReadOptions, kept, load_dataset, table_cache
from smore_ext.data.table import Table
from smore_ext.runs import resolve

ROWS = [(0, 0, 5, 0), (0, 1, 9, 1), (1, 1, 2, 0), (1, 2, 3, 2), (2, 0, 7, 0), (2, 2, 1, 1), (2, 1, 4, 0)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "d"
    out.mkdir()
    write(out, ROWS)
    return out


def write(folder: Path, rows: list[tuple[object, ...]], separator: str = "\t") -> None:
    lines = ["userID timestamp itemID x_label".replace(" ", separator)]
    lines += [separator.join(map(str, (user, time, item, label))) for user, item, time, label in rows]
    (folder / "d.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The name of every table that was really parsed."""
    calls: list[str] = []
    read = table_cache.read_table

    def counted(path: Path, *more: object) -> Table:
        calls.append(path.name)
        return read(path, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(table_cache, "read_table", counted)
    return calls


def read(folder: Path, cache: Path | None, **options: object) -> Dataset:
    return load_dataset(folder, options=ReadOptions(table_cache=cache, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{}, {"split": "time"}, {"split": "leave_one_out"}, {"split": "random", "split_seed": 3}, {"ids": "raw"}],
    ids=str,
)
def test_the_second_reading_is_the_first(
    folder: Path, tmp_path: Path, parsed: list[str], options: dict[str, object]
) -> None:
    if options.get("ids") == "raw":
        write(folder, [(f"é{user} x", f"\u2028{item},", time, label) for user, item, time, label in ROWS])
    plain = read(folder, None, **options)
    first = read(folder, tmp_path / "made when absent", **options)
    second = read(folder, tmp_path / "made when absent", **options)
    assert len(parsed) == 2
    assert plain.fingerprint == first.fingerprint == second.fingerprint
    assert (plain.user_ids, plain.item_ids, plain.split) == (second.user_ids, second.item_ids, second.split)


def test_every_input_has_its_own_file(folder: Path, tmp_path: Path, parsed: list[str]) -> None:
    cache = tmp_path / "cache"
    for options in ({}, {"split": "time"}, {"ids": "raw"}, {"column_names": {"time": "timestamp"}}):
        read(folder, cache, **options)
    write(folder, [*ROWS[:-1], (2, 1, 4, 2)])
    read(folder, cache)
    assert len(parsed) == len(list(cache.iterdir())) == 5
    write(folder, ROWS)
    read(folder, cache)
    assert len(parsed) == 5


def test_ids_that_are_judged_differently_share_no_file(folder: Path, tmp_path: Path, parsed: list[str]) -> None:
    """Quotes that swallow rows are seen by fields that are no numbers, where ids are."""
    (folder / "u_id_mapping.csv").write_text("user_id\tuserID\n" + "".join(f"u{n}\t{n}\n" for n in range(3)))
    for ids in ("index", "mapped"):
        read(folder, tmp_path / "cache", ids=ids)
    assert len(parsed) == len(list((tmp_path / "cache").iterdir())) == 2


def test_packed_tables_other_separators_and_their_notes(folder: Path, tmp_path: Path, parsed: list[str]) -> None:
    write(folder, ROWS, separator=";")
    text = (folder / "d.inter").read_bytes()
    (folder / "d.inter").unlink()
    (folder / "d.inter.gz").write_bytes(gzip.compress(text))
    first, second = read(folder, tmp_path / "cache"), read(folder, tmp_path / "cache")
    assert parsed == ["d.inter.gz"]
    assert first.fingerprint == second.fingerprint
    assert first.notes == second.notes and "separated by ';'" in second.notes[0]


def test_faults_name_their_line_from_a_kept_table_too(folder: Path, tmp_path: Path) -> None:
    write(folder, [*ROWS, (0, 0, 1, 2)])
    messages = []
    for _ in range(2):
        with pytest.raises(DatasetError, match="lines 2 and 9") as raised:
            read(folder, tmp_path / "cache")
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_a_table_with_a_fault_is_not_kept(folder: Path, tmp_path: Path) -> None:
    write(folder, [*ROWS, (0, -1, 1, 2)])
    with pytest.raises(DatasetError, match="line 9"):
        read(folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_table_that_changes_while_it_is_parsed_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_table = table_cache.read_table

    def changed(path: Path, *more: object) -> Table:
        table = read_table(path, *more)  # type: ignore[arg-type]
        write(folder, ROWS[:-1])
        return table

    monkeypatch.setattr(table_cache, "read_table", changed)
    read(folder, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["cut", "bit", "another table", "columns"])
def test_a_damaged_file_is_made_again(
    folder: Path, tmp_path: Path, parsed: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = read(folder, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-3]
    elif damage == "bit":
        content[-40] ^= 1
    elif damage == "another table":
        write(folder, ROWS[:-1])
        read(folder, tmp_path / "other")
        write(folder, ROWS)
        content = bytearray(next((tmp_path / "other").iterdir()).read_bytes())
    else:
        with kept.safe_open(path, framework="pt") as file:
            wanted = {key: value for key, value in file.metadata().items() if key != "content_sha256"}
            parts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kept.store(path, parts | {"users": parts["users"][:2].clone()}, wanted, "table")
        content = bytearray(path.read_bytes())
    path.write_bytes(bytes(content))
    parsed.clear()
    assert read(folder, tmp_path / "cache").fingerprint == first.fingerprint
    assert parsed == ["d.inter"] and "table rebuilt" in caplog.text
    assert read(folder, tmp_path / "cache").fingerprint == first.fingerprint
    assert parsed == ["d.inter"]


def test_large_times_and_fractions_come_back(folder: Path, tmp_path: Path) -> None:
    for times in ([2**40 + n for n in range(7)], [n / 8 for n in range(7)]):
        write(folder, [(user, item, time, label) for (user, item, _, label), time in zip(ROWS, times, strict=True)])
        read(folder, tmp_path / "cache", split="time")
        table = table_cache.cached_table(
            folder / "d.inter",
            ReadOptions(table_cache=tmp_path / "cache", split="time"),
            ["userID", "itemID", "timestamp"],
        )
        assert np.array_equal(table.times, times)


def test_a_kept_table_needs_no_pandas(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from smore_ext.data import ReadOptions, load_dataset\n"
        f"load_dataset({str(folder)!r}, options=ReadOptions(table_cache=Path({str(tmp_path / 'cache')!r})))\n"
        "print('pandas' in sys.modules)"
    )
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)]
    assert said == ["True\n", "False\n"]


def test_a_folder_that_cannot_be_written_costs_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert read(folder, tmp_path / "file").fingerprint == read(folder, None).fingerprint
    assert "could not be cached" in caplog.text


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.inter")
    with pytest.raises(DatasetError):
        read(tmp_path, tmp_path / "cache")


def test_runs_keep_tables_in_the_user_s_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve().train.table_cache == Path("/cache/smore_ext/tables")
    assert resolve({"table_cache": "none"}).train.table_cache is None
    assert resolve({"table_cache": "~/tables"}).train.table_cache == Path("/home/me/tables")
