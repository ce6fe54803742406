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
from smore_ext.serving.lists import lists_of_run, write_lists

NEW = "somebody new"
PROG = "python -m smore_ext.recommend"
HELP = """Print the unseen items that a trained model ranks first for users, or for somebody new by what they have had
(--history), or write the lists of all users.

RUN is a run's folder, or a file that `smore export RUN --served` wrote, which needs no data."""


@click.command(help=HELP)
@click.argument("run_dir", type=Path, metavar="RUN")
@click.option("--user", "users", multiple=True, metavar="ID", help="user id, as in the data; may be given repeatedly")
@click.option("--users", "users_file", type=Path, metavar="FILE", help="ids of users, one a line")
@click.option("--history", multiple=True, metavar="ID", help="an item that somebody new has had; give it repeatedly")
@click.option("--all", "all_file", type=Path, metavar="FILE", help="write lists of all users: .jsonl or .parquet")
@click.option("-o", "--output", type=Path, metavar="FILE", help="write the users' lists, streamed: .jsonl or .parquet")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="number of items")
@click.option(
    "--mask",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="items taken as seen: all the user's interactions, or those of train only, to check the ranking",
)
@click.option("--keep-seen", is_flag=True, help="leave no item out that the user has had")
@click.option("--allow", type=Path, metavar="FILE", help="the items that may be recommended, one id a line")
@click.option("--deny", type=Path, metavar="FILE", help="items that may not, one id a line")
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the lists to this file")
def command(
    run_dir: Path,
    users: tuple[str, ...],
    users_file: Path | None,
    history: tuple[str, ...],
    all_file: Path | None,
    output: Path | None,
    k: int,
    mask: str,
    keep_seen: bool,
    allow: Path | None,
    deny: Path | None,
    data_path: Path | None,
    json_file: Path | None,
) -> int:
    if sum(map(bool, (users or users_file, history, all_file))) != 1:
        raise click.UsageError("expected --user ID, --users FILE, --history ID for somebody new, or --all FILE")
    if output is not None and not (users or users_file):
        raise click.UsageError("--output: expected it with --user or --users; --all FILE writes the lists of all")
    rules = bool(allow or deny or all_file or output or keep_seen or history)
    file = run_dir.suffix == serving.SUFFIX
    if mask == "train" and (rules or file):
        raise click.UsageError(
            "--mask train: expected a run and single users, without --allow, --deny, --keep-seen and --output"
        )
    for place in (all_file, json_file, output):
        if place is not None:
            runs.check_output(place)
    asked = [*users, *(ids_of(users_file) if users_file else [])]
    if users_file and not asked:
        raise click.UsageError(f"{users_file}: expected ids of users, one a line, got none")
    chosen, refused = (None if place is None else ids_of(place) for place in (allow, deny))
    limits = k, not keep_seen, chosen, refused or ()
    console = make_console()
    run = None if file else runs.load_run(one_run(run_dir), data_path, device="cpu" if rules else None)
    if all_file is not None:
        plain = run is not None and not serving.servable(run.model) and not (allow or deny or keep_seen)
        found = lists_of_run(run, k) if run and plain else serving.load(run or run_dir).all_lists(*limits)
        console.print(f"lists of {write_lists(found, all_file):,} users in {all_file}", soft_wrap=True)
        return 0
    if output is not None:
        count = write_lists(serving.load(run or run_dir).lists(asked, *limits), output)
        console.print(f"lists of {count:,} users in {output}", soft_wrap=True)
        return 0
    if run is None or rules:
        model = serving.load(run or run_dir)
        served = {NEW: model.recommend_for(history, *limits)} if history else model.recommend(asked, *limits)
        lists: dict[str | int, list[Recommendation]] = {
            user: [Recommendation(near.item, near.value, "") for near in items] for user, items in served.items()
        }
    else:
        lists = run.recommend(asked, k, mask)
    if json_file is not None:
        runs.write_json(json_file, {str(user): [item._asdict() for item in items] for user, items in lists.items()})
    for user, items in lists.items():
        left_out = "seen items kept" if keep_seen else f"seen items left out: {mask}"
        console.print(recommendation_table(NEW if history else f"user {user}", items, left_out))
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
