"""What a search varies: values to choose from and ranges, from flags, or from the lists in one of MMRec's files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Any

from smore_ext.settings.config import Layer, search_section
from smore_ext.settings.fields import ConfigError
from smore_ext.settings.foreign import GRIDS, own_name


@dataclass(frozen=True)
class Choices:
    """Values as texts, as flags have them."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; evenly on a logarithmic scale with `log`."""

    low: float
    high: float
    log: bool
    whole: bool


Space = dict[str, Choices | Range]
_RANGE = re.compile(r"^(?P<low>[^.:,]*\.?[^.:,]*)\.\.(?P<high>[^:,]+?)(?P<log>:log)?$")


def parse(texts: Iterable[str], place: str = "--space") -> Space:
    """The space of flags `name=a,b,c` and `name=low..high` or `name=low..high:log`. Raises `ConfigError`."""
    out: Space = {}
    for text in texts:
        name, equals, what = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not what.strip():
            raise ConfigError(f"{place}: expected NAME=a,b,c or NAME=low..high[:log], got {text!r}")
        if name in out:
            raise ConfigError(f"{place}: expected each name once, got {name} twice")
        out[name] = (
            _range(name, what, place) if ".." in what else Choices(tuple(part.strip() for part in what.split(",")))
        )
    return out


def _range(name: str, what: str, place: str) -> Range:
    found = _RANGE.match(what.strip())
    texts = (found["low"].strip(), found["high"].strip()) if found else ("", "")
    try:
        low, high = map(float, texts)
    except ValueError:
        low, high = 1.0, 0.0
    log = bool(found and found["log"])
    if not (isfinite(low) and isfinite(high) and low < high and (low > 0 or not log)):
        raise ConfigError(f"{place}: {name}: expected low..high[:log] with low < high, above 0 for log, got {what!r}")
    return Range(low, high, log, all(re.fullmatch(r"[+-]?\d+", text) for text in texts))


def of_section(layer: Layer) -> Space:
    """The space in a preset's or file's section `search`: lists, or texts as flags have them. Raises `ConfigError`."""
    values = search_section(layer).items()
    texts = (f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in values)
    return parse(texts, f"{layer.source}, search")


def of_file(values: Mapping[str, Any], cls: type) -> Space:
    """The grids of one of MMRec's files, by our names; nothing of other files. Lists of one value are no grid."""
    grids = values.get(GRIDS)
    names = [str(name) for name in (grids if isinstance(grids, list) else [grids] if grids else [])]
    out: Space = {}
    for name in names:
        value, own = values.get(name), own_name(name, cls)
        if isinstance(value, list) and len(value) > 1 and own is not None and own != "train.seed":
            out[own.partition(".")[2]] = Choices(tuple(str(one) for one in value))
    return out


def grid(space: Space) -> list[dict[str, str]]:
    """All combinations of choices. Raises `ConfigError` for a range, which has no end of values."""
    ranges = [name for name, part in space.items() if isinstance(part, Range)]
    if ranges:
        raise ConfigError(f"--sampler grid: expected values to choose from, got a range of {', '.join(ranges)}")
    values = [part.values for part in space.values() if isinstance(part, Choices)]
    return [dict(zip(space, combination, strict=True)) for combination in product(*values)]


def ends(part: Choices | Range) -> list[Any]:
    """All values to choose from, or the ends of a range."""
    if isinstance(part, Choices):
        return list(part.values)
    return [int(end) if part.whole else end for end in (part.low, part.high)]


def first(part: Choices | Range) -> Any:
    """A value of it."""
    return ends(part)[0]
