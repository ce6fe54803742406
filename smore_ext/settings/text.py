"""Values from text. A flag, and whatever a YAML file holds, is text here: the type that a setting declares decides."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml

from smore_ext.data.messages import shown

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_WORDS |= {"none": None, "null": None, "~": None}


def read(value: Any) -> Any:
    """`value` with each text in it read as the number (`1e-5` too), truth value or none that it spells, if any."""
    if isinstance(value, Mapping):
        return {key: read(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read(item) for item in value]
    text = value.strip().lower() if isinstance(value, str) else None
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float) if text is not None else ():
        with suppress(ValueError):
            return kind(text.replace(".inf", "inf").replace(".nan", "nan"))  # YAML's spellings
    return value


def readings(value: Any) -> list[Any]:
    """What `value` may stand for, the most telling first. The first that is of the declared type counts."""
    if not isinstance(value, str):
        return [read(value), value, [value]]
    collected: list[Any] = [[part.strip() for part in value.split(",") if part.strip()]]
    if all("=" in part for part in collected[0]):
        pairs = [[text.strip() for text in part.split("=", 1)] for part in collected[0]]
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"expected each name once, got {twice} twice")
        collected.insert(0, dict(pairs))
    if value.lstrip().startswith(("{", "[")):
        with suppress(yaml.YAMLError):  # else a text like any other
            collected.insert(0, parse_yaml(value))
    return [read(value), *map(read, collected), *collected, value]


def parse_yaml(text: str) -> Any:
    """YAML as lists, mappings and texts; tags mean nothing. Raises `yaml.YAMLError`, also for a name given twice, for
    anchors and aliases, and for lists and mappings nested more than 20 deep."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > 20:
            raise yaml.YAMLError("nested too deep for settings")
        if getattr(event, "anchor", None):
            raise yaml.YAMLError("anchors and aliases (&name, *name) are not for settings")
    return yaml.load(text, _Loader)


class _Loader(yaml.BaseLoader):
    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:
        return node.value if node.value or node.style else None  # `name:` with nothing after it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in names:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key.value)} given twice", key.start_mark)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)
