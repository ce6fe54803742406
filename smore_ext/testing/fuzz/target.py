"""What can be fuzzed: a target draws one call at a time.

A target is a function of a `random.Random`: it draws a `Call` and does not run it yet. The same state of the generator
must give the same call, as a finding is found again by its seed and number. `TARGETS` lists targets by name, each as
"package.module:function", imported in the process that calls it: a new one is a module with such a function and a line
there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

TARGETS: dict[str, str] = {
    "ops": "smore_ext.testing.fuzz.ops:draw",
    "files": "smore_ext.runs.fuzz_files:draw",
}


class Fault(AssertionError):
    """A call did what it must not do; the message says what."""


@dataclass(frozen=True)
class Call:
    """One call, ready to run.

    Attributes:
        kind: row of the table of results: the op, the reader.
        text: the call as a person would write it, with shapes, dtypes and views; what a report shows if it kills the
            process.
        run: makes the call and checks what came of it. Returns one word for the outcome, a column of the table
            ("same", "refused"). Raises `Fault`, or anything else: then that is what was found. It may die.
    """

    kind: str
    text: str
    run: Callable[[], str]


Target = Callable[[random.Random], Call]


def load_target(name: str) -> Target:
    """The target of a name in `TARGETS`, or of "package.module:function"."""
    where = TARGETS.get(name, name)
    module, _, function = where.partition(":")
    if not function:
        raise ValueError(f"target must be one of {', '.join(TARGETS)} or package.module:function, got {name!r}")
    target: Target = getattr(import_module(module), function)
    return target


def generator_of(seed: int, number: int) -> random.Random:
    """The generator that call `number` of a run is drawn from."""
    return random.Random(f"{seed}/{number}")
