"""`python -m smore_ext.train`: trains a model. Without arguments: SMORE on the built-in data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from smore_ext import runs
from smore_ext.cli import INTERRUPTED, run_command
from smore_ext.console import ConsoleReport, estimate_table, make_console, result_table, seeds_table
from smore_ext.experiments.estimate import Counts, estimate
from smore_ext.experiments.jobs import available_memory, taken_of
from smore_ext.experiments.measured import peak_bytes
from smore_ext.experiments.side_by_side import SeedsFailed, train_seeds
from smore_ext.flags import SettingsCommand
from smore_ext.runs.config_files import preset_names
from smore_ext.settings.config import RunConfig
from smore_ext.settings.fields import ConfigError
from smore_ext.training.device import begin

PROG = "python -m smore_ext.train"


@click.command(cls=SettingsCommand, help="Train a model. A later setting wins: preset, --config file, flags.")
@click.option("--preset", metavar="NAME", help=f"settings of: {', '.join(preset_names())}")
@click.option("--config", "config_file", type=Path, metavar="FILE", help="YAML file of settings, named as the flags")
@click.option("--resume", type=Path, metavar="RUN_DIR", help="go on with a run that was stopped")
@click.option("--overwrite", is_flag=True, help="delete the run that is in the output directory")
@click.option("--dry-run", is_flag=True, help="train nothing: say what memory and time it would take; 1 if too much")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="of the --seeds, runs at a time")
@click.option("-q", "--quiet", is_flag=True, help="no line per epoch")
@click.pass_context
def command(
    context: click.Context,
    preset: str | None,
    config_file: Path | None,
    resume: Path | None,
    overwrite: bool,
    dry_run: bool,
    jobs: int,
    quiet: bool,
) -> int:
    flags: dict[str, Any] = context.obj
    if dry_run and (resume or overwrite):
        raise click.UsageError("--dry-run: expected neither --resume nor --overwrite")
    if jobs > 1 and overwrite:
        raise click.UsageError("--jobs: expected no --overwrite; delete the run that is there")
    if resume is None:
        config = runs.resolve(flags, preset, config_file)
    elif preset or config_file or overwrite or "output_dir" in flags:
        raise ConfigError("--resume goes on as the run began: no --preset, --config, --overwrite, -o with it")
    else:
        config = runs.stored_config(resume, flags)

    if jobs > 1 and not config.train.seeds:
        raise ConfigError("--jobs: expected --seeds, several runs of which some are at a time")
    at_once = min(jobs, len(config.train.seeds) or 1)
    if not dry_run and at_once == 1 and (resume is None or not runs.finished(resume, config)):
        begin(config.train.device)
    dataset = runs.open_dataset(config) if resume is None else runs.dataset_of(resume, config)
    if dry_run:
        return say_what_it_takes(Counts.of(dataset), config, at_once)
    run_dir = runs.new_run_dir(config, overwrite) if resume is None else resume
    console = make_console()
    if resume is not None and runs.finished(run_dir, config):
        console.print(f"{run_dir} is finished: nothing is left to do", soft_wrap=True)
        result = runs.train(config, dataset, run_dir, resume=True)
        console.print(seeds_table(result) if "runs" in result else result_table(result))
        return 0
    again = f"{context.command_path} --resume {{}}{f' --jobs {jobs}' if jobs > 1 else ''}"
    try:
        with ConsoleReport(console, every_epoch=not quiet) as report:
            while True:
                try:
                    if at_once > 1:
                        report.say(f"{len(config.train.seeds)} seeds, {at_once} at a time; results in {run_dir}")
                        result = train_seeds(config, dataset, run_dir, at_once, resume is not None, report.say)
                    else:
                        result = runs.train(config, dataset, run_dir, [report], resume is not None, overwrite)
                    break
                except (runs.RunInUse, FileExistsError):
                    if resume is not None or config.train.output_dir is not None:
                        raise
                    run_dir = runs.new_run_dir(config)  # another run began in the same second
    except KeyboardInterrupt:
        console.print(interrupted_message(run_dir, again.format(run_dir)), soft_wrap=True)
        return INTERRUPTED
    except SeedsFailed as error:
        console.print(f"not finished, {error}\nto go on: {again.format(run_dir)}", soft_wrap=True, markup=False)
        return 1
    if "runs" in result:
        console.print(seeds_table(result))
    console.print(f"results in {run_dir}", soft_wrap=True)
    return 0


def say_what_it_takes(counts: Counts, config: RunConfig, at_once: int = 1) -> int:
    """Prints an estimate of a run; 1 where so many at a time would not fit into memory."""
    console = make_console()
    found = estimate(
        counts,
        config,
        reading=peak_bytes("cpu") if config.train.device == "cpu" else 0.0,
        tell=lambda point: console.print(
            f"{point.share:.1%} of the data: {point.memory / 1e6:,.0f} MB, {1e3 * point.step:.2f} ms a step",
            style="dim",
        ),
    )
    console.print(estimate_table(found, config))
    device = config.train.device
    free, one = available_memory(device), taken_of(device, round(found.memory))
    if free is None or one * at_once <= free:
        return 0
    several = f"{at_once} at a time take {one * at_once / 1e6:,.0f} MB, " if at_once > 1 else ""
    console.print(f"this will not fit: {several}{free / 1e6:,.0f} MB are available", style="bold red")
    return 1


def interrupted_message(run_dir: Path, again: str) -> str:
    kept = runs.RunFolder(run_dir).last_checkpoints()
    if not kept:
        return "interrupted before a checkpoint was written"
    return f"interrupted; checkpoint: {kept[-1]}\nto go on: {again}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
