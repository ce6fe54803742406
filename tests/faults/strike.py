"""Strikes commands at each call that changes a file, and looks at what is left: run with file_calls.so preloaded.

    LD_PRELOAD=file_calls.so python -m faults.strike WORK_FOLDER SCENARIO:KIND[:EVERY]...

KIND is kill, or the errno that the call and all later ones fail with; with EVERY 3 each third call is struck. A
process imports everything once and forks for each attempt. Prints a JSON object: how many calls each scenario has, and
a line for each that went wrong.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import tiny
import torch

from smore_ext import train

KILL, FAIL = 1, 2
FILES = {"config.yaml", "last.safetensors", "best.safetensors", "metrics.jsonl", "result.json"}
faults = ctypes.CDLL(None)
faults.faults_calls.restype = ctypes.c_char_p


def flags(data: Path, run: Path, *more: str) -> list[str]:
    small = ["--epochs", "2", "--embedding-dim", "4", "--batch-size", "64", "--lr", "0.05", "--threads", "1", "-q"]
    small += ["--checkpoint-seconds", "0"]  # the same calls in the same order each time
    return ["-m", "LightGCN", "-d", "tiny", "--data-path", str(data), "-o", str(run), *small, *more]


class Attempt:
    """A command in a child process, struck at call `n` under `folder`: `code` is its exit code, minus its signal."""

    def __init__(self, command: list[str], folder: Path, n: int = 0, fault: int = 0, number: int = 0) -> None:
        log, calls = folder.parent / "log", folder.parent / "calls"
        if (child := os.fork()) == 0:
            code = 99
            try:
                out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(out, 1)
                os.dup2(out, 2)
                faults.faults_arm(os.fsencode(folder), n, fault, number)
                code = train.main(command)
                calls.write_bytes(faults.faults_calls())
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        self.code, self.log = os.waitstatus_to_exitcode(status), log.read_text()
        self.calls = calls.read_text().splitlines() if self.code == 0 else []


def expect(true: bool, what: str) -> None:
    if not true:
        raise AssertionError(what)


class Scenario:
    """A command that is struck, what was in the folder before, and what is done afterwards."""

    def __init__(
        self, name: str, data: Path, work: Path, before: Path | None, *more: str, resumes: bool = False
    ) -> None:
        self.name, self.before, self.work = name, before, work / name
        self.work.mkdir()
        self.run = self.work / "run"
        self.start = ["--resume", str(self.run), "--epochs", "3"] if resumes else flags(data, self.run, *more)
        self.more, self.overwrites = more, "--overwrite" in more
        self.varies = "--checkpoint-seconds" in more  # a thread writes: calls come in another order each time
        self.names = {"config.yaml", "result.json", "seed-1", "seed-2"} if "--seeds" in more else FILES
        self.prepare()
        whole = Attempt(self.start, self.run)
        expect(whole.code == 0, whole.log)
        self.calls, self.wanted = whole.calls, self.left()

    def prepare(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        if self.before is not None:
            shutil.copytree(self.before, self.run)

    def left(self) -> list[object]:
        expect({path.name for path in self.run.iterdir()} == self.names, f"left: {sorted(os.listdir(self.run))}")
        seeds = sorted(self.run.glob("seed-*"))
        for seed in seeds:
            expect(
                {path.name for path in seed.iterdir()} == FILES - {"config.yaml"}, f"left: {sorted(os.listdir(seed))}"
            )
        return [tiny.comparable(folder) for folder in seeds or [self.run]]

    def strike(self, n: int, fault: int, number: int = 0) -> Attempt:
        """One attempt, going on, and the same bits in the end."""
        self.prepare()
        struck = Attempt(self.start, self.run, n, fault, number)
        if fault == KILL:
            done = self.varies and struck.code == 0  # before there were so many
            expect(done or struck.code == -signal.SIGKILL, f"exit code {struck.code}: {struck.log}")
        else:
            expect(struck.code in (0, 2), f"exit code {struck.code}: {struck.log}")
            lines = [line for line in struck.log.splitlines() if line.startswith("error: ")]
            expect(len(lines) == (struck.code == 2) and "Traceback" not in struck.log, struck.log)
        if self.overwrites:  # settings are the old ones, those of the new run, or gone: one says again what is wanted
            commands = [self.start]
        else:
            commands = [["--resume", str(self.run), *(["--epochs", "3"] if self.start[0] == "--resume" else [])]]
            commands += [self.start] if not (self.run / "config.yaml").exists() else []
        for command in commands:
            again = Attempt(command, self.run)
        expect(again.code == 0, f"going on: {again.log}")
        expect(self.left() == self.wanted, "going on gave other bits")
        return struck


def scenarios(work: Path) -> dict[str, Callable[[], Scenario]]:
    data = tiny.write_dataset(work / "data")
    with redirect_stdout(io.StringIO()):  # what it imports, no child needs to
        train.main(flags(data, work / "first"))

    def ready(*more: str) -> Path:
        path = work / "before" / "-".join(more)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            expect(Attempt(flags(data, path, *more), path).code == 0, "a run that nothing strikes")
        return path

    return {
        "run": lambda: Scenario("run", data, work, None, "--epochs", "1"),
        "epochs": lambda: Scenario("epochs", data, work, None),
        "writer": lambda: Scenario("writer", data, work, None, "--checkpoint-seconds", "0.001"),
        "resume": lambda: Scenario("resume", data, work, ready("--epochs", "1"), resumes=True),
        "overwrite": lambda: Scenario("overwrite", data, work, ready("--seed", "5"), "--overwrite", "--epochs", "1"),
        "seeds": lambda: Scenario("seeds", data, work, None, "--seeds", "1,2", "--epochs", "1"),
    }


def main(work: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    made, wrong = scenarios(work), []
    counts: dict[str, int] = {}
    for text in names:
        name, kind, every = [*text.split(":"), "1"][:3]
        scenario = made[name]()
        counts[text] = len(scenario.calls)
        fault, number = (KILL, 0) if kind == "kill" else (FAIL, getattr(errno, kind))
        for n, call in list(enumerate(scenario.calls, start=1))[:: int(every)]:
            try:
                scenario.strike(n, fault, number)
            except AssertionError as failed:
                wrong.append(f"{text}, call {n} ({call}): {failed}")
        shutil.rmtree(scenario.work)
    print(json.dumps({"calls": counts, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
