"""Odd sources: late keys, dates, tables without a header, ids of numbers, deep JSON, short memory, full disks."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from dumps import ITEMS, ROWS, TITLES, amazon_2023_csv, core, raw_pairs, read, recbole, separated, table_of, vectors

import smore_ext.prepare as package
from smore_ext import check
from smore_ext.data import DatasetError
from smore_ext.data.files import TEXTS
from smore_ext.prepare import Rules, database, json_lines, prepare
from smore_ext.prepare.__main__ import main
from smore_ext.prepare.database import Database


def written(path: Path, table: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return path


def texts(folder: Path) -> dict[str, str]:
    return {row["item"]: row["text"] for row in map(json.loads, (folder / TEXTS).read_text().splitlines())}


def pairs(folder: Path) -> set[tuple[str, str]]:
    return raw_pairs(read(folder), "train", "valid", "test")


# Keys of JSON lines


@pytest.mark.parametrize("first", [json_lines.FIRST, json_lines.FIRST + 20])
def test_keys_that_come_late_are_seen(first: int, tmp_path: Path) -> None:
    table = [{"user_id": r.user, "item_id": r.item, "rating": r.rating, "timestamp": r.time} for r in ROWS]
    for row in table[:first]:
        del row["rating"], row["timestamp"]
    source = written(tmp_path / "x.jsonl", table)
    with pytest.raises(DatasetError, match=f"rating in column rating, got nothing in {first} rows; --rating-column _ "):
        prepare(source, tmp_path / "x", Rules(split="time"))
    with pytest.raises(DatasetError, match=f"in column timestamp, got nothing in {first} rows; --time-column _ leaves"):
        prepare(source, tmp_path / "x", Rules(rating="_", split="time"))
    items: list[dict[str, Any]] = [{"asin": f"none{n}", "title": "t"} for n in range(first)]
    items += [{"asin": i, "title": TITLES[i], "description": ["about", i]} for i in ITEMS]
    with gzip.open(tmp_path / "i.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in items)
    prepared = prepare(source, tmp_path / "x", Rules(rating="_", time="_"), items=tmp_path / "i.jsonl.gz")
    assert prepared.manifest["features"]["text"]["columns"] == ["title", "description"]
    assert texts(prepared.folder)["B000"] == "Title of B000. about, B000" and pairs(prepared.folder) == core(ROWS, 5)
    assert "timestamp" not in (tmp_path / "x" / "x.inter").read_text().splitlines()[0]


BROKEN = {
    "not_closed": '{"user_id": "a"',
    "a_list": '["a", "b"]',
    "a_number": "5",
    "deep": "[" * 5000,
}


@pytest.mark.parametrize("before", [0, 150])
@pytest.mark.parametrize("name", BROKEN)
def test_a_line_that_is_no_object_is_named(name: str, before: int, tmp_path: Path) -> None:
    good = '{"user_id": "a", "item_id": "b"}\n'
    source = tmp_path / "x.jsonl"
    source.write_text(good * before + "\n" + BROKEN[name] + "\n" + good)
    found = rf"^\S*x.jsonl:{before + 2}: expected a JSON object a line, got '.{{1,90}}'"
    with pytest.raises(DatasetError, match=found):
        prepare(source, tmp_path / "out" / "x", Rules(k_core=1))
    assert not list((tmp_path / "out").iterdir())


def test_blank_lines_and_names_of_two_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "x.jsonl"
    source.write_text('\n{"user_id": "a", "item_id": "b"}\n  \n{"user_id": "a", "item_id": "c"}\n\n')
    assert pairs(prepare(source, tmp_path / "x", Rules(k_core=1)).folder) == {("a", "b"), ("a", "c")}
    source.write_text('{"user_id": "a", "item_id": "b"}\n' * 200 + '{"User_ID": "a"}\n')
    with pytest.raises(DatasetError, match="different names of columns, whatever their case, got user_id and User_ID"):
        prepare(source, tmp_path / "y")
    monkeypatch.setattr(json_lines, "MOST_KEYS", 50)
    written(source, [{f"B{n}": "title"} for n in range(300)])
    with pytest.raises(DatasetError, match="expected a table, got objects with more than 50 different keys"):
        prepare(source, tmp_path / "y")


@pytest.mark.parametrize("line", ["{'asin': {1, 2}}", "{1: 'a'}", "[{'asin': 1}]", "{'asin':"])
def test_python_literals_that_are_no_rows(line: str, tmp_path: Path) -> None:
    source, _ = recbole(tmp_path)
    items = tmp_path / "meta.json"
    items.write_text("{'asin': 'B000', 'title': 't'}\n" + line + "\n")
    with pytest.raises(DatasetError, match=r"meta.json:2: expected a Python literal of a dictionary a line, got"):
        prepare(source, tmp_path / "x", items=items)


def test_texts_of_brackets_and_deep_lines_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, _ = recbole(tmp_path)
    items = separated(tmp_path / "i.csv", ["item_id", "title"], [[i, "[" * 3000] for i in ITEMS])
    folder = prepare(source, tmp_path / "x", items=items).folder
    assert texts(folder)["B000"] == "[" * 3000
    lines = (folder / TEXTS).read_text().splitlines()
    (folder / TEXTS).write_text("\n".join([*lines[:2], "[" * 5000, *lines[3:]]) + "\n")
    assert check.main([str(folder), "--ids", "mapped"]) == 2
    assert f"{folder / TEXTS}:3: expected a JSON object a line, got '[[[" in capsys.readouterr().err


# Times


def moments(path: Path, kind: str) -> Path:
    source, _ = amazon_2023_csv(path.parent)
    moment = f"CAST(to_timestamp(CAST(timestamp AS BIGINT)) AT TIME ZONE 'UTC' AS {kind})"
    read_ = f"read_csv('{source}', all_varchar=true)"
    duckdb.sql(f"SET TimeZone='UTC'; COPY (SELECT * REPLACE ({moment} AS timestamp) FROM {read_}) TO '{path}'")
    return path


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ"])
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_moments_are_seconds(kind: str, ending: str, tmp_path: Path) -> None:
    numbers, _ = amazon_2023_csv(tmp_path)
    want = prepare(numbers, tmp_path / "a" / "x", Rules(split="time")).folder
    got = prepare(moments(tmp_path / f"m.{ending}", kind), tmp_path / "b" / "x", Rules(split="time")).folder
    assert (got / "x.inter").read_bytes() == (want / "x.inter").read_bytes()


def test_dates_of_any_spelling_and_zone(tmp_path: Path) -> None:
    spelled = {
        "2014-05-13": 1399939200,
        "2014-05-13 17:03:47": 1400000627,
        "2014-05-13T17:03:47Z": 1400000627,
        "2014-05-13T19:03:47+02:00": 1400000627,
        "2014-05-13 17:03:47.250": 1400000627.25,
    }
    for date, seconds in spelled.items():
        source = table_of("user_id,item_id,timestamp", f"u,a,{date}")(tmp_path)
        prepare(source, tmp_path / "x", Rules(k_core=1), overwrite=True)
        row = (tmp_path / "x" / "x.inter").read_text().splitlines()[1].split("\t")
        assert (
            float(row[2])
            == seconds
            == datetime.fromisoformat(date).replace(tzinfo=datetime.fromisoformat(date).tzinfo or UTC).timestamp()
        ), date


def test_times_of_two_kinds(tmp_path: Path) -> None:
    lines = ["u,a,1400000627", "u,b,2014-05-13 17:03:47", "u,c,1400000629", "u,d,2014-05-14"]
    source = table_of("user_id,item_id,timestamp", *lines)(tmp_path)
    with pytest.raises(DatasetError, match="column timestamp, got both: '1400000627', and in 2 rows .* '2014-05-13 17"):
        prepare(source, tmp_path / "x", Rules(k_core=1))
    source = table_of("user_id,item_id,timestamp", *lines[1::2], "u,e,13.05.2014")(tmp_path)
    with pytest.raises(DatasetError, match="a date such as 2014-05-13 17:03:47, as time .* got '13.05.2014' in 1 rows"):
        prepare(source, tmp_path / "x", Rules(k_core=1))


# Memory and disk


def test_memory_that_is_used_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is used up lies with DuckDB: in reading, in the rules, or in the numbers that come out."""
    source = tmp_path / "big.csv"
    ids = "hash(i % 60000)::VARCHAR AS user_id, hash(hash(i) % 20000)::VARCHAR AS item_id"
    duckdb.sql(f"COPY (SELECT {ids} FROM range(300000) t(i)) TO '{source}' (HEADER)")
    for memory in ("1KB", "8MB", "24MB"):
        assert main([str(source), "-o", str(tmp_path / "out" / "x"), "--memory", memory]) == 2
        assert capsys.readouterr().err.startswith(f"error: --memory: expected as much as the tables need, got {memory}")
        assert not list((tmp_path / "out").iterdir())


