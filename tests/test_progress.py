"""What the loop carries from step to step: the best epoch so far, and losses read many at a time."""

from __future__ import annotations

import time

import torch

from smore_ext.console import spent
from smore_ext.environment import process_seconds, since_last_run
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


def test_the_time_of_a_process_is_shared_out_over_its_runs() -> None:
    age = process_seconds()
    assert 0 < age < 24 * 3600
    since_last_run()
    begin = time.monotonic()
    time.sleep(0.05)
    passed = since_last_run()
    assert 0.03 <= passed <= time.monotonic() - begin + 0.03  # the system counts hundredths
    assert process_seconds() >= age


def test_spent_time_is_told_in_order_and_of_earlier_versions_too() -> None:
    seconds = {"training": 70.0, "evaluating": 1.0, "writing": 0.25, "starting": 3.0, "testing": 9.0}
    assert spent(seconds) == "start 3.0 s, training 1 min 10 s, evaluation 1.0 s, writing 0.2 s"
    assert spent({"training": 1.0, "evaluating": 2.0}) == "training 1.0 s, evaluation 2.0 s"
