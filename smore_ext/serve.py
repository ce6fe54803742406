"""`python -m smore_ext.serve RUN`: a trained model behind HTTP, with a page to look at its answers."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from smore_ext import runs, serving
from smore_ext.cli import run_command
from smore_ext.console import make_console
from smore_ext.recommend import one_run
from smore_ext.serving.catalogue import Catalogue, open_catalogue

PROG = "python -m smore_ext.serve"
TOKEN = "SMORE_SERVE_TOKEN"
HELP = f"""Answer over HTTP by raw ids what a trained model recommends, what is similar and why; / is a page for people.

RUN is a run's folder, or a file that `smore export RUN --served` wrote, which needs no data. A newer checkpoint is
taken over without a stop. With a token, from --token-file or the variable {TOKEN}, requests must carry it."""
_LOCAL = ("localhost", "127.0.0.1", "::1")


@click.command(help=HELP)
@click.argument("run_dir", type=Path, metavar="RUN")
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen at; this machine's own only")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free")
@click.option("--token-file", type=Path, metavar="FILE", help="what requests must carry, as Authorization: Bearer")
@click.option("--items", type=Path, metavar="FILE", help="texts: JSON lines of item and text; default the data's")
@click.option("--images", type=Path, metavar="DIR", help="images named by item, B07K.jpg; default the data's")
@click.option("--device", default="cpu", show_default=True, help="where lists are computed")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="threads of one computation")
@click.option(
    "--reload", type=click.FloatRange(0), default=5.0, show_default=True, help="seconds between looks; 0: never"
)
@click.option("--data-path", type=Path, metavar="PATH", help="where the data is now, if it moved")
def command(
    run_dir: Path,
    host: str,
    port: int,
    token_file: Path | None,
    items: Path | None,
    images: Path | None,
    device: str,
    threads: int,
    reload: float,
    data_path: Path | None,
) -> int:
    try:
        import uvicorn

        from smore_ext.serving.web import Live, create_app
    except ModuleNotFoundError as error:
        raise ImportError(f"serving needs {error.name}: pip install 'smore-ext[serve]'") from None
    import torch

    console = make_console()
    token = _token(token_file)
    path = run_dir if run_dir.suffix == serving.SUFFIX else one_run(run_dir)
    with _listening(host, port) as listener:
        torch.set_num_threads(threads)
        live = Live(partial(load, path, data_path, device, items, images), watched_file(path))
        hosts = [*_LOCAL, "[::1]"] if host in _LOCAL else None
        config = uvicorn.Config(create_app(live, token, hosts), log_level="warning", access_log=False)
        where, number = listener.getsockname()[:2]
        address = f"[{where}]" if ":" in where else where
        console.print(f"{live.now.model.about['model']} answers at http://{address}:{number}/", soft_wrap=True)
        if hosts is None and token is None:
            console.print("anybody who reaches this machine is answered: there is no token", style="yellow")
        if reload:
            live.watch(reload)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has answered what it had taken, and then passes the signal on
            pass
        finally:
            live.close()
    console.print("stopped")
    return 0


def load(
    path: Path, data_path: Path | None, device: str, items: Path | None, images: Path | None
) -> tuple[serving.Served, Catalogue]:
    """The model at a path, and what is shown of its items: beside its data, or where the flags say."""
    if path.suffix == serving.SUFFIX:
        return serving.load(path, device=device), open_catalogue(None, items, images)
    run = runs.load_run(path, data_path, device=device)
    cfg = run.config.train
    folder = None
    if cfg.data_path is not None:
        inside = cfg.data_path / cfg.dataset
        folder = inside if inside.is_dir() else cfg.data_path
    return serving.load(run, device=device), open_catalogue(folder, items, images)


def watched_file(path: Path) -> Path:
    """The file whose change means a new model."""
    return path if path.suffix == serving.SUFFIX else runs.RunFolder(path).best


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, so that a port in use is told before anything is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise OSError(f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', None) or error}") from None


def _token(file: Path | None) -> str | None:
    """What requests must carry. `ValueError` for an empty or unusable one."""
    token = os.environ.get(TOKEN) if file is None else file.read_text(encoding="utf-8").strip()
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() and " " not in token):
        raise ValueError(f"{file or TOKEN}: expected a token of printable ASCII without spaces, got none")
    return token


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(command, argv, PROG)


if __name__ == "__main__":
    sys.exit(main())