def test_every_call_tells_what_is_true(tmp_path: Path) -> None:
    much = "SELECT hash(i)::VARCHAR || hash(i + 1)::VARCHAR AS s FROM range(1000000) t(i) ORDER BY s"
    with Database(tmp_path, "16MB") as db:
        db.run("SET max_temp_directory_size='1MB'")
        for call in (
            lambda: db.run(f"CREATE TABLE a AS {much}"),
            lambda: db.create("b", much, tmp_path),
            lambda: db.rows(much),
            lambda: db.value(much),
            lambda: db.arrays(much),
            lambda: list(db.blocks(much, 512, tmp_path)),
        ):
            with pytest.raises(
                DatasetError, match=f"^{tmp_path}: expected room on the disk for what --memory 16MB can"
            ):
                call()
        with pytest.raises(DatasetError, match=r"^DuckDB: .*nothing does not exist"):
            db.run("SELECT * FROM nothing")
        with pytest.raises(database.Unreadable, match=r"^no.csv: cannot be read: IO Error"):
            db.columns("read_csv('no.csv')", Path("no.csv"))


def test_nothing_else_calls_duckdb() -> None:
    for path in Path(package.__file__).parent.glob("*.py"):
        if path.name != "database.py":
            assert not re.search(r"^\s*(import|from) duckdb|\.execute\(", path.read_text(), re.MULTILINE), path


