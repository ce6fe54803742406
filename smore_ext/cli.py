"""What the commands share: one line for an error, and exit codes.

0 done; 1 the run failed (diverged); 2 a wrong argument, setting or file; 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click
from safetensors import SafetensorError

from smore_ext.registry import nearest_name
from smore_ext.signals import terminated_as_interrupt

INTERRUPTED = 130


def run_command(command: click.Command, argv: Sequence[str] | None, prog: str) -> int:
    """Runs a command and returns its exit code. An error is one line on stderr.

    With SMORE_TRACEBACK=1 in the environment errors keep their traceback.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    show_anything(sys.stdout)
    plain = os.environ.get("SMORE_TRACEBACK", "0") in ("", "0")
    try:
        with terminated_as_interrupt():
            code = command.main(args, prog_name=prog, standalone_mode=False)
    except click.NoSuchOption as error:
        params = error.ctx.command.get_params(error.ctx) if error.ctx else []
        names = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        flags = [name.removeprefix("--") for name in names if name.startswith("--")]
        near = nearest_name(error.option_name.lstrip("-"), flags, error.ctx and error.ctx.meta.get("aliases"))
        hint = f"; did you mean --{near}?" if near else ""
        return _fail(f"unknown flag {error.option_name[:80]}{hint}", 2)
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


def show_anything(stream: TextIO) -> None:
    """What the stream's encoding lacks, as `±` in ASCII or a file name's stray bytes, is spelled from now on."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors=_SPELL)


_SPELL, _SPELLINGS = "smore_ext_spell", {"±": "+-", "…": "..."}


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost), error.end


codecs.register_error(_SPELL, _spell)


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
