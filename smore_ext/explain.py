"""`python -m smore_ext.explain RUN --user 5 --item 7`: why a model ranks an item where it does for a user."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console, near_table
from smore_ext.recommend import served_model
from smore_ext.serving import Similar

PROG = "python -m smore_ext.explain"
HELP = """Print what a user's score of an item is made of, by parts of the model whose contributions add up to it, and
which of the user's items are nearest to it in each; of a model of weights between items, which vote for it most.

RUN is a run's folder, or a file that `smore export RUN --served` wrote, which needs no data."""


@click.command(help=HELP)
@click.argument("run_dir", type=Path, metavar="RUN")
@click.option("--user", required=True, metavar="ID")
@click.option("--item", required=True, metavar="ID")
@click.option("--k", type=click.IntRange(1), default=3, show_default=True, help="nearest items of each part")
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write it to this file")
def command(run_dir: Path, user: str, item: str, k: int, data_path: Path | None, json_file: Path | None) -> int:
    model = served_model(run_dir, data_path)
    found = model.explain(user, item, k)
    if json_file is not None:
        runs.write_json(json_file, asdict(found))
    console = make_console()
    parts = [Similar(name, value) for name, value in found.contributions.items()]
    seen = "; the user has had it" if found.seen else ""
    console.print(near_table(f"user {user}, item {item}: score {found.score:.4f}{seen}", "contribution", parts, "part"))
    for name, items in found.nearest.items():
        console.print(near_table(f"the user's items nearest to it by {name}", model.nearness, items))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
