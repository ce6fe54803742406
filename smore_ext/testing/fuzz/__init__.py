"""Fuzzers: random calls, in processes that may die, each compared with what must come of it.

`python -m smore_ext.testing.fuzz ops --calls 20000 --seed 1`. What is called is a target (`target.py`); another one is
a function that draws a `Call`, and a line in `TARGETS`. Nothing here needs more than torch.
"""

from smore_ext.testing.fuzz.runner import Finding, Report, run
from smore_ext.testing.fuzz.target import TARGETS, Call, Fault, Target

__all__ = ["TARGETS", "Call", "Fault", "Finding", "Report", "Target", "run"]
