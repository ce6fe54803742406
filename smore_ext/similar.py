"""`python -m smore_ext.similar RUN --item 5 --by text`: the items that are most like one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console, near_table
from smore_ext.recommend import served_model

PROG = "python -m smore_ext.similar"
HELP = """Print the items of the largest cosine with an item: by final embeddings, or by one part of them (behaviour, a
modality, fusion; a part that there is not is told with those that there are). Of a model of weights between items, the
items that it votes for most.

RUN is a run's folder, or a file that `smore export RUN --served` wrote, which needs no data."""


@click.command(help=HELP)
@click.argument("run_dir", type=Path, metavar="RUN")
@click.option("--item", "items", multiple=True, required=True, metavar="ID", help="item id; may be given repeatedly")
@click.option("--by", metavar="PART", help="part of the embeddings; default all of them")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="number of items")
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the lists to this file")
def command(
    run_dir: Path, items: tuple[str, ...], by: str | None, k: int, data_path: Path | None, json_file: Path | None
) -> int:
    model = served_model(run_dir, data_path)
    lists = model.similar(items, k, by)
    if json_file is not None:
        runs.write_json(json_file, {str(item): [near._asdict() for near in found] for item, found in lists.items()})
    console = make_console()
    for item, found in lists.items():
        console.print(near_table(f"like item {item}, by {by or model.whole}", model.nearness, found))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
