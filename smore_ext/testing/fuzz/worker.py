"""The process that makes the calls: it may die, and says before each call which one it is."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import traceback
from typing import Any

from smore_ext.testing.fuzz.target import Fault, Target, generator_of, load_target

MEMORY = 4 << 30  # bytes: a size that makes no sense is refused by the allocator, before the machine runs out of memory


def attempt(target: Target, seed: int, number: int, announce: int | None = None) -> dict[str, Any]:
    """Makes one call. Returns {"kind", "outcome"}, and "call" and "detail" too if something was found.

    announce: a file that the text of the call is written to before it runs.
    """
    text = kind = "?"
    try:
        call = target(generator_of(seed, number))
        kind, text = call.kind, call.text
        if announce is not None:
            line = json.dumps([kind, text]).encode()
            os.pwrite(announce, line, 0)
            os.ftruncate(announce, len(line))
        return {"kind": kind, "outcome": call.run()}
    except Fault as fault:
        return {"kind": kind, "outcome": "fault", "call": text, "detail": str(fault)}
    except Exception:
        return {"kind": kind, "outcome": "error", "call": text, "detail": traceback.format_exc(limit=-6)}


def main() -> None:
    name, *numbers = sys.argv[1:]
    seed, first, end, results, announce = map(int, numbers)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    target = load_target(name)
    for number in range(first, end):
        line = json.dumps({"number": number, **attempt(target, seed, number, announce)}) + "\n"
        os.write(results, line.encode())


if __name__ == "__main__":
    main()
