"""The few things that were asked for last, known again by their contents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_KEPT = 8  # a tree has few lists of edges that last


class Recent(Generic[T]):
    def __init__(self) -> None:
        self._items: list[T] = []

    def find(self, is_it: Callable[[T], bool]) -> T | None:
        """The latest that `is_it` says yes to, which then is the latest of all."""
        for place, item in enumerate(self._items):
            if is_it(item):
                self._items.insert(0, self._items.pop(place))
                return item
        return None

    def add(self, item: T) -> None:
        self._items = [item, *self._items[: _KEPT - 1]]

    def clear(self) -> None:
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)
