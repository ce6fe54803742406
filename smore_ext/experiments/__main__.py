"""`python -m smore_ext.experiments NAME|all`: what the parts of the model do, measured, in one report."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from smore_ext.cli import run_command
from smore_ext.console import duration, make_console
from smore_ext.experiments import evidence
from smore_ext.experiments.cells import Records
from smore_ext.experiments.studies import STUDIES
from smore_ext.experiments.studies.common import SCALES
from smore_ext.experiments.training_cells import train_cells, training_seconds
from smore_ext.registry import did_you_mean
from smore_ext.training.device import usable_device

ALL = ("all", evidence.SIGNIFICANCE)
TOLD_EVERY = 60.0  # seconds, where no bar can be shown
PROG = "python -m smore_ext.experiments"
HELP = f"""Run experiments, and write their report: Markdown, HTML, plots, CSV.

NAME is one of {", ".join(STUDIES)}; all is all of them, and {evidence.SIGNIFICANCE} the report of those that are
finished, without a run. What is finished in the output directory is kept: run the same command again to go on."""


@click.command(help=HELP)
@click.argument("names", nargs=-1, required=True, metavar="all|NAME...")
@click.option("-o", "--output-dir", type=Path, default=Path("runs") / "experiments", show_default=True)
@click.option("--quick", is_flag=True, help="tiny data, one seed, the ends of each grid: minutes, and no evidence")
@click.option("--data-path", type=Path, help="directory with the folder lfm2k; without it that part is left out")
@click.option("--seeds", help="seeds of every run, as 1,2,3")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="runs at a time, one thread each")
@click.option("--device", default="cpu", show_default=True, help="where models are trained: cpu, cuda, ...")
@click.option("--report", type=Path, help="directory for the report, in place of the output directory")
def command(
    names: tuple[str, ...],
    output_dir: Path,
    quick: bool,
    data_path: Path | None,
    seeds: str | None,
    jobs: int,
    device: str,
    report: Path | None,
) -> int:
    for name in names:
        if name not in (*STUDIES, *ALL):
            raise click.UsageError(
                f"unknown experiment {name}{did_you_mean(name, (*STUDIES, *ALL))}; there are {', '.join(STUDIES)}"
            )
    studies = STUDIES if set(ALL) & set(names) else {name: STUDIES[name] for name in names}
    scale = SCALES["quick" if quick else "full"]
    there = {name: loop for name, loop in scale.folders.items() if data_path and (data_path / name).is_dir()}
    if data_path and scale.folders and not there:
        raise click.UsageError(
            f"--data-path: expected a directory with the folder {', '.join(scale.folders)}, got {data_path}"
        )
    scale = dataclasses.replace(scale, folders=there)
    if seeds:
        try:
            chosen = tuple(int(seed) for seed in seeds.split(","))
        except ValueError:
            raise click.UsageError(f"--seeds: expected numbers as 1,2,3, got {seeds}") from None
        scale = dataclasses.replace(scale, seeds=tuple(dict.fromkeys(chosen)))
    if find_spec("matplotlib") is None:
        raise click.UsageError("the report needs matplotlib: pip install 'smore-ext[plot]'")
    usable_device(device)
    records, console = Records(output_dir), make_console()
    records.folder.mkdir(parents=True, exist_ok=True)
    todo = records.missing(cell for study in studies.values() for cell in study.cells(scale))
    if "all" not in names and evidence.SIGNIFICANCE in names:
        todo = []
    failed: dict[str, str] = {}
    begin = told = time.monotonic()
    columns = TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task, done = bar.add_task("runs", total=len(todo)), 0
        for cell, wrong in train_cells(todo, {cell.key: records.file(cell) for cell in todo}, jobs, data_path, device):
            bar.advance(task)
            done, now = done + 1, time.monotonic()
            if not console.is_terminal and now - told > TOLD_EVERY:
                told = now
                left_s = (now - begin) / done * (len(todo) - done)
                console.print(f"{done} of {len(todo)} runs, {duration(left_s)} left")
            if wrong:
                failed[cell.text] = wrong
                bar.console.print(f"{cell.text}: {wrong}", markup=False, soft_wrap=True)
    sections = evidence.conclude(studies, records, scale)
    flags = f"{' --quick' if quick else ''}{' --data-path data' if there else ''}{f' --seeds {seeds}' if seeds else ''}"
    finished = [cell for section in sections for cell in section.study.cells(scale)]
    files = evidence.write_report(
        sections,
        records,
        scale,
        report or output_dir,
        f"{PROG} {' '.join(names)}{flags} --report docs",
        training_seconds(records, finished, data_path),
    )
    for section in sections:
        console.print(f"{section.study.question} {section.brief}", markup=False, soft_wrap=True)
    console.print(f"written: {files[0]}, {files[1]}", markup=False, soft_wrap=True)
    if left := [name for name in studies if name not in {section.study.name for section in sections}]:
        console.print(f"left out, as runs are missing: {', '.join(left)}", markup=False, soft_wrap=True)
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
