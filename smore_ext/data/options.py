"""How a data set's folder is read, where it is not the default way. The names are those of settings and flags."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

from smore_ext.data.dataset import DatasetError
from smore_ext.data.messages import listed, shown

NOT_OF_DATA = ("features", "table_cache")  # options that change nothing of what a folder holds
Ids = Literal["index", "raw", "mapped"]
Split = Literal["label", "random", "user_time", "time", "leave_one_out"]
Overlap = Literal["error", "earliest"]
COLUMNS = ("user", "item", "label", "time")
SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "\\t": "\t"}


@dataclass(frozen=True)
class ReadOptions:
    """What a reader is told beyond a folder and a name.

    Attributes:
        ids: "index": ids are numbers from 0, rows of the features; "raw": any texts, which are numbered; "mapped":
            numbers whose raw ids stand in `u_id_mapping.csv`, `i_id_mapping.csv`, or one of them.
        split: "label": the column `x_label`, or three files; else the table is split here: "random" by user,
            "user_time" by user, the latest last, "time" at two moments for all users, "leave_one_out".
        split_ratios: train, validation, test of the three rules before "leave_one_out"; their sum is 1.
        split_seed: of "random", and of "leave_one_out" in a table without time.
        overlap: of a pair in two splits: "error", or "earliest": it stays in the first of train, validation, test.
        field_separator: one character, or its name (`SEPARATORS`); None: as the header shows.
        column_names: `{"user" | "item" | "label" | "time": name in the header}` where names are not the usual ones.
        table_cache: folder where parsed tables are kept, made when absent; None: nothing is kept. It changes no value.
        features: names of the modalities that are read; None for all. Not a setting: it is what the model asks for.

    Raises `DatasetError` that names the option first.
    """

    ids: Ids = "index"
    split: Split = "label"
    split_ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int = 0
    overlap: Overlap = "error"
    field_separator: str | None = None
    column_names: Mapping[str, str] = field(default_factory=dict)
    table_cache: Path | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, choices in (("ids", Ids), ("split", Split), ("overlap", Overlap)):
            value = getattr(self, name)
            _require(value in get_args(choices), name, f"one of {', '.join(get_args(choices))}", value)
        ratios = self.split_ratios
        numbers = isinstance(ratios, Sequence) and all(isinstance(r, Real) for r in ratios)
        _require(numbers, "split_ratios", "three numbers", ratios)
        seed = self.split_seed
        _require(isinstance(seed, int) and 0 <= seed < 2**63, "split_seed", "a number from 0 to 2^63 - 1", seed)
        sound = len(ratios) == 3 and all(math.isfinite(r) and 0 <= r <= 1 for r in ratios) and ratios[0] > 0
        _require(
            sound and abs(sum(ratios) - 1) < 1e-6, "split_ratios", "three shares of sum 1, the first above 0", ratios
        )
        separator = self.field_separator
        if separator is not None:
            separator = SEPARATORS.get(separator, separator)
            usable = len(separator) == 1 and separator not in '"\r\n'
            _require(usable, "field_separator", f"one character or one of {', '.join(SEPARATORS)}", separator)
            object.__setattr__(self, "field_separator", separator)
        unknown = [key for key in self.column_names if key not in COLUMNS]
        _require(not unknown, "column_names", f"names of {', '.join(COLUMNS)}", listed(unknown))
        names = list(self.column_names.values())
        _require(len(set(names)) == len(names), "column_names", "a column of its own for each", dict(self.column_names))


def _require(holds: bool, name: str, expected: str, got: Any) -> None:
    if not holds:
        raise DatasetError(f"{name}: expected {expected}, got {shown(got)}")
