"""`python -m smore_ext.audit RUN_DIR`: does content matter to a run, are its gates alive, is its data clean?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from smore_ext import runs
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.experiments.audit import CLOSED, OPEN, Audit, audit

PROG = "python -m smore_ext.audit"
HELP = """Ask a run, or the first of its seeds, what its numbers rest on, and say what stands out.

Content is removed and exchanged at inference, gates, attention and feature tables are looked at, lists by popularity of
items, and what the data repeats. Nothing is trained and nothing in the run is changed."""


@click.command(help=HELP)
@click.argument("run_dir", type=Path)
@click.option("--k", type=click.IntRange(1), default=20, show_default=True, help="length of the lists")
@click.option("--split", type=click.Choice(["valid", "test"]), default="test", show_default=True, help="whose users")
@click.option("--seed", type=click.IntRange(0), default=0, help="of exchanged content and of the bootstrap")
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
@click.option("--device", help="default: the run's own")
@click.option("--threads", type=click.IntRange(1), help="CPU threads")
@click.option("--json", "json_file", type=Path, metavar="FILE", help="also write the figures to this file")
def command(
    run_dir: Path,
    k: int,
    split: Any,
    seed: int,
    data_path: Path | None,
    device: str | None,
    threads: int | None,
    json_file: Path | None,
) -> int:
    if json_file is not None:
        runs.check_output(json_file)
    console = make_console()
    with runs.cpu_threads(threads):
        run = runs.load_run(runs.run_dirs(run_dir)[0], data_path, None, device)
        found = audit(run, k, split, seed)
    if json_file is not None:
        runs.write_json(json_file, asdict(found))  # first: the console may be gone
    console.print(
        f"{found.model} on {found.dataset}, {found.split} split, {found.users:,} users; protocol {found.protocol}; "
        f"recall@{k} {found.quality[f'recall@{k}']:.4f}, ndcg@{k} {found.quality[f'ndcg@{k}']:.4f}",
        soft_wrap=True,
    )
    for title, rows in tables(found):
        console.print(table(title, rows))
    for line in found.findings:
        console.print(f"- {line}", soft_wrap=True)
    return 0


def tables(found: Audit) -> list[tuple[str, list[dict[str, Any]]]]:
    """Title and rows of each table that has any."""
    content = [
        {"content of": "+".join(row["of"]), **{k: v for k, v in row.items() if k != "of"}} for row in found.content
    ]
    facts = [{"about": name.replace("_", " "), "value": v} for name, v in {**found.popularity, **found.data}.items()]
    attention = [{"about": name.replace("_", " "), "value": value} for name, value in found.attention.items()]
    all_tables = [
        (f"content at inference: recall@{found.k}, share of the lists that stays", content),
        (f"gates: mean, share of values below {CLOSED} and above {OPEN}", found.gates),
        ("attention", attention),
        ("trained feature tables against the raw features", found.tables),
        ("items by share of train interactions", found.items),
        ("lists and data", facts),
    ]
    return [(title, rows) for title, rows in all_tables if rows]


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Rows with the same names as a table."""
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name, value in rows[0].items():
        shown.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        shown.add_row(*map(_text, row.values()))
    return shown


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
