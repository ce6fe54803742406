"""`python -m smore_ext.recommend RUN --user 5 --k 10`: the items that a run ranks first for users."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from smore_ext import runs, serving
from smore_ext.cli import run_command
from smore_ext.console import make_console, recommendation_table
from smore_ext.runs import Recommendation
from smore_ext.serving import Served
from smore_ext.serving.lists import write_lists

PROG = "python -m smore_ext.recommend"
HELP = """Print the unseen items that a trained model ranks first for users, or write the lists of all users.

RUN is a run's folder, or a file that `smore export RUN --served` wrote, which needs no data."""


@click.command(help=HELP)
@click.argument("run_dir", type=Path, metavar="RUN")
@click.option("--user", "users", multiple=True, metavar="ID", help="user id, as in the data; may be given repeatedly")
@click.option("--all", "all_file", type=Path, metavar="FILE", help="write lists of all users: .jsonl or .parquet")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="number of items")
@click.option(
    "--mask",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="items taken as seen: all the user's interactions, or those of train only, to check the ranking",
)
@click.option("--allow", type=Path, metavar="FILE", help="the items that may be recommended, one id a line")
@click.option("--deny", type=Path, metavar="FILE", help="items that may not, one id a line")
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the lists to this file")
def command(
    run_dir: Path,
    users: tuple[str, ...],
    all_file: Path | None,
    k: int,
    mask: str,
    allow: Path | None,
    deny: Path | None,
    data_path: Path | None,
    json_file: Path | None,
) -> int:
    if bool(users) == bool(all_file):
        raise click.UsageError("expected --user ID, or --all FILE for all users")
    rules = bool(allow or deny or all_file)
    if mask == "train" and (rules or run_dir.suffix == serving.SUFFIX):
        raise click.UsageError("--mask train: expected a run and single users, without --allow and --deny")
    console = make_console()
    if rules or run_dir.suffix == serving.SUFFIX:
        served = served_model(run_dir, data_path)
        chosen, refused = (None if file is None else ids_of(file) for file in (allow, deny))
        if all_file is not None:
            count = write_lists(served.all_lists(k, True, chosen, refused or ()), all_file)
            console.print(f"lists of {count:,} users in {all_file}", soft_wrap=True)
            return 0
        found = served.recommend(users, k, True, chosen, refused or ())
        lists = {user: [Recommendation(near.item, near.value, "") for near in items] for user, items in found.items()}
    else:
        lists = runs.load_run(one_run(run_dir), data_path).recommend(users, k, mask)
    if json_file is not None:
        runs.write_json(json_file, {str(user): [item._asdict() for item in items] for user, items in lists.items()})
    for user, items in lists.items():
        console.print(recommendation_table(user, items, f"seen items left out: {mask}"))
    return 0


def ids_of(file: Path) -> list[str]:
    """Ids, one a line; empty lines are none."""
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def served_model(path: Path, data_path: Path | None) -> Served:
    """The model of a run's folder, or of an exported file."""
    if path.suffix == serving.SUFFIX:
        return serving.load(path)
    return serving.load(one_run(path), data_path)


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
