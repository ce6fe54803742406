"""Requests a second and their times on loopback: our server, and a plain PyTorch one on the same web stack.

`python -m benchmarks.serve_load -o FILE.json`. Random factors, 64 wide, of the counts of Amazon Baby and of Elec. Both
servers run all the time with one thread each; `CONNECTIONS` clients in one process ask one after the other without
pause, the servers in turns. The floor is our server's `/health`: HTTP and JSON, without a model. Bounded: `REQUESTS` a
turn, `SECONDS` at most.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from smore_ext import serving
from smore_ext.environment import versions
from smore_ext.graph import Graph

SIZES = {"baby": (19_445, 7_050, 160_792), "elec": (192_403, 63_001, 1_689_188)}
CONNECTIONS, REQUESTS, SECONDS, TURNS = 8, 2000, 20.0, 5


def factors(n_users: int, n_items: int, n_interactions: int) -> serving.Factors:
    generator = torch.Generator().manual_seed(0)
    users = torch.randint(n_users, (n_interactions,), generator=generator)
    items = torch.randint(n_items, (n_interactions,), generator=generator)
    parts = {"embedding": torch.randn(n_items, 64, generator=generator)}
    return serving.Factors(
        Graph.from_edges(users, items, None, (n_users, n_items)),
        torch.arange(n_items),
        torch.ones(n_users, dtype=torch.bool),
        tuple(f"u{n}" for n in range(n_users)),
        tuple(f"i{n}" for n in range(n_items)),
        {"model": "random", "dataset": "random", "fingerprint": ""},
        users=torch.randn(n_users, 64, generator=generator),
        items=parts["embedding"],
        parts=parts,
    )


@contextlib.contextmanager
def server(module: str, *arguments: str, port: int) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{path}: {head[:100]!r}")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


async def load(port: int, paths: list[str]) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each."""
    rest, times = iter(paths), []
    end = time.perf_counter() + SECONDS

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in rest:
            begin = time.perf_counter()
            if begin > end:
                break
            await ask(reader, writer, path)
            times.append(time.perf_counter() - begin)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return len(times) / (time.perf_counter() - begin), times


def same_lists(ours: int, plain: int, paths: list[str]) -> None:
    """Both answer the same; `AssertionError` otherwise."""

    async def answers(port: int) -> list[list[str]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        bodies = [json.loads(await ask(reader, writer, path)) for path in paths]
        writer.close()
        return [[entry["item"] for entry in body["items"]] for body in bodies]

    assert asyncio.run(answers(ours)) == asyncio.run(answers(plain)), "the servers' lists differ"


def measure(size: str, requests: int = REQUESTS, turns: int = TURNS) -> dict[str, dict[str, float]]:
    """By contender: median requests a second with its least and most, median and 99th percentile of milliseconds."""
    model = factors(*SIZES[size])
    chosen = torch.randint(len(model.users), (requests,), generator=torch.Generator().manual_seed(1)).tolist()
    paths = {"ours": [f"/recommend?user=u{user}&k=10" for user in chosen]}
    paths |= {"plain": paths["ours"], "floor": ["/health"] * requests}
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        file = Path(place) / "m.safetensors"
        serving.write(model, file)
        first, second = free_port(), free_port()
        ours = stack.enter_context(server("smore_ext.serve", str(file), "--port", str(first), port=first))
        plain = stack.enter_context(server("benchmarks.plain_server", str(file), str(second), port=second))
        ports = {"ours": ours, "plain": plain, "floor": ours}
        same_lists(ours, plain, paths["ours"][:50])
        rates: dict[str, list[float]] = {name: [] for name in ports}
        times: dict[str, list[float]] = {name: [] for name in ports}
        for turn in range(turns + 1):  # the first is not counted
            for name, port in ports.items():
                rate, seconds = asyncio.run(load(port, paths[name]))
                if turn:
                    rates[name].append(rate)
                    times[name] += seconds
    out = {}
    for name in rates:
        ranked = sorted(times[name])
        out[name] = {
            "requests_a_second": statistics.median(rates[name]),
            "least": min(rates[name]),
            "most": max(rates[name]),
            "p50_ms": 1e3 * ranked[len(ranked) // 2],
            "p99_ms": 1e3 * ranked[len(ranked) * 99 // 100],
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the figures to this file")
    output = parser.parse_args().output
    found = {size: measure(size) for size in SIZES}
    print(f"{'':16}{'requests/s':>12}{'least':>8}{'most':>8}{'p50 ms':>9}{'p99 ms':>9}")
    for size, contenders in found.items():
        for name, row in contenders.items():
            print(
                f"{size + ' ' + name:16}{row['requests_a_second']:12.0f}{row['least']:8.0f}{row['most']:8.0f}"
                f"{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}"
            )
    if output is not None:
        setting = {"connections": CONNECTIONS, "requests": REQUESTS, "turns": TURNS}
        output.write_text(json.dumps({"versions": versions(), "setting": setting, "sizes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
