"""What errors say: the setting's flag, what is expected, what came."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from torch import Tensor

from smore_ext.models import Batch
from smore_ext.runs import folder
from smore_ext.training.loop import TrainingDiverged


class Diverging(tiny.Tiny):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * float("nan")


def test_a_run_that_diverges_at_once_kept_no_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tiny.MODELS, "Tiny", tiny.Tiny)  # `trainer` replaces it
    with pytest.raises(TrainingDiverged) as raised:
        tiny.trainer(Diverging, tmp_path).run()
    assert f"no epoch is done, so {tmp_path} holds the weights at the start" in str(raised.value)
    assert (tmp_path / folder.LAST).exists()
