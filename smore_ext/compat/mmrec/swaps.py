"""Names that are replaced, wherever they were copied to, and put back."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from smore_ext.compat.mmrec.lazy import Lazy
from smore_ext.compat.mmrec.tree import Tree

_MISSING: Any = object()


class _Swap(NamedTuple):
    owner: Any
    name: str
    old: Any  # _MISSING: the owner inherited it
    new: Any


def dense_parameters(swaps: Swaps) -> None:
    """`nn.Parameter(matrix)` holds the values of a matrix that is not formed yet, and shares them with it."""
    original = nn.Parameter.__new__

    def new(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:
        if isinstance(data, Lazy):
            data._written = True
            data = data.dense().detach()
        return original(cls, data, requires_grad)

    swaps.set(nn.Parameter, "__new__", staticmethod(new))


class Swaps:
    """Replacements in modules and classes. `undo` puts back every one, the latest first."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._swaps: list[_Swap] = []
        self._replaced: list[tuple[Any, Any]] = []  # (what stood under a name of a module, what does now)

    def set(self, owner: Any, name: str, new: Any) -> None:
        """One attribute of a module or a class."""
        self._swaps.append(_Swap(owner, name, vars(owner).get(name, _MISSING), new))
        setattr(owner, name, new)

    def replace(self, owner: Any, name: str, new: Any) -> None:
        """A function, also under the names that modules of the tree gave it by `from ... import`."""
        old = getattr(owner, name)
        self.set(owner, name, new)
        self._replaced.append((old, new))
        for module in self.tree.modules():
            for own, value in list(vars(module).items()):
                if value is old:
                    self.set(module, own, new)

    def undo(self) -> None:
        for owner, name, old, new in reversed(self._swaps):
            if vars(owner).get(name) is not new:
                continue  # somebody else has replaced it since
            if old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)
        for module in self.tree.modules():  # those imported meanwhile have copied the replacements
            for name, value in list(vars(module).items()):
                for old, new in reversed(self._replaced):
                    if value is new:
                        value = old
                        setattr(module, name, old)
        self._swaps.clear()
        self._replaced.clear()
