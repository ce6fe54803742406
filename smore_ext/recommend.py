"""`python -m smore_ext.recommend RUN_DIR --user 5 --k 10`: the items that a run ranks first for a user."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console, recommendation_table

PROG = "python -m smore_ext.recommend"


@click.command(help="Print the unseen items that the best checkpoint of a run ranks first for a user.")
@click.argument("run_dir", type=Path)
@click.option(
    "--user",
    "users",
    multiple=True,
    required=True,
    metavar="ID",
    help="user id, as in the data; may be given repeatedly",
)
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="number of items")
@click.option(
    "--mask",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="items taken as seen: all the user's interactions, or those of train only, to check the ranking",
)
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the lists to this file")
def command(
    run_dir: Path, users: tuple[str, ...], k: int, mask: str, data_path: Path | None, json_file: Path | None
) -> int:
    run = runs.load_run(one_run(run_dir), data_path)
    lists = run.recommend(users, k, mask)
    console = make_console()
    if json_file is not None:
        runs.write_json(json_file, {str(user): [item._asdict() for item in items] for user, items in lists.items()})
    for user, items in lists.items():
        console.print(recommendation_table(user, items, f"seen items left out: {mask}"))
    return 0


def one_run(run_dir: Path) -> Path:
    """The folder of the one model that `run_dir` stands for; `UsageError` when it holds, or will hold, several."""
    found = runs.run_dirs(run_dir)
    if len(found) > 1:
        raise click.UsageError(f"{run_dir} holds several seeds: name one of {', '.join(map(str, found))}")
    if (others := runs.unfinished_seeds(run_dir)) and found[0] != run_dir:
        states = ", ".join(f"seed {seed} is {state}" for seed, state in others.items())
        raise click.UsageError(f"{run_dir} is a run of several seeds ({states}): name the one to use: {found[0]}")
    return found[0]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
