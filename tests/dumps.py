"""Small dumps of interactions and items in the forms that others publish, and what is in them."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from smore_ext.data import Dataset, ReadOptions, load_dataset

duckdb = pytest.importorskip("duckdb")


class Row(NamedTuple):
    user: str
    item: str
    rating: float
    time: int


def rows(seed: int = 0, count: int = 1500) -> list[Row]:
    """Some users and items of few interactions, and repeated pairs."""
    rng = np.random.default_rng(seed)
    users = np.floor(60 * rng.random(count) ** 1.7).astype(int)
    items = np.floor(50 * rng.random(count) ** 1.7).astype(int)
    times = rng.permutation(count) + 1_400_000_000
    ratings = rng.integers(1, 6, count)
    return [
        Row(f"U{u:03}", f"B{i:03}", float(r), int(t)) for u, i, r, t in zip(users, items, ratings, times, strict=True)
    ]


ROWS = rows()
ITEMS = sorted({row.item for row in ROWS})
TITLES = {item: f"Title of {item}" for item in ITEMS}


def packed(path: Path, table: list[dict[str, Any]], spelled: Callable[[Any], str] = json.dumps) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(spelled(row) + "\n" for row in table)
    return path


def separated(path: Path, head: list[str], table: list[list[Any]], separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(table)
    return path


def amazon_2014(place: Path) -> tuple[Path, Path]:
    """Reviews are JSON; metadata are Python literals."""
    reviews = [
        {
            "reviewerID": r.user,
            "asin": r.item,
            "reviewText": "it's\u2028",
            "overall": r.rating,
            "unixReviewTime": r.time,
        }
        for r in ROWS
    ]
    items = [{"asin": i, "title": TITLES[i], "categories": [["A", "B's"]], "price": 1.0} for i in ITEMS]
    return packed(place / "reviews.json.gz", reviews), packed(place / "meta.json.gz", items, spelled=repr)


def amazon_2018(place: Path) -> tuple[Path, Path]:
    reviews = [
        {"overall": r.rating, "verified": True, "reviewerID": r.user, "asin": r.item, "unixReviewTime": r.time}
        for r in ROWS
    ]
    items = [{"category": ["A"], "description": ["d"], "title": TITLES[i], "brand": "x", "asin": i} for i in ITEMS]
    return packed(place / "All.json.gz", reviews), packed(place / "meta_All.json.gz", items)


def amazon_2023(place: Path) -> tuple[Path, Path]:
    reviews = [
        {"rating": r.rating, "asin": "variant", "parent_asin": r.item, "user_id": r.user, "timestamp": r.time}
        for r in ROWS
    ]
    items = [{"title": TITLES[i], "features": ["f"], "store": None, "parent_asin": i} for i in ITEMS]
    return packed(place / "All.jsonl.gz", reviews), packed(place / "meta.jsonl.gz", items)


def amazon_2023_csv(place: Path) -> tuple[Path, Path]:
    table = [[r.user, r.item, r.rating, r.time] for r in ROWS]
    reviews = separated(place / "All.csv", ["user_id", "parent_asin", "rating", "timestamp"], table)
    return reviews, separated(place / "meta.csv", ["parent_asin", "title"], [[i, TITLES[i]] for i in ITEMS])


def recbole(place: Path) -> tuple[Path, Path]:
    head = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    reviews = separated(place / "x.inter", head, [[r.user, r.item, r.rating, float(r.time)] for r in ROWS], "\t")
    items = separated(
        place / "x.item", ["item_id:token", "movie_title:token_seq"], [[i, TITLES[i]] for i in ITEMS], "\t"
    )
    return reviews, items


def microlens(place: Path) -> tuple[Path, Path]:
    reviews = separated(place / "pairs.csv", ["user", "item", "timestamp"], [[r.user, r.item, r.time] for r in ROWS])
    return reviews, separated(place / "titles.csv", ["item", "title"], [[i, TITLES[i]] for i in ITEMS])


def parquet(place: Path) -> tuple[Path, Path]:
    reviews, items = amazon_2023_csv(place)
    for path in (reviews, items):
        duckdb.sql(f"COPY (SELECT * FROM read_csv('{path}', all_varchar=true)) TO '{path.with_suffix('.parquet')}'")
    return reviews.with_suffix(".parquet"), items.with_suffix(".parquet")


SOURCES: dict[str, Callable[[Path], tuple[Path, Path]]] = {
    f.__name__: f for f in (amazon_2014, amazon_2018, amazon_2023, amazon_2023_csv, recbole, microlens, parquet)
}


def core(table: list[Row], k: int) -> set[tuple[str, str]]:
    """The k-core by its definition."""
    pairs = {(r.user, r.item) for r in table}
    while True:
        users, items = Counter(u for u, _ in pairs), Counter(i for _, i in pairs)
        kept = {(u, i) for u, i in pairs if users[u] >= k and items[i] >= k}
        if kept == pairs:
            return pairs
        pairs = kept


def raw_pairs(data: Dataset, *splits: str) -> set[tuple[str, str]]:
    assert data.user_ids is not None and data.item_ids is not None
    return {
        (data.user_ids[u], data.item_ids[i])
        for split in splits
        for u, i in zip(*(column.tolist() for column in getattr(data, split)), strict=True)
    }


def read(folder: Path) -> Dataset:
    return load_dataset(folder, options=ReadOptions(ids="mapped"))


def vectors(place: Path, form: str, items: list[str]) -> Path:
    table = np.random.default_rng(1).normal(size=(len(items), 6)).astype(np.float32)
    if form == "folder":
        (place / "image").mkdir()
        for item, row in zip(items, table, strict=True):
            np.save(place / "image" / f"{item}.npy", row[None])
        return place / "image"
    if form == "npy":
        np.save(place / "image.npy", table)
        (place / "image.txt").write_text("\n".join(items) + "\n")
        return place / "image.npy"
    wide = [f"f{n}" for n in range(6)]
    if form == "jsonl":
        path = place / "image.jsonl"
        path.write_text(
            "".join(json.dumps({"id": i, "vector": row.tolist()}) + "\n" for i, row in zip(items, table, strict=True))
        )
        return path
    source = separated(
        place / "image.csv", ["item_id", *wide], [[i, *row] for i, row in zip(items, table, strict=True)]
    )
    if form == "csv":
        return source
    columns = ", ".join(f"CAST({name} AS FLOAT) AS {name}" for name in wide)
    duckdb.sql(
        f"COPY (SELECT item_id, {columns} FROM read_csv('{source}', all_varchar=true)) TO '{place / 'image.parquet'}'"
    )
    return place / "image.parquet"


def model_folder(place: Path) -> Path:
    """The files by which an encoder is known, for a library that does not load them."""
    folder = place / "m"
    folder.mkdir()
    for name in ("modules.json", "config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def table_of(*lines: str) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / "x.csv").write_text("\n".join(lines) + "\n")
        return place / "x.csv"

    return make
