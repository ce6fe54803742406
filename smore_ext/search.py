"""`python -m smore_ext.search -m SMORE -d baby --space cl_weight=0,0.001,0.01 --trials 20`: settings searched for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.experiments import space as spaces
from smore_ext.experiments.search import Sampler, names_of, search
from smore_ext.experiments.search_reports import write_reports
from smore_ext.flags import SettingsCommand
from smore_ext.models.registry import DEFAULT_MODEL, short_name
from smore_ext.runs.config_files import load_preset, read_yaml
from smore_ext.settings.config import FLAGS, Layer, RunConfig, config_class, loop_value, names_in

PROG = "python -m smore_ext.search"
HELP = """Search for settings: each trial is a run, and the best is chosen on validation alone.

--space NAME=a,b,c names values to choose from, NAME=low..high a range, NAME=low..high:log one on a logarithmic scale;
the lists in one of MMRec's files (--config) are values to choose from too. Other flags hold for all trials. Run the
same command again to go on, also with more trials."""
SHOWN = 10  # trials in the table


@click.command(cls=SettingsCommand, help=HELP)
@click.option("--space", "texts", multiple=True, metavar="NAME=VALUES", help="what is varied; may be given repeatedly")
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="in all")
@click.option("--sampler", type=click.Choice(get_args(Sampler)), default="tpe", show_default=True)
@click.option("--search-seed", type=click.IntRange(0), default=0, show_default=True, help="of the sampler")
@click.option("--prune/--no-prune", default=True, help="stop runs below the median of others; default yes")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="runs at a time")
@click.option("--preset", metavar="NAME", help="published settings to begin with, and what to vary of them")
@click.option("--config", "config_file", type=Path, metavar="FILE", help="YAML file of settings")
@click.pass_context
def command(
    context: click.Context,
    texts: tuple[str, ...],
    trials: int,
    sampler: Sampler,
    search_seed: int,
    prune: bool,
    jobs: int,
    preset: str | None,
    config_file: Path | None,
) -> int:
    flags: dict[str, Any] = context.obj
    sections: spaces.Space = {} if preset is None else spaces.of_section(load_preset(preset))
    grids: spaces.Space = {}
    if config_file is not None:
        layer = Layer(f"file {config_file}", read_yaml(config_file))
        model = loop_value([layer, Layer(FLAGS, flags)], "model") or DEFAULT_MODEL
        fixed = {name.rpartition(".")[2] for name in names_in(layer)}
        sections = {name: part for name, part in sections.items() if name not in fixed} | spaces.of_section(layer)
        grids = spaces.of_file(layer.values, config_class(model))
    # What --space names takes the place of all sections.
    there = {name: part for name, part in (grids | ({} if texts else sections)).items() if name not in flags}
    space = there | spaces.parse(texts)

    def config_of(own: Mapping[str, Any]) -> RunConfig:
        return runs.resolve(flags | dict(own), preset, config_file)

    train = config_of({name: spaces.first(part) for name, part in space.items()}).train
    folder = train.output_dir or Path("runs") / f"search-{short_name(train.model)}-{train.dataset}".lower()
    runs.check_output_folder(folder)
    console = make_console()
    found = search(
        config_of, space, folder, trials, sampler, jobs, prune, search_seed,
        lambda line: console.print(line, soft_wrap=True, markup=False),
    )  # fmt: skip
    files = write_reports(found, folder)
    names = names_of(found.rows)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("trial", *names, f"validation {found.metric}", "epoch", "state"):
        table.add_column(column, justify="right")
    for row in found.rows[:SHOWN]:
        own = [_shown(row.settings.get(name, "")) for name in names]
        value = "" if row.value is None else f"{row.value:.4f}"
        table.add_row(str(row.number), *own, value, "" if row.best_epoch is None else str(row.best_epoch), row.state)
    console.print(table)
    if found.best is not None:
        flags_ = " ".join(f"--{n.replace('_', '-')} {_shown(v)}" for n, v in found.best.settings.items())
        console.print(f"best on validation: {flags_}", soft_wrap=True, markup=False)
        console.print(f"its test {found.metric}: {found.test[found.metric]:.4f}", soft_wrap=True, markup=False)
    console.print(f"written: {', '.join(map(str, files))}", soft_wrap=True, markup=False)
    return 0 if found.best is not None else 1


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
