"""What `fix_environment` adds is there, does what the old library did, and goes away."""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from smore_ext.compat import mmrec


def test_names_are_added_and_taken_away() -> None:
    before = dict(vars(np)), dict(vars(torch.Tensor)), random.sample, dict(vars(sp.dok_matrix))
    fixes = mmrec.fix_environment()
    assert np.float is float and "np.float" in fixes.done
    assert np.zeros(2, dtype=np.float).dtype == np.float64
    assert len(random.sample({1, 2, 3}, 2)) == 2 and len(random.sample([1, 2], 1)) == 1
    matrix = sp.dok_matrix((3, 3), dtype=np.float32)
    matrix._update({(0, 1): 2.0, (2, 2): 1.0})
    assert matrix.tocsr().sum() == 3.0 and matrix[0, 1] == 2.0
    if not torch.cuda.is_available():
        x = torch.ones(2)
        assert x.cuda() is x and torch.nn.Linear(1, 1).cuda().weight.device.type == "cpu"
    importlib.import_module("lmdb")
    added = "lmdb, empty" in fixes.done
    fixes.undo()
    after = dict(vars(np)), dict(vars(torch.Tensor)), random.sample, dict(vars(sp.dok_matrix))
    assert after == before and not fixes.done
    assert not added or "lmdb" not in sys.modules


@pytest.mark.skipif(importlib.util.find_spec("torch_scatter") is not None, reason="torch_scatter is installed")
def test_scatter_sums() -> None:
    fixes = mmrec.fix_environment()
    try:
        scatter_add = importlib.import_module("torch_scatter").scatter_add
        index = torch.tensor([0, 2, 2, 0])
        assert scatter_add(torch.arange(4.0), index, dim=0, dim_size=4).tolist() == [3.0, 0.0, 3.0, 0.0]
        rows = torch.arange(8.0, requires_grad=True).view(4, 2)
        assert scatter_add(rows, index, dim=0).tolist() == [[6.0, 8.0], [0.0, 0.0], [6.0, 8.0]]
        assert scatter_add(rows, index, dim=0).requires_grad
    finally:
        fixes.undo()
