"""`smore COMMAND`: all commands under one name. Each is also `python -m smore_ext.COMMAND`, and loaded when called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from smore_ext.cli import run_command
from smore_ext.registry import did_you_mean
from smore_ext.version import __version__

# A command is a module of this package, or a package's `__main__`, with a `command`; to add one, add its line.
COMMANDS = {
    "prepare": "a dump of interactions becomes the folder that training reads",
    "check": "is a folder of data sound, and what is odd about it",
    "train": "train a model",
    "compare": "models side by side on one data set, in one table",
    "evaluate": "metrics of a run's best checkpoint, under either protocol",
    "search": "settings searched for, chosen on validation",
    "experiments": "what the parts of the model do, measured: the report of docs/evidence.md",
    "audit": "does content matter to a run, are its gates alive, is its data clean",
    "recommend": "the items that a run ranks first for a user",
    "similar": "the items that are most like one, by behaviour, a modality or all",
    "explain": "why a model ranks an item where it does for a user",
    "export": "embeddings of a run, or its ranked lists, for use elsewhere",
    "serve": "a model behind HTTP: answers in JSON, and a page to look at them",
    "doctor": "what is installed, how it was built, and whether every op is right",
}


class Commands(click.Group):
    """Looks commands up by name, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        if cmd_name not in COMMANDS:
            raise click.UsageError(f"unknown command {cmd_name}{did_you_mean(cmd_name, COMMANDS)}", ctx)
        module = import_module(f"smore_ext.{cmd_name}")
        if hasattr(module, "__path__"):  # a package
            module = import_module(f"smore_ext.{cmd_name}.__main__")
        return module.command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Commands, invoke_without_command=True, help="Kernels and models for multimodal recommendation.")
@click.version_option(__version__, message="%(version)s")
@click.pass_context
def command(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, "smore")


if __name__ == "__main__":
    sys.exit(main())
