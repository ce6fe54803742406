"""`python -m smore_ext.export RUN_DIR -o PATH`: embeddings of a run's best checkpoint, or its ranked lists."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from smore_ext import runs, serving
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.recommend import one_run
from smore_ext.serving.forms import FORMS, write_form

PROG = "python -m smore_ext.export"


@click.command(help="Write the embeddings of a run's best checkpoint, or its ranked lists, for use elsewhere.")
@click.argument("run_dir", type=Path)
@click.option(
    "-o",
    "--output",
    type=Path,
    required=True,
    metavar="PATH",
    help="a .safetensors file, a folder of .npy, a .faiss index of items, or a .pt2 program of scores",
)
@click.option(
    "--served", is_flag=True, help="one .safetensors file that recommend, similar and explain take without the data"
)
@click.option(
    "--placing/--no-placing", default=True, help="with --served: also what places new items; default yes, if it can"
)
@click.option("--lists", is_flag=True, help="ranked lists also where there are embeddings")
@click.option("--k", type=click.IntRange(1), default=100, show_default=True, help="places a ranked list")
@click.option(
    "--mask",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="items left out of a user's list: all the user's interactions, or those of train only",
)
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
def command(
    run_dir: Path, output: Path, served: bool, placing: bool, lists: bool, k: int, mask: str, data_path: Path | None
) -> int:
    if served and (lists or output.suffix != ".safetensors"):
        raise click.UsageError("--served: expected -o FILE.safetensors, and no --lists")
    if output.suffix in FORMS and lists:
        raise click.UsageError(f"--lists: expected a .safetensors file or a folder, got {output}")
    one = one_run(run_dir)
    if output.suffix in FORMS:
        tensors = write_form(serving.load(one, data_path), output)
    elif served:
        tensors = serving.write(serving.load(one, data_path), output, placing)
    else:
        tensors = runs.export(runs.load_run(one, data_path), output, lists, k, mask)
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    make_console().print(f"{shapes} in {output}", soft_wrap=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
