"""The tiny tree of tests/mmrec_tree, loaded for one test and forgotten after it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from smore_ext.compat.mmrec.proof import undisturbed

ROOT = Path(__file__).parent / "mmrec_tree"
TOP = ("common", "utils", "models")


def forget() -> dict[str, ModuleType]:
    """Takes the tree's modules, or whoever has their names, out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in TOP}


@contextmanager
def tree() -> Iterator[None]:
    """The tree importable."""
    before = forget()
    sys.path.insert(0, str(ROOT))
    try:
        with undisturbed():
            yield
    finally:
        sys.path.remove(str(ROOT))
        forget()
        sys.modules.update(before)


def load(name: str) -> Any:
    return importlib.import_module(name)


def run(model: str, **changes: Any) -> tuple[Any, list[Any]]:
    """(trainer, [losses, validation, test] of each epoch) of a model `file.Class` of the tree."""
    file, _, name = model.partition(".")
    config = load("utils.dataset").settings(**changes)
    train, valid, test = load("utils.dataset").make_loaders(config)
    load("utils.seeds").seed_everything(config["seed"])
    train.pretrain_setup()
    trainer = load("common.trainer").Trainer(config, getattr(load(f"models.{file}"), name)(config, train))
    return trainer, trainer.fit(train, valid, test)


def names() -> dict[tuple[str, str], int]:
    """What stands under each name of the tree's modules and classes, and of torch's that a patch may touch."""
    modules = [m for m in list(sys.modules.values()) if getattr(m, "__name__", "").partition(".")[0] in TOP]
    owners: list[Any] = [*modules, torch, torch.sparse, torch.Tensor, torch.nn.Module]
    for module in modules:
        owners += [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    hidden = {"__builtins__", "__abstractmethods__", "__annotations_cache__", "__static_attributes__"}
    return {
        (f"{getattr(o, '__module__', '')}.{o.__name__}", name): id(value)
        for o in owners
        for name, value in vars(o).items()
        if name not in hidden
    }
