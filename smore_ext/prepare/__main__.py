"""`python -m smore_ext.prepare SOURCE -o FOLDER`: a dump of interactions becomes the folder that training reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import get_args

import click

from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.data.missing import Filled
from smore_ext.prepare import Rules, prepare
from smore_ext.prepare.rules import Split

PROG = "python -m smore_ext.prepare"
HELP = """Make the folder that training reads from a table of interactions.

SOURCE is a csv, tsv, .inter (RecBole), .dat (MovieLens), JSON lines (Amazon reviews) or parquet file, packed with gzip
or not. Columns of users, items, ratings and times are found by their usual names. All is written, or nothing."""


@click.command(help=HELP)
@click.argument("source", type=Path)
@click.option("-o", "--output", type=Path, required=True, help="the folder; its name is that of the data set")
@click.option("--items", type=Path, metavar="FILE", help="a table of the items' texts")
@click.option("--text-columns", default="", metavar="NAME,...", help="its columns that make the text")
@click.option("--text-encoder", metavar="FOLDER", help="a sentence-transformers model on this machine")
@click.option("--images", type=Path, metavar="DIR", help="images named by item, B07K.jpg")
@click.option("--image-encoder", metavar="FOLDER", help="a timm model on this machine")
@click.option("--vectors", multiple=True, metavar="NAME=FILE", help="features that are there: parquet, JSON lines, npy")
@click.option(
    "--filled",
    type=click.Choice(get_args(Filled)),
    default="mean",
    show_default=True,
    help="what items without a text or vector get",
)
@click.option(
    "--k-core", type=click.IntRange(1), default=5, show_default=True, help="fewest partners of users and items"
)
@click.option("--min-rating", type=float, help="interactions below it do not count")
@click.option("--split", type=click.Choice(get_args(Split)), default="random", show_default=True)
@click.option("--split-ratios", default="0.8,0.1,0.1", show_default=True, metavar="TRAIN,VALID,TEST")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of what is drawn")
@click.option("--user-column", metavar="NAME")
@click.option("--item-column", metavar="NAME")
@click.option("--rating-column", metavar="NAME")
@click.option("--time-column", metavar="NAME")
@click.option("--columns", metavar="NAME,...", help="of a table without a header, in order; _ for one to ignore")
@click.option("--memory", default="1GB", show_default=True, help="of the database, before it goes on on the disk")
@click.option("--overwrite", is_flag=True, help="replace a folder that is there")
def command(
    source: Path, output: Path, items: Path | None, text_columns: str, text_encoder: str | None,
    images: Path | None, image_encoder: str | None, vectors: tuple[str, ...], filled: Filled, k_core: int,
    min_rating: float | None, split: Split, split_ratios: str, seed: int, user_column: str | None,
    item_column: str | None, rating_column: str | None, time_column: str | None, columns: str | None, memory: str,
    overwrite: bool,
) -> int:  # fmt: skip
    try:
        first, second, third = (float(part) for part in split_ratios.split(","))
    except ValueError:
        raise click.UsageError(f"--split-ratios: expected three numbers as 0.8,0.1,0.1, got {split_ratios}") from None
    for pair in vectors:
        if "=" not in pair:
            raise click.UsageError(f"--vectors: expected NAME=FILE, got {pair}")
    tables = [(name, Path(path)) for name, _, path in (pair.partition("=") for pair in vectors)]
    if len(dict(tables)) < len(tables):
        raise click.UsageError(f"--vectors: expected each name once, got {', '.join(name for name, _ in tables)}")
    names = tuple(name.strip() for name in columns.split(",")) if columns else ()
    rules = Rules(
        k_core, min_rating, split, (first, second, third), seed, user_column, item_column, rating_column, time_column,
        names,
    )  # fmt: skip
    console = make_console()
    prepared = prepare(
        source, output, rules, items=items, text_columns=[name for name in text_columns.split(",") if name],
        text_encoder=text_encoder, images=images, image_encoder=image_encoder,
        vectors=dict(tables),
        filled=filled, memory=memory, overwrite=overwrite,
        tell=lambda line: console.print(line, soft_wrap=True, markup=False),
    )  # fmt: skip
    folder, name, place = map(quote, (str(output), prepared.folder.name, str(prepared.folder.parent)))
    line = f"next: smore check {folder} --ids mapped; smore train -d {name} --data-path {place} --ids mapped"
    console.print(line, soft_wrap=True, markup=False)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
