"""The modules of somebody's source tree: those that are loaded, and those that will be."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_FOLDERS = ("common", "utils", "models")  # as MMRec and its forks have them


class Tree:
    """What lies under one folder.

    Args:
        root: the folder that holds `common/`, `utils/` and `models/`. None: where a loaded `common` or `utils` lies,
            else the first such folder on `sys.path`, else the working directory.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root).resolve() if root is not None else _found()

    def has_file(self, file: Any) -> bool:
        return isinstance(file, str) and "site-packages" not in file and Path(file).resolve().is_relative_to(self.root)

    def modules(self) -> list[ModuleType]:
        """Those that are loaded."""
        return [m for m in list(sys.modules.values()) if isinstance(m, ModuleType) and self.has_file(_file_of(m))]


def _file_of(module: ModuleType) -> Any:
    return vars(module).get("__file__")  # not getattr: lazy modules load much when asked


def _found() -> Path:
    for name in ("common", "utils"):
        if name in sys.modules and list(getattr(sys.modules[name], "__path__", ())):
            return Path(next(iter(sys.modules[name].__path__))).resolve().parent
    for entry in sys.path:
        folder = Path(entry or ".")
        if all((folder / name).is_dir() for name in _FOLDERS):
            return folder.resolve()
    return Path.cwd()


class ImportWatch(MetaPathFinder):
    """Calls `seen(module)` after each module of a tree is imported."""

    def __init__(self, tree: Tree, seen: Callable[[ModuleType], None]) -> None:
        self.tree, self.seen = tree, seen

    def start(self) -> None:
        sys.meta_path.insert(0, self)

    def stop(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and self.tree.has_file(spec.origin):
                    spec.loader = _Watched(spec.loader, self.seen)
                return spec
        return None


class _Watched(Loader):
    """A loader that tells of what it loaded, and leaves no trace of itself in the module."""

    def __init__(self, loader: Loader, seen: Callable[[ModuleType], None]) -> None:
        self.loader, self.seen = loader, seen

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.seen(module)
