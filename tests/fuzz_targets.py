"""Targets with planted faults, for tests of the fuzzer."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable

import torch

from smore_ext.backends import guard_pages
from smore_ext.testing.fuzz import Call, Fault


def _sixth(what: Callable[[], str]) -> Callable[[random.Random], Call]:
    """Of calls 0, 1, 2 and so on the one that draws a number below 1/6 is the fault."""

    def draw(rng: random.Random) -> Call:
        number = rng.random()
        return Call("planted", f"call({number:.3f})", what if number < 1 / 6 else lambda: "same")

    return draw


def _differ() -> str:
    raise Fault("2 is not 3")


def _crash() -> str:
    ctypes.string_at(0)
    return "same"


def _hang() -> str:
    time.sleep(600)
    return "same"


def _read_behind() -> str:
    """One element behind a tensor of an odd size: no fault without a guard page."""
    guard_pages("behind")
    row = torch.ones(1001)
    ctypes.string_at(row.data_ptr() + 4 * 1001, 4)
    return "same"


def _ask_for_much(guarded: str) -> str:
    guard_pages(guarded)
    try:
        torch.empty(2**33, dtype=torch.uint8)
    except RuntimeError as error:
        raise Fault(f"refused: {error}") from error
    finally:
        guard_pages("off")
    return "accepted"


differs, crashes, hangs, reads_behind = map(_sixth, (_differ, _crash, _hang, _read_behind))
asks_for_much = _sixth(lambda: _ask_for_much("off"))
asks_for_much_guarded = _sixth(lambda: _ask_for_much("behind"))


def error(rng: random.Random) -> Call:
    raise KeyError("a target that fails")
