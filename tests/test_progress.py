"""What the loop carries from step to step: the best epoch so far, and losses read many at a time."""

from __future__ import annotations

import torch

from smore_ext.training.progress import LossWindow, Progress


def test_values_are_rounded_and_must_be_strictly_greater() -> None:
    progress = Progress()
    values = [0.10004, 0.10001, 0.10006, 0.10014, 0.1002]
    improved = [progress.observe(epoch, {"recall@20": value}, "recall@20") for epoch, value in enumerate(values)]
    assert improved == [True, False, True, False, True]  # 0.1000, 0.1000, 0.1001, 0.1001, 0.1002
    assert (progress.best_epoch, progress.best_value, progress.bad_epochs) == (4, 0.1002, 0)


def test_a_first_value_of_zero_is_a_best_epoch() -> None:
    assert Progress().observe(0, {"recall@20": 0.0}, "recall@20")


def test_a_first_value_below_zero_is_a_best_epoch_and_nan_is_none() -> None:
    assert Progress().observe(0, {"mine@1": -5.0}, "mine@1")
    assert not Progress().observe(0, {"mine@1": float("nan")}, "mine@1")


def test_loss_window_reads_many_steps_at_once() -> None:
    window = LossWindow()
    for step in range(3):
        window.add({"loss": torch.tensor(float(step)), "bpr": torch.tensor(2.0 * step)})
    assert len(window) == 3
    assert window.read()[2] == {"loss": 2.0, "bpr": 4.0}
    assert len(window) == 0
    window.add({"loss": torch.tensor(5.0), "bpr": torch.tensor(10.0)})
    window.read()
    assert window.means() == {"loss": 2.0, "bpr": 4.0}
