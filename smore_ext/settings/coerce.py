"""Values of settings from text (flags) or YAML, by the type that the field declares.

YAML 1.1 reads `1e-5` as text, so a text that spells a number is taken as one where a number is wanted;
nothing else is guessed: `0.5` is no integer, `yes` is no number, `1` is no truth value.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

_TRUE, _FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
# In a union the narrow types are tried first: `16` is a number before it is a text.
_ORDER = (type(None), bool, int, float, Path, str)


class Mismatch(ValueError):
    """The value is not of the declared type."""


def convert(value: Any, hint: Any) -> Any:
    """`value` as `hint`: bool, int, float, str, Path, Any, Literal, tuple[T, ...], dict[str, T] or a union.

    Text is parsed: `a=1,b=2` for a dict, `1,2,3` for a tuple, `none` for None. Raises `Mismatch`.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(value, args)
    if origin is Literal:
        if value in args and not isinstance(value, bool):
            return value
        raise Mismatch
    if origin is tuple:
        items = _split(value) if isinstance(value, str) else value
        items = items if isinstance(items, list | tuple) else [items]
        return tuple(convert(item, args[0]) for item in items)
    if origin is dict or hint is dict:
        pairs = _pairs(value) if isinstance(value, str) else value
        if not isinstance(pairs, Mapping):
            raise Mismatch
        key_hint, value_hint = args or (str, Any)
        return {convert(key, key_hint): convert(item, value_hint) for key, item in pairs.items()}
    return _scalar(value, hint)


def describe(hint: Any) -> str:
    """What a value of this type looks like, for error messages: `an integer`, `one of a, b`, ..."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple:
        return f"a list, each {describe(args[0])}"
    if origin is dict or hint is dict:
        return f"name=value pairs, each value {describe(args[1])}" if args else "name=value pairs"
    words = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path"}
    return words.get(hint, "none" if hint is type(None) else "a value")


def metavar(hint: Any) -> str:
    """The same for the help of a flag: `INT|NAME=INT,...`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return "|".join(metavar(member) for member in args if member is not type(None))
    if origin is Literal:
        return "|".join(map(str, args))
    if origin is tuple:
        return f"{metavar(args[0])},..."
    if origin is dict or hint is dict:
        return f"NAME={metavar(args[1]) if args else 'VALUE'},..."
    words = {bool: "true|false", int: "INT", float: "NUMBER", str: "TEXT", Path: "PATH"}
    return words.get(hint, "VALUE")


def _union(value: Any, members: tuple[Any, ...]) -> Any:
    ordered = sorted(members, key=lambda member: _ORDER.index(member) if member in _ORDER else len(_ORDER))
    for member in ordered:
        try:
            return convert(value, member)
        except Mismatch:
            continue
    raise Mismatch


def _scalar(value: Any, hint: Any) -> Any:
    text = value.strip() if isinstance(value, str) else None
    if hint is Any:
        return _guess(text) if text is not None else value
    if hint is type(None):
        if value is None or (text is not None and text.lower() in {"none", "null"}):
            return None
    elif hint is bool:
        if isinstance(value, bool):
            return value
        if text is not None and text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
    elif hint in (int, float):
        if text is not None:
            return _number(text, hint)
        if isinstance(value, int if hint is int else (int, float)) and not isinstance(value, bool):
            return hint(value)
    elif hint is Path:
        if isinstance(value, str | Path) and str(value):
            return Path(value).expanduser()
    elif hint is str and text:
        return value
    raise Mismatch


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise Mismatch from None


def _guess(text: str) -> Any:
    """A value whose type nobody declared: as YAML reads it, and `1e-3` as the number it spells."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.strip("[]() ").split(",") if part.strip()]


def _pairs(text: str) -> dict[str, Any]:
    """`a=1,b=2`, or a YAML mapping in braces where a value is a list: `{bins: [1, 8]}`."""
    if text.lstrip().startswith("{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise Mismatch from None
    parts = [part.partition("=") for part in _split(text)]
    if not parts or any(not sign for _, sign, _ in parts):
        raise Mismatch
    return {name.strip(): value.strip() for name, _, value in parts}
