"""`python -m smore_ext.evaluate RUN_DIR`: metrics of a run's best checkpoint, under either protocol."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console, result_table, seeds_table
from smore_ext.evaluation.protocol import MASKED

PROG = "python -m smore_ext.evaluate"


@click.command(help="Evaluate the best checkpoint of a run, or of each of its seeds.")
@click.argument("run_dir", type=Path)
@click.option("--protocol", type=click.Choice(list(MASKED)), help="default: the run's own")
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--device", help="default: the run's own")
@click.option("--threads", type=click.IntRange(1), help="CPU threads")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the numbers to this file")
def command(
    run_dir: Path,
    protocol: str | None,
    data_path: Path | None,
    device: str | None,
    threads: int | None,
    json_file: Path | None,
) -> int:
    if json_file is not None:
        runs.check_output(json_file)
    console = make_console()
    results, dataset = [], None
    unfinished = runs.unfinished_seeds(run_dir)
    with runs.cpu_threads(threads):
        for path in runs.run_dirs(run_dir):
            run = runs.load_run(path, data_path, dataset, device)
            dataset = run.dataset
            results.append(run.evaluate(protocol or run.config.train.protocol))
    several = run_dir != path or len(results) > 1
    report = runs.summarise(results, runs.seeds_config(run_dir, run.config, results)) if several else results[0]
    if unfinished:
        states = ", ".join(f"seed {seed} is {state}" for seed, state in unfinished.items())
        report["warnings"].insert(0, f"{states}; these numbers are not those of the whole run")
    if json_file is not None:
        runs.write_json(json_file, report)  # first: the console may be gone
    for result in results:
        console.print(result_table(result))
    if several:
        console.print(seeds_table(report))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
