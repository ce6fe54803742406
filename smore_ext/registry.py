"""Names that others extend: the built-in ones, entry points of installed packages, and `package.module:Name`.

Nothing is imported before it is asked for, so a plug-in that is broken, or heavy, costs only those who name it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class UnknownName(KeyError, ValueError):
    """No entry has that name; the message lists those that are there and names the nearest."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would quote it


class PluginError(ValueError):
    """An entry that cannot be loaded, or is not what it must be."""


def nearest_name(name: str, valid: Iterable[str], aliases: Mapping[str, str] | None = None) -> str | None:
    """The valid name that `name` most likely stands for, None when none is near. Case, `-` and `_` are alike.

    `aliases`: {what others call it: the valid name}.
    """
    by_spelling = {_spelling(candidate): candidate for candidate in valid}
    spelling = _spelling(name[:80])
    near = [_spelling((aliases or {}).get(spelling, "")), *get_close_matches(spelling, by_spelling, n=1, cutoff=0.6)]
    return next((by_spelling[candidate] for candidate in near if candidate in by_spelling), None)


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = nearest_name(name, valid)
    return f"; did you mean {near!r}?" if near else ""


class Registry(MutableMapping[str, T]):
    """A mapping from names to classes or functions, loaded when looked up.

    Iterating gives the names that are registered; `package.module:Name` is found by looking it up.

    Args:
        kind: what an entry is called in errors ("model").
        group: entry points of installed packages under this group are entries too.
        builtin: entries of this package, as objects or as "package.module:Name". A plug-in cannot replace one.
        check: called with what was loaded; returns what is wrong with it, or None.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        builtin: Mapping[str, str | T],
        check: Callable[[Any], str | None] = lambda _: None,
    ) -> None:
        self.kind, self.group = kind, group
        self._own: dict[str, str | T] = dict(builtin)
        self._check = check
        self._warned: set[str] = set()

    def __getitem__(self, name: str) -> T:
        """Raises `UnknownName`, or `PluginError` when the entry cannot be loaded."""
        if name in self._own:
            entry = self._own[name]
            return self._load(name, entry) if isinstance(entry, str) else entry
        if (point := self._plugins().get(name)) is not None:
            return self._load(name, point.value)
        if ":" in name:
            _import_from_here()
            return self._load(name, name)
        raise UnknownName(f"unknown {self.kind} {name[:80]!r} (of {', '.join(self)}){did_you_mean(name, self)}")

    def __setitem__(self, name: str, entry: T) -> None:
        self._own[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._own[name]

    def __contains__(self, name: object) -> bool:
        """Whether the name is registered; that of `package.module:Name` is decided by loading it."""
        return name in self._own or name in self._plugins()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *self._plugins()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def loadable(self) -> dict[str, T]:
        """All registered entries; a plug-in that cannot be loaded is left out, with a warning logged once."""
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except PluginError as error:
                if name not in self._warned:
                    self._warned.add(name)
                    logger.warning("%s", error)
        return found

    def _plugins(self) -> dict[str, EntryPoint]:
        return _entry_points(self.group, tuple(sys.path))

    def _load(self, name: str, where: str) -> T:
        module, _, attribute = where.partition("[")[0].strip().partition(":")
        try:
            loaded = attrgetter(attribute.strip())(import_module(module.strip()))
        except Exception as error:  # whatever a plug-in's module raises
            why = f"{type(error).__name__}: {str(error)[:300]}"
            raise PluginError(f"{self.kind} {name[:80]!r}: {where[:80]} cannot be loaded: {why}") from error
        if (wrong := self._check(loaded)) is not None:
            raise PluginError(f"{self.kind} {name[:80]!r}: {where[:80]} {wrong}")
        return loaded


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Entry points by name; `path` stands for what the answer depends on. Of two with one name the first counts."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if found.setdefault(point.name, point).value != point.value:
            logger.warning("%s: %s is taken for %r, not %s", group, found[point.name].value, point.name, point.value)
    return found


def _import_from_here() -> None:
    """Modules in the working directory can be named, also by commands that were installed as scripts."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")
