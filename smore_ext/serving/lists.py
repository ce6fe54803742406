"""Lists of many users in a file: JSON lines, or parquet where pyarrow is installed. Written whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

from smore_ext.runs.load import LoadedRun
from smore_ext.serving.served import Id, Similar
from smore_ext.training.files import replacing

Lists = Iterable[tuple[Id, Sequence[Similar]]]
FORMS = (".jsonl", ".parquet")
_ROWS = 20_000  # users a group of rows


def lists_of_run(run: LoadedRun, k: int, mask: str = "all") -> Lists:
    """Lists of all users with train interactions, streamed, of a run whatever its model. `mask`: as `ranked` has it."""
    data = run.dataset
    users = (data.seen.rowptr.diff() > 0).nonzero()[:, 0]
    for block, scores, items in run.ranked(users, k, mask):
        for user, values, numbers in zip(block.tolist(), scores.tolist(), items.tolist(), strict=True):
            pairs = zip(numbers, values, strict=True)
            named = [Similar(data.item_ids[n] if data.item_ids else n, value) for n, value in pairs if n >= 0]
            yield data.user_ids[user] if data.user_ids else user, named


def write_lists(lists: Lists, path: Path) -> int:
    """Writes lists as they come and returns their number.

    JSON lines have `user`, `items`, `scores`; parquet has the same columns. Raises `ValueError` for another ending,
    `ImportError` without pyarrow.
    """
    if path.suffix not in FORMS:
        raise ValueError(f"{path}: expected a file that ends with one of {', '.join(FORMS)}")
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            return _parquet(lists, temporary)
        with temporary.open("w", encoding="utf-8") as file:
            return _json_lines(lists, file)


def _json_lines(lists: Lists, file: TextIO) -> int:
    count = 0
    for user, items in lists:
        row = {"user": user, "items": [near.item for near in items], "scores": [near.value for near in items]}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count


def _parquet(lists: Lists, path: Path) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError("lists in parquet need pyarrow: pip install 'smore-ext[export]'") from None
    schema = pyarrow.schema(
        [
            ("user", pyarrow.string()),
            ("items", pyarrow.list_(pyarrow.string())),
            ("scores", pyarrow.list_(pyarrow.float32())),
        ]
    )
    count, rest = 0, iter(lists)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(rest, _ROWS)):
            columns = [
                [str(user) for user, _ in rows],
                [[str(near.item) for near in items] for _, items in rows],
                [[near.value for near in items] for _, items in rows],
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))
            count += len(rows)
    return count
