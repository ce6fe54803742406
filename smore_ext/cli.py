"""What the commands share: flags made from the settings, one line for an error, and exit codes.

0 done; 1 the run failed (diverged); 2 a wrong argument, setting or file; 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import click
from safetensors import SafetensorError

from smore_ext.models.contract import Recommender
from smore_ext.models.registry import MODELS
from smore_ext.settings.coerce import metavar
from smore_ext.settings.config import Setting, TrainConfig, flag_name, nearest_name, settings_of

INTERRUPTED = 130
_OPTIONS = "smore_ext.setting_options"  # where click's context keeps the flags that the models of a call have


class SettingOption(click.Option):
    """A flag of a setting. Its text is parsed when the model is known, since models declare the types."""

    def __init__(self, setting: Setting, owner: str) -> None:
        self.owner = owner
        names = [flag_name(setting.name), *([setting.short] if setting.short else [])]
        default = "" if setting.default in (None, (), {}) else f"default {setting.default}"
        text = "; ".join(part for part in (setting.help, default) if part)
        if setting.hint is bool:
            names[0] += f"/--no-{flag_name(setting.name)[2:]}"
            super().__init__(names, default=None, help=text)
        else:
            super().__init__(names, default=None, help=text, type=str, metavar=metavar(setting.hint))


class SettingsCommand(click.Command):
    """A command whose flags are its own and all settings; help lists them by the loop and by model."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        models = MODELS.loadable() | {name: MODELS[name] for name in _models_named(args)}
        ctx.meta[_OPTIONS] = list(_setting_options(models))
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(_OPTIONS, [])]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "owner", "Options"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def _models_named(args: Sequence[str]) -> Iterator[str]:
    """Models that are named as `package.module:Class`: no registry lists them."""
    flags = (flag_name("model"), settings_of(TrainConfig)["model"].short)
    for arg, following in pairwise([*args, ""]):
        flag, joined, value = arg.partition("=")
        name = value if joined else following
        if flag in flags and ":" in name:
            yield name


def _setting_options(models: Mapping[str, type[Recommender]]) -> Iterator[SettingOption]:
    """One flag a name: two models may share one, with the first's type in the help."""
    done: set[str] = set()
    groups = {"Training": TrainConfig} | {f"Model {name}": cls.config_class for name, cls in models.items()}
    for owner, cls in groups.items():
        for name, setting in settings_of(cls).items():
            if name not in done:
                done.add(name)
                yield SettingOption(setting, owner)


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the user gave."""
    return {name: value for name, value in settings.items() if value is not None}


def run_command(command: click.Command, argv: Sequence[str] | None, prog: str) -> int:
    """Runs a command and returns its exit code. An error is one line on stderr.

    With SMORE_TRACEBACK=1 in the environment errors keep their traceback.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    plain = os.environ.get("SMORE_TRACEBACK", "0") in ("", "0")
    try:
        with terminated_as_interrupt():
            code = command.main(args, prog_name=prog, standalone_mode=False)
    except click.NoSuchOption as error:
        params = error.ctx.command.get_params(error.ctx) if error.ctx else []
        names = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        flags = [name.removeprefix("--") for name in names if name.startswith("--")]
        near = nearest_name(error.option_name.lstrip("-"), flags)
        hint = f"; did you mean --{near}?" if near else ""
        return _fail(f"unknown flag {error.option_name}{hint}", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except FloatingPointError as error:
        if not plain:
            raise
        return _fail(str(error), 1)
    except (ValueError, TypeError, OSError, ImportError, SafetensorError, NotImplementedError) as error:
        if not plain:
            raise
        return _fail(str(error) or type(error).__name__, 2)
    except (MemoryError, RuntimeError) as error:
        if not plain or not _is_memory(error):
            raise
        return _fail(f"out of memory: {error}" if str(error) else "out of memory", 2)
    return code if isinstance(code, int) else 0


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt` as Ctrl-C does, so a stopped job says where its checkpoint is."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before: Callable | int | None = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: signals are not ours
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_memory(error: Exception) -> bool:
    """True for the errors of a failed allocation; torch has no type of its own for those on the CPU."""
    words = (
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "out of memory",
        "bad_alloc",
        "size calculation overflow",
    )
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _fail(message: str, code: int) -> int:
    told = message.partition("Exception raised from")[0] or message  # torch appends its C++ stack
    print(f"error: {' '.join(told.split())}", file=sys.stderr)
    return code