# Tables without a header


@pytest.mark.parametrize(
    ("file", "separator", "columns"),
    [
        ("ratings.csv", ",", "user,item,rating,time"),
        ("u.data", "\t", "user,item,rating,time"),
        ("ratings.dat", "::", "user,item,rating,timestamp"),
        ("ratings.txt", "|", "user,item,_,"),
        ("ratings.csv.gz", ";", "user,item,_,time"),
    ],
)
def test_a_table_without_a_header(file: str, separator: str, columns: str, tmp_path: Path) -> None:
    text = "".join(separator.join(map(str, row)) + "\n" for row in ROWS)
    (tmp_path / file).write_bytes(gzip.compress(text.encode()) if file.endswith(".gz") else text.encode())
    assert main([str(tmp_path / file), "-o", str(tmp_path / "x"), "--columns", columns]) == 0
    assert pairs(tmp_path / "x") == core(ROWS, 5)
    head = (tmp_path / "x" / "x.inter").read_text().splitlines()[0].split("\t")
    assert ("rating" in head) == ("rating" in columns) and ("timestamp" in head) == ("time" in columns)
    rules = json.loads((tmp_path / "x" / "manifest.json").read_text())["rules"]
    assert rules["columns"] == columns.split(",")


def test_columns_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = table_of("A1,B1,5.0,1400000000")(tmp_path)

    def fails(source: Path, columns: str, message: str) -> None:
        flags = ["--columns", columns] if columns else []
        assert main([str(source), "-o", str(tmp_path / "x"), *flags]) == 2
        assert re.search(message, capsys.readouterr().err) and not (tmp_path / "x").exists()

    fails(bare, "", "expected a column of users .* got A1, B1, .*; a table without a header needs --columns, as --col")
    fails(
        bare, "user,item", "a name for each of the 4 columns of x.csv, whose first line is A1, B1, 5.0, 1400000000; got"
    )
    fails(bare, "user,item,item,_", "expected different names of columns, whatever their case, got item and item")
    fails(bare, "user,_,rating,_", "expected a column of items .* got user, rating")
    fails(table_of("1,1,5,8")(tmp_path), "", "got 1 and 1; a table without a header needs --columns")
    fails(
        table_of("user_id,asin", "a,b")(tmp_path), "user,item", "a table without a header, got x.csv with user_id, as"
    )
    fails(table_of("")(tmp_path), "user,item", "expected lines of a table, got an empty file")
    fails(
        written(tmp_path / "x.jsonl", [{"user": 1}]), "user,item", "--columns: expected a table without a header .*jso"
    )


# Ids


def test_whole_numbers_are_one_id_however_they_are_spelled(tmp_path: Path) -> None:
    """pandas writes integers beside a gap as floats."""
    number = {item: n for n, item in enumerate(ITEMS)}
    head = ["user_id", "item_id", "timestamp"]
    source = separated(tmp_path / "s.csv", head, [[r.user, f"{number[r.item]}.0", r.time] for r in ROWS])
    items = separated(tmp_path / "i.csv", ["item_id", "title"], [[number[i], TITLES[i]] for i in ITEMS])
    duckdb.sql(f"COPY (SELECT item_id::DOUBLE AS item_id, title FROM read_csv('{items}')) TO '{tmp_path}/i.parquet'")
    want = {(u, str(number[i])) for u, i in core(ROWS, 5)}
    image = vectors(tmp_path, "npy", [f"{number[i]}.0" for i in ITEMS])
    for table in (items, tmp_path / "i.parquet"):
        prepared = prepare(source, tmp_path / "x", items=table, vectors={"image": image}, overwrite=True)
        assert pairs(prepared.folder) == want and prepared.manifest["features"]["image"]["missing"] == 0
        assert texts(prepared.folder) == {raw: TITLES[ITEMS[int(raw)]] for raw in sorted({i for _, i in want})}
    same = separated(tmp_path / "n.csv", head, [[r.user, number[r.item], r.time] for r in ROWS])
    floats = separated(tmp_path / "f.csv", ["item_id", "x", "y"], [[f"{n}.00", n, 1] for n in number.values()])
    prepared = prepare(same, tmp_path / "y", vectors={"image": floats})
    assert pairs(prepared.folder) == want and prepared.manifest["features"]["image"]["missing"] == 0
    np.testing.assert_array_equal(
        read(prepared.folder).features["image"][:, 0], [int(i) for i in read(tmp_path / "y").item_ids or ()]
    )


def test_other_ids_stay_as_they_are(tmp_path: Path) -> None:
    odd = ["007.0", "1.5", "v1.0", "1.0.0", "-3.0", "1.0e3", "0.0", "B.0"]
    source = separated(tmp_path / "x.csv", ["user_id", "item_id"], [["u", raw] for raw in odd])
    data = read(prepare(source, tmp_path / "x", Rules(k_core=1)).folder)
    assert data.item_ids == tuple(sorted(["007.0", "1.5", "v1.0", "1.0.0", "-3", "1.0e3", "0", "B.0"]))
