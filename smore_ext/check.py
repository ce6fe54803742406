"""`python -m smore_ext.check FOLDER`: is a folder of data sound, and what is odd about it?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.data import ReadOptions, load_dataset
from smore_ext.data.files import MISSING, TEXTS
from smore_ext.data.options import Ids, Split
from smore_ext.prepare.check import check_folder, words

PROG = "python -m smore_ext.check"


@click.command(help="Read a folder of data, and say in plain words what is odd about it. Exit code 1 if something is.")
@click.argument("folder", type=Path)
@click.option("--ids", type=click.Choice(["index", "raw", "mapped"]), default="index", show_default=True)
@click.option("--split", type=click.Choice(get_args(Split)), default="label", show_default=True, help="as for training")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the remarks to this file")
def command(folder: Path, ids: Ids, split: Split, json_file: Path | None) -> int:
    if not folder.is_dir():
        raise click.UsageError(
            f"{folder}: expected a folder of data, got {'a file' if folder.exists() else 'nothing there'}"
        )
    dataset = load_dataset(folder, options=ReadOptions(ids=ids, split=split, overlap="earliest"))
    files = {name: folder / f"{name}{MISSING}" for name in dataset.features}
    filled = {name: path.read_text(encoding="utf-8").splitlines() for name, path in files.items() if path.is_file()}
    remarks = check_folder(dataset, folder / TEXTS, filled)
    make_console().print(words(remarks), soft_wrap=True)
    if json_file is not None:
        runs.write_json(json_file, [asdict(remark) for remark in remarks])
    return int(any(remark.odd for remark in remarks))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
