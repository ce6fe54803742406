"""The settings that a dataclass declares, and their values checked against the declared types by pydantic.

A plain dataclass is enough. `Annotated[int, annotated_types.Ge(1)]` adds a bound, and what a class refuses itself, in
`__post_init__`, is refused. A field's metadata may hold:
    help         the sentence for `--help`; else the one after `name: ` in the docstring of the class, or of its bases
    short        a short flag
    loop         True: no setting of the model, as the value is that of the loop's setting of this name
    changeable   True: it may change when a run is resumed, as it does not alter what an epoch computes
    run_default  a function that returns the default of a run, where that is not the default of the class
    aliases      what other programs call the setting; serves hints alone
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from smore_ext.data.messages import shown
from smore_ext.settings.text import read, readings

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type or out of range."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field that the constructor of a dataclass takes, with its type and its help."""

    field: dataclasses.Field[Any]
    hint: Any
    help: str

    def of(self, key: str) -> Any:
        """An entry of the field's metadata, None where it has none."""
        return self.field.metadata.get(key)

    @property
    def default(self) -> Any:
        """The default in a run; `dataclasses.MISSING` where there is none."""
        make = self.of("run_default") or self.field.default_factory
        return self.field.default if make is dataclasses.MISSING else make()

    def convert(self, value: Any, place: str) -> Any:
        """A text or a value as the declared type. Raises `ConfigError` that names `place`."""
        if value == "":  # what a shell makes of a variable that is not set
            raise ConfigError(f"{place}: expected a value, got ''")
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigError(
                f"{place}: expected text in the locale's encoding, {sys.getfilesystemencoding()}, got {shown(value)}; "
                f"PYTHONUTF8=1 makes it UTF-8"
            )
        try:
            meanings = readings(value)
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from None
        expected = ""
        for reading in meanings:
            try:
                # As JSON, strictly: a list is a tuple and a text a path, yet 1 is not true and 0.5 no integer.
                converted = self._adapter.validate_json(json.dumps(reading, default=str), strict=True)
            except ValidationError as error:
                expected = expected or _words(error)
                continue
            check_numbers(converted, place)
            return _at_home(converted, place) if isinstance(converted, Path) else converted
        told = value if isinstance(value, str) else read(value)
        raise ConfigError(f"{place}: expected {expected}, got {shown(told)}")

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        try:
            return TypeAdapter(self.hint)
        except PydanticUserError:  # a class that no text spells
            raise ConfigError(f"{self.field.name}: {self.hint!r} can be set in Python only") from None


@cache
def settings_of(cls: type) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name."""
    hints = get_type_hints(cls, include_extras=True)
    text = " ".join(" ".join((base.__doc__ or "").split()) for base in cls.__mro__ if dataclasses.is_dataclass(base))
    out = {}
    for f in (f for f in dataclasses.fields(cls) if f.init and not f.metadata.get("loop")):
        found = re.search(rf"(?<!\w){f.name}: (.+?)\.(?: |$)", text)  # in the most derived class that says it
        out[f.name] = Setting(f, hints[f.name], f.metadata.get("help") or (found[1] if found else ""))
    return out


def aliases_of(settings: Iterable[Setting]) -> dict[str, str]:
    """{what other programs call a setting: its name here}; the first of several counts."""
    return {alias: s.field.name for s in reversed(list(settings)) for alias in s.of("aliases") or ()}


def metavar(hint: Any) -> str:
    """What a value of a type looks like, for help: `INT|NAME=INT,...`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return metavar(args[0])
    if origin is Literal:
        return "|".join(map(str, args))
    if origin in (Union, UnionType):
        return "|".join(metavar(member) for member in args if member is not NoneType)
    if args or hint is dict:
        return f"NAME={metavar((*args, str, Any)[1])},..." if (origin or hint) is dict else f"{metavar(args[0])},..."
    words = {bool: "true|false", float: "NUMBER", str: "TEXT", Any: "VALUE"}
    return words.get(hint) or getattr(hint, "__name__", "value").upper()


def _at_home(path: Path, place: str) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # neither HOME nor an entry in the list of users
        raise ConfigError(f"{place}: expected a path, got {shown(str(path))}, and no home directory is known") from None


def check_numbers(value: Any, place: str) -> None:
    """Raises `ConfigError` unless all numbers are finite, and integers fit into the 64 bits that they end in."""
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        for item in value.values() if isinstance(value, Mapping) else value:
            check_numbers(item, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{place}: expected finite numbers, got {value}")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{place}: expected integers below 2^63, got {shown(value)}")


def read_as(cls: type[T], values: Any) -> T:
    """JSON values as a class whose fields have types. Raises `ValueError` that names the first that is missing or of
    another type, what is expected there and what came."""
    try:
        return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValidationError as error:
        entry = error.errors()[0]
        where = ".".join(map(str, entry["loc"]))
        if entry["type"] == "missing":
            raise ValueError(f"{where} is missing") from None
        expected = entry["msg"].removeprefix("Input should be ")
        raise ValueError(f"{where + ': ' if where else ''}expected {expected}, got {shown(entry['input'])}") from None


def _words(error: ValidationError) -> str:
    """`Input should be a valid integer` as `a valid integer`, of each member of a union."""
    each = dict.fromkeys(entry["msg"].removeprefix("Input should be ") for entry in error.errors())
    words = {"an object": "name=value pairs", "a valid array": "a list of the right values"}
    words |= {"greater than or equal to": "at least", "less than or equal to": "at most"}
    return re.sub("|".join(words), lambda found: words[found[0]], " or ".join(each))
