"""What a tree of 2022 expects of its surroundings, so that it starts on a CPU with today's libraries."""

from __future__ import annotations

import importlib.util
import random
import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Fixes:
    """The names that were added; `undo()` takes them away."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._old: list[tuple[Any, str, Any]] = []

    def _set(self, owner: Any, name: str, value: Any, told: str) -> None:
        self._old.append((owner, name, vars(owner).get(name, self)))
        setattr(owner, name, value)
        self.done.append(told)

    def _module(self, name: str, told: str, **names: Any) -> None:
        module = ModuleType(name)
        vars(module).update(names)
        sys.modules[name] = module
        self._old.append((sys.modules, name, module))
        self.done.append(told)

    def undo(self) -> None:
        for owner, name, old in reversed(self._old):
            if owner is sys.modules:
                if sys.modules.get(name) is old:
                    del sys.modules[name]
            elif old is self:
                delattr(owner, name)
            else:
                setattr(owner, name, old)
        self._old.clear()
        self.done.clear()


def fix_environment() -> Fixes:
    """Adds what is missing here, and nothing else. Apart from `patch`: it speeds nothing up.

    - `np.float`, `np.int`, `np.object`, `np.str`, which numpy 1.24 removed;
    - `.cuda()` of tensors and modules that stay where they are, on a machine without a GPU;
    - `lmdb` and `torchvision`, imported by trees that train on ready features, as empty modules; `torch_scatter`'s
      sums and means, in plain torch;
    - `dok_matrix._update`, which scipy removed;
    - `random.sample` of a set, which Python 3.11 refuses.

    Returns:
        Fixes: `.done`, what was added, in words, and `.undo()`.
    """
    fixes = Fixes()
    for kind in (float, int, object, str):
        if kind.__name__ not in vars(np):
            fixes._set(np, kind.__name__, kind, f"np.{kind.__name__}")
    if not torch.cuda.is_available():
        for owner in (Tensor, nn.Module):
            fixes._set(owner, "cuda", _stay, f"{owner.__name__}.cuda() stays on the CPU")
    if _missing("lmdb"):
        fixes._module("lmdb", "lmdb, empty")
    if _missing("torchvision"):
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            fixes._module(name, name, pad=None, resize=None)
        vars(sys.modules["torchvision"])["transforms"] = sys.modules["torchvision.transforms"]
    if _missing("torch_scatter"):
        sums = {"scatter_add": _scatter_add, "scatter_sum": _scatter_add}
        fixes._module("torch_scatter", "torch_scatter's sums", **sums, scatter_mean=_scatter_mean, scatter=_scatter)
    _fix_scipy(fixes)
    fixes._set(random, "sample", _sample, "random.sample of a set")
    return fixes


def _missing(name: str) -> bool:
    return name not in sys.modules and importlib.util.find_spec(name) is None


def _stay(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self


def _fix_scipy(fixes: Fixes) -> None:
    if _missing("scipy"):
        return
    import scipy.sparse as sp

    if not hasattr(sp.dok_matrix, "_update"):
        fixes._set(sp.dok_matrix, "_update", _dok_update, "dok_matrix._update")


def _dok_update(self: Any, data: dict[tuple[int, int], Any]) -> None:
    if hasattr(self, "_dict"):
        self._dict.update(data)
        return
    for (row, col), value in data.items():
        self[row, col] = value


def _scatter_add(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    """Sums of the entries of `src` with the same index along `dim`."""
    dim = dim % src.ndim
    if index.ndim < src.ndim:
        index = index.view([-1 if d == dim else 1 for d in range(src.ndim)]).expand_as(src)
    if out is None:
        shape = list(src.shape)
        shape[dim] = dim_size if dim_size is not None else (int(index.max()) + 1 if index.numel() else 0)
        out = torch.zeros(shape, dtype=src.dtype, device=src.device)
    return out.scatter_add_(dim, index, src)


def _scatter_mean(
    src: Tensor, index: Tensor, dim: int = -1, out: Tensor | None = None, dim_size: int | None = None
) -> Tensor:
    total = _scatter_add(src, index, dim, out, dim_size)
    count = _scatter_add(torch.ones_like(src), index, dim, None, total.shape[dim])
    return total / count.clamp_min(1)


def _scatter(
    src: Tensor,
    index: Tensor,
    dim: int = -1,
    out: Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> Tensor:
    if reduce not in ("sum", "add", "mean"):
        raise NotImplementedError(
            f'scatter: here only with reduce "sum" or "mean", got {reduce!r}: install torch_scatter'
        )
    return (_scatter_mean if reduce == "mean" else _scatter_add)(src, index, dim, out, dim_size)


_sample_of = random.sample


def _sample(population: Any, k: int, *, counts: Any = None) -> Any:
    if isinstance(population, set | frozenset):
        population = tuple(population)
    return _sample_of(population, k, counts=counts)
