"""Which interactions count: ratings, repeated pairs, the k-core; and which are for validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import listed, shown
from smore_ext.data.options import ReadOptions
from smore_ext.data.splits import split_labels
from smore_ext.prepare.database import Database, literal, quoted
from smore_ext.prepare.ids import spelled_sql
from smore_ext.prepare.sources import ITEM, RATING, TIME, USER, Source

TIMES = "a number of seconds or milliseconds, or a date such as 2014-05-13 17:03:47,"
SECONDS = 10**11  # times from here on are milliseconds: of 1973 and later, where seconds are of the year 5138
Split = Literal["random", "leave_one_out", "user_time", "time", "item_cold"]


@dataclass(frozen=True)
class Rules:
    """What is done to the interactions. The defaults are the field's: 5-core, 80 : 10 : 10 at random by user.

    Attributes:
        k_core: users and items keep at least so many different partners each, until all do; 1 keeps all.
        min_rating: interactions below it do not count; None counts all.
        split: "random" by user, "leave_one_out" (the last two of each user), "user_time" (the latest of each user),
            "time" (two moments for all), "item_cold" (all interactions of some items are held out).
        ratios: train, validation, test.
        seed: of what is drawn.
        user, item, rating, time: columns, where they are not found by their names; "" or "_" for none.
        columns: the names of all columns in their order, of a table without a header; "" or "_" for those of no use.

    Of repeated pairs the earliest counts, where times are there, and else one with the highest rating.
    """

    k_core: int = 5
    min_rating: float | None = None
    split: Split = "random"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.k_core < 1:
            raise DatasetError(f"k_core: expected at least 1, got {self.k_core}")
        if self.split not in get_args(Split):
            raise DatasetError(f"split: expected one of {', '.join(get_args(Split))}, got {self.split!r}")
        self.read_options()

    def read_options(self) -> ReadOptions:
        rule = "random" if self.split == "item_cold" else self.split
        return ReadOptions(split=rule, split_ratios=self.ratios, split_seed=self.seed)


@dataclass(frozen=True)
class Interactions:
    """What is left, by user and item number; [E] each. Raw ids by number, ascending as texts."""

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray | None
    times: np.ndarray | None
    labels: np.ndarray
    user_ids: list[str]
    item_ids: list[str]
    counts: dict[str, int]


def select(database: Database, source: Source, rules: Rules) -> Interactions:
    """Applies the rules to a table of interactions, and leaves the tables `users` and `items` (raw, number).

    Raises `DatasetError`.
    """
    chosen = {
        "u": source.column(USER, rules.user, "users"),
        "i": source.column(ITEM, rules.item, "items"),
        "r": source.column(RATING, rules.rating, "ratings"),
        "t": source.column(TIME, rules.time, "times"),
    }
    there = listed(source.columns)
    for key, what, names in (("u", "users", USER), ("i", "items", ITEM)):
        if chosen[key] is None:
            raise DatasetError(
                f"{source.path}: expected a column of {what} ({', '.join(names)}, or one that --{what[:-1]}-column "
                f"names), got {there}{source.hint}"
            )
    if rules.min_rating is not None and chosen["r"] is None:
        raise DatasetError(f"{source.path}: expected a column of ratings for --min-rating, got {there}")
    if rules.split in ("user_time", "time") and chosen["t"] is None:
        raise DatasetError(f"{source.path}: expected a column of times for --split {rules.split}, got {there}")
    counts = _load(database, source, chosen, rules)
    _core(database, rules.k_core)
    rows = database.value("SELECT count(*) FROM pairs")
    counts["after_k_core"] = rows
    if not rows:
        raise DatasetError(
            f"{source.path}: nothing is left of {counts['read']:,} interactions, {counts['distinct_pairs']:,} "
            f"different pairs: the {rules.k_core}-core is empty; see --k-core"
        )
    ids = {}
    for key, column in (("users", "u"), ("items", "i")):
        database.run(
            f"CREATE TABLE {key} AS SELECT {column} AS raw, row_number() OVER (ORDER BY {column}) - 1 AS number "
            f"FROM (SELECT DISTINCT {column} FROM pairs)"
        )
        ids[key] = [raw for (raw,) in database.rows(f"SELECT raw FROM {key} ORDER BY number")]
    table = database.arrays(
        "SELECT users.number AS u, items.number AS i, r, t FROM pairs JOIN users ON users.raw = pairs.u "
        "JOIN items ON items.raw = pairs.i ORDER BY 1, t, 2"
    )
    users, items = (np.asarray(table[key], dtype=np.int64) for key in "ui")
    ratings = np.ma.filled(table["r"], np.nan).astype(np.float64) if chosen["r"] else None
    times = np.ma.filled(table["t"], 0.0).astype(np.float64) if chosen["t"] else None
    if times is not None and (times == np.floor(times)).all():
        times = times.astype(np.int64)
    labels = labelled(users, items, times, rules)
    return Interactions(users, items, ratings, times, labels, ids["users"], ids["items"], counts)


def _load(database: Database, source: Source, chosen: dict[str, str | None], rules: Rules) -> dict[str, int]:
    """Fills the table `pairs`: different pairs (u, i) with rating r and time t."""
    u, i = (spelled_sql(quoted(str(chosen[key]))) for key in "ui")
    r, t = (f"CAST({quoted(name)} AS VARCHAR)" if (name := chosen[key]) else "NULL" for key in "rt")
    number = f"TRY_CAST({t} AS DOUBLE)"
    database.create(  # a moment without a zone is one of UTC: the database's zone
        "raw",
        f"SELECT {u} AS u, {i} AS i, {r} AS rt, TRY_CAST({r} AS DOUBLE) AS r, {t} AS tt, {number} IS NULL AS dated, "
        f"COALESCE({number}, epoch(TRY_CAST({t} AS TIMESTAMPTZ))) AS t FROM {source.relation}",
        reads=source.path,
    )
    not_an_id = "trim({0}) = '' OR regexp_matches({0}, '[\\x00-\\x1f\\x7f]')"
    for column, text, what, expected, wrong_if in (
        ("u", "u", "user", "an id", not_an_id),
        ("i", "i", "item", "an id", not_an_id),
        ("r", "rt", "rating", "a number", "NOT isfinite({0})"),
        ("t", "tt", "time", TIMES, "NOT isfinite({0})"),
    ):
        if chosen[column] is not None:
            wrong, example = database.rows(
                f"SELECT count(*), any_value({text}) FROM raw WHERE {column} IS NULL OR {wrong_if.format(column)}"
            )[0]
            if wrong:
                got = "nothing" if not str(example or "").strip(" ") else shown(example)
                way_out = f"; --{what}-column _ leaves {what}s out" if column in "rt" else ""
                raise DatasetError(
                    f"{source.path}: expected {expected} as {what} in column {chosen[column]}, got {got} "
                    f"in {wrong:,} rows{way_out}"
                )
    if chosen["t"]:
        dates, date, one = database.rows(
            "SELECT count(*) FILTER (dated), min(tt) FILTER (dated), min(tt) FILTER (NOT dated) FROM raw"
        )[0]
        if date is not None and one is not None:
            raise DatasetError(
                f"{source.path}: expected numbers or dates as times in column {chosen['t']}, got both: {shown(one)}, "
                f"and in {dates:,} rows dates such as {shown(date)}"
            )
        seconds, milliseconds, small, large = database.rows(
            f"SELECT count(*) FILTER (t < {SECONDS}), count(*) FILTER (t >= {SECONDS}), min(t), max(t) FROM raw "
            "WHERE NOT dated AND t > 0"
        )[0]
        if seconds and milliseconds:
            raise DatasetError(
                f"{source.path}: expected seconds or milliseconds as times in column {chosen['t']}, got both: "
                f"{seconds:,} rows such as {small:.0f}, {milliseconds:,} such as {large:.0f}"
            )
    _check_ids(database, source, chosen)
    counts = {"read": database.value("SELECT count(*) FROM raw")}
    if not counts["read"]:
        raise DatasetError(f"{source.path}: expected interactions, got a table without rows")
    if rules.min_rating is not None:
        database.run("DELETE FROM raw WHERE r < ?", [rules.min_rating])
        counts["with_min_rating"] = database.value("SELECT count(*) FROM raw")
    database.run(
        "CREATE TABLE pairs AS SELECT u, i, arg_min(r, (t, -r)) AS r, min(t) AS t FROM raw GROUP BY u, i"
        if chosen["t"]
        else "CREATE TABLE pairs AS SELECT u, i, max(r) AS r, NULL::DOUBLE AS t FROM raw GROUP BY u, i"
    )
    database.run("DROP TABLE raw")
    counts["distinct_pairs"] = database.value("SELECT count(*) FROM pairs")
    return counts


def _check_ids(database: Database, source: Source, chosen: dict[str, str | None]) -> None:
    """Raises `DatasetError` for ids of JSON that are numbers in some rows and texts in others, where 7 and "7" would be
    one."""
    if source.objects is None:
        return
    kinds = {}
    for column in "ui":
        name = str(chosen[column]).replace("~", "~0").replace("/", "~1")
        kind = f"json_type(json, {literal('/' + name)})"
        kinds[column] = f"count(*) FILTER ({kind} = 'VARCHAR'), count(*) FILTER ({kind} <> 'VARCHAR')"
    found = database.rows(f"SELECT {kinds['u']}, {kinds['i']} FROM {source.objects}")[0]
    for column, what, texts, numbers in (("u", "user", *found[:2]), ("i", "item", *found[2:])):
        if texts and numbers:
            raise DatasetError(
                f"{source.path}: expected ids of one type as {what} in column {chosen[column]}, got texts in {texts:,} "
                f"rows and numbers in {numbers:,}"
            )


def _core(database: Database, k: int) -> None:
    """Takes users and items of fewer than k pairs out of `pairs`, until there are none."""
    while k > 1:  # each round takes something away, or is the last
        before = database.value("SELECT count(*) FROM pairs")
        for column in "ui":
            database.run(
                f"CREATE OR REPLACE TABLE pairs AS SELECT * FROM pairs WHERE {column} IN "
                f"(SELECT {column} FROM pairs GROUP BY {column} HAVING count(*) >= {k})"
            )
        if database.value("SELECT count(*) FROM pairs") == before:
            return


def labelled(users: np.ndarray, items: np.ndarray, times: np.ndarray | None, rules: Rules) -> np.ndarray:
    """Labels 0 train, 1 validation, 2 test, [E]. A user's only interaction is for training, whatever the rule."""
    if rules.split != "item_cold":
        return split_labels(users, times, rules.read_options())
    rng = np.random.Generator(np.random.PCG64(rules.seed))
    n_items = int(items.max()) + 1
    order = rng.permutation(n_items)
    count = np.bincount(items, minlength=n_items)[order].cumsum() / len(items)
    _, valid, test = rules.ratios
    of_item = np.zeros(n_items, dtype=np.int64)
    of_item[order] = np.where(count <= test, 2, np.where(count <= test + valid, 1, 0))
    return of_item[items]
