"""The device of a run: begun while data are read, and refused in one place."""

from __future__ import annotations

import threading

import pytest
import torch

from smore_ext.training.device import begin, usable_device


def test_a_cpu_needs_no_beginning() -> None:
    before = threading.active_count()
    assert begin("cpu") is None and threading.active_count() == before


def test_a_gpu_is_begun_on_a_thread() -> None:
    thread = begin("cuda")
    assert thread is not None
    thread.join(60)
    assert not thread.is_alive()
    assert torch.cuda.is_initialized() == torch.cuda.is_available()


def test_what_goes_wrong_is_said_where_the_device_is_used(capfd: pytest.CaptureFixture[str]) -> None:
    thread = begin("cuda:99")
    assert thread is not None
    thread.join(60)
    assert capfd.readouterr().err == ""
    with pytest.raises(ValueError, match="device: 'meta' cannot be used: it holds no numbers"):
        usable_device("meta")
    with pytest.raises(ValueError, match="device: 'cuda:99' cannot be used"):
        usable_device("cuda:99")
