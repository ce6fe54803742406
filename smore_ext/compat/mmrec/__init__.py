"""Makes a source tree of the MMRec kind (github.com/enoche/MMRec and its forks) fast without a change to its files.

    from smore_ext.compat import mmrec

    report = mmrec.patch()          # all pieces, or pieces=("evaluation", "sampler"), ...
    ...                             # the tree's own main
    print(report)                   # what was replaced, what was left, and why
    report.undo()

or around an untouched tree: `python -m smore_ext.compat.mmrec src/main.py -m FREEDOM -d baby` (docs/drop-in.md).
"""

from smore_ext.compat.mmrec.environment import Fixes, fix_environment
from smore_ext.compat.mmrec.model import recommender
from smore_ext.compat.mmrec.patch import PIECES, Patch, patch, undo
from smore_ext.compat.mmrec.report import Entry, Report

__all__ = ["PIECES", "Entry", "Fixes", "Patch", "Report", "fix_environment", "patch", "recommender", "undo"]
