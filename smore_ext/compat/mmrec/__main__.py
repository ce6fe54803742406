"""python -m smore_ext.compat.mmrec [options] src/main.py [arguments of the tree's main]"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from smore_ext.compat.mmrec import PIECES, fix_environment, patch


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a tree's main in its own folder, where it looks for its settings, under the patch."""
    parser = argparse.ArgumentParser(
        prog="python -m smore_ext.compat.mmrec",
        description="Runs the main file of an MMRec tree, untouched, with the pieces that prove equal replaced.",
    )
    parser.add_argument("--pieces", help=f"comma-separated, of {', '.join(PIECES)}; default all")
    parser.add_argument("--without", help="comma-separated pieces to leave out")
    parser.add_argument(
        "--fix-environment", action="store_true", help="start a tree of 2022 on a CPU with today's libraries"
    )
    parser.add_argument("script", type=Path, help="the tree's main file; what follows is its own")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    chosen = [p for p in (options.pieces or ",".join(PIECES)).split(",") if p]
    left_out = [p for p in (options.without or "").split(",") if p]
    if unknown := sorted({*chosen, *left_out} - set(PIECES)):
        parser.error(f"unknown piece {', '.join(unknown)}; there are {', '.join(PIECES)}")
    script = options.script.resolve()
    if not script.is_file():
        parser.error(f"{options.script} does not exist")
    if options.fix_environment:
        print(f"environment: {', '.join(fix_environment().done)}", file=sys.stderr)
    report = patch([piece for piece in chosen if piece not in left_out], root=script.parent)
    sys.argv = [str(script), *options.rest]
    sys.path[0] = str(script.parent)
    os.chdir(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        print(report, file=sys.stderr)


if __name__ == "__main__":
    main()
