"""`python -m smore_ext.compare -d NAME --models all --seeds 1,2,3`: models on one data set, in one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.experiments import compare, plan
from smore_ext.experiments.reports import notes, table, write_reports
from smore_ext.flags import SettingsCommand
from smore_ext.models.registry import MODELS
from smore_ext.settings.fields import ConfigError

PROG = "python -m smore_ext.compare"
HELP = """Train models with the same seeds on one data set, and compare them with the first in one table.

What is finished in the output directory is kept: run the same command again to go on, also with more models or seeds. A
setting goes to the models that have it. Later ones win: preset <model>-<data set>, --config file, flags."""


@click.command(cls=SettingsCommand, help=HELP)
@click.option("--models", default="all", metavar="all|NAME,...", help="models to compare; all are the registered ones")
@click.option("--jobs", type=click.IntRange(1), default=1, help="runs at a time, as far as memory allows; default 1")
@click.option("--config", "config_file", type=Path, metavar="FILE", help="YAML file of settings, a section a model")
@click.option("--presets/--no-presets", default=True, help="take published settings where there are any; default yes")
@click.pass_context
def command(context: click.Context, models: str, jobs: int, config_file: Path | None, presets: bool) -> int:
    flags: dict[str, Any] = context.obj
    for name in ("model", "train.model"):
        if name in flags:
            raise ConfigError("--model: a comparison has several: --models NAME,...")
    names = list(MODELS.loadable()) if models == "all" else [name.strip() for name in models.split(",")]
    configs = plan(names, flags, config_file, presets)
    train = next(iter(configs.values())).train
    folder = train.output_dir or Path("runs") / f"compare-{train.dataset}"
    runs.check_output_folder(folder)
    console = make_console()
    comparison = compare(configs, folder, jobs, lambda line: console.print(line, soft_wrap=True, markup=False))
    files = write_reports(comparison, folder)
    head, *rows = table(comparison, brief=True)
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in head:
        shown.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        shown.add_row(*row)
    console.print(shown)
    for note in notes(comparison):
        console.print(note, soft_wrap=True, markup=False)
    console.print(f"written: {', '.join(map(str, files))}", soft_wrap=True, markup=False)
    return 1 if comparison.failed and models != "all" else 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
