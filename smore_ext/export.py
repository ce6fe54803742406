"""`python -m smore_ext.export RUN_DIR -o PATH`: embeddings of a run's best checkpoint, or its ranked lists."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import torch
from torch import Tensor

from smore_ext import runs, serving
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.data.arrays import read_features
from smore_ext.data.dataset import DatasetError
from smore_ext.recommend import ids_of, one_run
from smore_ext.runs.exports import NPY, PARQUET, check_place, write_tensors
from smore_ext.serving import SUFFIX, Factors, QuestionError, Served, forms
from smore_ext.serving.lists import lists_of_run, write_lists

PROG = "python -m smore_ext.export"
LISTS = f".{PARQUET}"
ENDINGS = (SUFFIX, LISTS, *forms.FORMS)
HELP = """Write the embeddings of a run's best checkpoint, or its ranked lists, for use elsewhere.

RUN is a run's folder, or a file that --served wrote, which needs no data. The ending of PATH says the form:
.safetensors one file of tensors; .parquet ranked lists; .faiss an index of the items; .pt2 a program of scores; none a
folder of .npy or, with --format parquet, of tables of embeddings."""


@click.command(help=HELP)
@click.argument("run_dir", type=Path, metavar="RUN")
@click.option("-o", "--output", type=Path, required=True, metavar="PATH", help="a file, or a folder")
@click.option(
    "--served", is_flag=True, help="one .safetensors file that recommend, similar and explain take without the data"
)
@click.option(
    "--placing/--no-placing", default=True, help="with --served: also what places new items; default yes, if it can"
)
@click.option(
    "--new",
    multiple=True,
    metavar="MODALITY=FILE",
    help="with --served: features of items that the model does not know, .npy, a row each; once a modality",
)
@click.option("--new-ids", type=Path, metavar="FILE", help="their raw ids, one a line, where the data has raw ids")
@click.option("--lists", is_flag=True, help="ranked lists also where there are embeddings")
@click.option("--k", type=click.IntRange(1), default=100, show_default=True, help="places a ranked list")
@click.option(
    "--mask",
    type=click.Choice(["all", "train"]),
    default="all",
    show_default=True,
    help="items left out of a user's list: all the user's interactions, or those of train only",
)
@click.option(
    "--format", "form", type=click.Choice([NPY, PARQUET]), default=NPY, show_default=True, help="files in a folder"
)
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
def command(
    run_dir: Path,
    output: Path,
    served: bool,
    placing: bool,
    new: tuple[str, ...],
    new_ids: Path | None,
    lists: bool,
    k: int,
    mask: str,
    form: str,
    data_path: Path | None,
) -> int:
    file = run_dir.suffix == SUFFIX
    _check(output, served, lists, form)
    if (new or new_ids) and not served:
        raise click.UsageError("--new, --new-ids: expected --served")
    files = _named_files(new)
    if file and mask == "train":
        raise click.UsageError("--mask train: expected a run, got a file that --served wrote")
    tensors: Mapping[str, Tensor]
    if served or output.suffix in forms.FORMS:
        model = serving.load(run_dir if file else one_run(run_dir), data_path)
        if new or new_ids:
            features = {name: _rows(place) for name, place in files.items()}
            model = model.with_items(features, None if new_ids is None else ids_of(new_ids))
        tensors = _write_served(model, output, placing) if served else forms.write_form(model, output)
    else:
        source = serving.load(run_dir) if file else runs.load_run(one_run(run_dir), data_path)
        has_embeddings = isinstance(source, Factors) if isinstance(source, Served) else source.model.factored
        if output.suffix == LISTS:
            if has_embeddings and not lists:
                raise click.UsageError(
                    f"{output}: expected --lists with it; of embeddings -o DIR --format {PARQUET} writes a table each"
                )
            found = source.all_lists(k) if isinstance(source, Served) else lists_of_run(source, k, mask)
            make_console().print(f"lists of {write_lists(found, output):,} users in {output}", soft_wrap=True)
            return 0
        if isinstance(source, Served):
            tensors = forms.ranking_tensors(source, lists, k)
            write_tensors(tensors, output, source, source.about, form)
        else:
            tensors = runs.export(source, output, lists, k, mask, form)
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
    make_console().print(f"{shapes} in {output}", soft_wrap=True)
    return 0


def _check(output: Path, served: bool, lists: bool, form: str) -> None:
    """Raises before anything is loaded."""
    if served and (lists or output.suffix != SUFFIX):
        raise click.UsageError("--served: expected -o FILE.safetensors, and no --lists")
    if output.suffix in forms.FORMS and lists:
        raise click.UsageError(f"--lists: expected a {SUFFIX} or {LISTS} file, or a folder, got {output}")
    if form != NPY and (lists or output.suffix in ENDINGS):
        raise click.UsageError(
            f"--format {form}: expected a folder, and no --lists: -o FILE{LISTS} is a table of these"
        )
    check_place(output, ENDINGS)
    runs.check_output(output)
    if output.suffix not in ENDINGS:
        runs.check_output_folder(output)


def _named_files(new: Sequence[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for text in new:
        name, equals, place = text.partition("=")
        if not (name and equals and place) or name in files:
            raise click.UsageError(f"--new: expected MODALITY=FILE, each modality once, got {text!r}")
        files[name] = Path(place)
    return files


def _rows(place: Path) -> Tensor:
    table = read_features(place)
    if table.ndim != 2 or table.dtype.kind not in "fiu":
        raise ValueError(f"{place}: expected numbers of shape [items, columns], got {table.dtype} of {table.shape}")
    return torch.from_numpy(table)


def _write_served(model: Served, output: Path, placing: bool) -> dict[str, Tensor]:
    try:
        return serving.write(model, output, placing)
    except (DatasetError, QuestionError) as error:  # of features that the model itself does not read
        raise ValueError(f"{error}; --no-placing writes the file without what places new items") from None


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
