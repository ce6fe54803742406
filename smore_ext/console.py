"""What the commands show: progress bar, lines and tables. The loop and the run folder know nothing of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from smore_ext.evaluation.protocol import KS, MASKED
from smore_ext.experiments.estimate import Estimate
from smore_ext.settings.config import RunConfig
from smore_ext.training.events import EpochDone, Event, RunFinished, RunStarted, StepsDone, Warned

_TABLE_METRICS = ("recall", "ndcg", "precision", "map")
_PIPE_WIDTH = 80


def make_console() -> Console:
    """A console on stdout that shows texts as they are; a pipe has no width and gets one that fits the tables."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


class ConsoleReport:
    """Progress bar, one line per epoch, warnings and the table at the end. Use as a context manager."""

    def __init__(self, console: Console, every_epoch: bool = True) -> None:
        self.console = console
        self.every_epoch = every_epoch
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> ConsoleReport:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, event: Event) -> None:
        """Shows the event. A console that is gone (a closed pipe, a full disk) is left alone from then on."""
        if self.console.quiet:
            return
        try:
            self._show(event)
        except (OSError, SystemExit):  # rich turns a broken pipe into SystemExit
            self._leave()

    def say(self, text: str) -> None:
        """A line of its own, likewise."""
        if self.console.quiet:
            return
        try:
            self._print(text)
        except (OSError, SystemExit):
            self._leave()

    def _show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._start(event)
            case StepsDone():
                self._progress(event)
            case EpochDone():
                if self.every_epoch:
                    self._print(epoch_line(event.record))
            case Warned():
                self._print(f"warning: {event.message}", style="yellow")
            case RunFinished():
                self._close()
                self.console.print(result_table(event.result))

    def _start(self, event: RunStarted) -> None:
        model, seed = event.config["train"]["model"], event.config["train"]["seed"]
        self._print(event.dataset)
        self._print(f"{model}, seed {seed}, {event.n_parameters:,} parameters; protocol {event.protocol}")
        self._print(f"settings: {', '.join(('defaults', *event.sources))}; results in {event.run_dir}")
        if event.first_epoch:
            self._print(f"resumed: epochs up to {event.first_epoch - 1} are done")
        if self.console.is_terminal and event.n_steps:
            columns = (
                TextColumn("epoch {task.fields[epoch]}", markup=False),
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                TextColumn("{task.fields[info]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._task = self._bar.add_task("", total=event.n_steps, epoch=event.first_epoch, info="")
            self._bar.start()

    def _progress(self, event: StepsDone) -> None:
        if self._bar is None:
            return
        self._bar.update(self._task, completed=event.step, epoch=event.epoch, info=bar_text(event))

    def _print(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True, markup=False, emoji=False)

    def _leave(self) -> None:
        self.console.quiet = True
        if self.console.file is sys.__stdout__:  # what its buffer still holds would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())

    def _close(self) -> None:
        if self._bar is not None:
            bar, self._bar = self._bar, None
            try:
                bar.stop()
            except (OSError, SystemExit):
                self._leave()


def bar_text(event: StepsDone) -> str:
    """Newest loss, its parts and thousands of interactions a second: what fits beside the bar in 80 columns."""
    losses = " ".join(f"{name} {value:.3g}" for name, value in event.loss.items())
    return f"{losses} {event.interactions_per_second / 1000:,.0f}k/s"


def loss_text(loss: dict[str, float]) -> str:
    parts = " ".join(f"{name} {value:.4f}" for name, value in loss.items() if name != "loss")
    return f"loss {loss['loss']:.4f}" + (f" ({parts})" if parts else "")


def epoch_line(record: dict[str, Any]) -> str:
    """`epoch 3  loss 0.61 (bpr ...)  recall@10 ... recall@20 ...  2.1 s  best`"""
    metrics = record["validation"]
    shown = [f"{name} {metrics[name]:.4f}" for name in _shown_each_epoch(metrics)]
    parts = [f"epoch {record['epoch']:>3}"]
    if record["loss"]:
        parts.append(loss_text(record["loss"]))
    parts += ["validation " + " ".join(shown), f"{sum(record['seconds'].values()):.1f} s"]
    return "  ".join(parts + ["best"] * record["improved"])


def _shown_each_epoch(metrics: dict[str, float]) -> list[str]:
    usual = [name for name in ("recall@10", "recall@20", "ndcg@20") if name in metrics]
    return usual or list(metrics)[:3]


def spent(seconds: dict[str, float]) -> str:
    """What a run took its time for; earlier versions say less."""
    words = {"starting": "start", "training": "training", "evaluating": "evaluation", "writing": "writing"}
    return ", ".join(f"{word} {duration(seconds[name])}" for name, word in words.items() if name in seconds)


def result_table(result: dict[str, Any]) -> Group:
    """Validation and test metrics of one run, its epochs, times and warnings."""
    caption = [
        f"epoch {result['best_epoch']} is the best of {result['epochs_run']} by {result['selected_by']}",
        *([f"stopped by: {result['stopped']}"] if result["stopped"] else []),
        spent(result["seconds"]),
    ]
    if result["backend"]:
        caption.append(f"backend {result['backend']}")
    title = f"{result['model']} on {result['dataset']}, seed {result['seed']}"
    columns = {"validation": result["validation"], "test": result["test"]}
    cells = {split: _numbers(metrics) for split, metrics in columns.items()}
    return _table(title, result["protocol"]["name"], cells, caption, result["warnings"])


def seeds_table(summary: dict[str, Any]) -> Group:
    """Mean and standard deviation over seeds."""
    seeds = summary["seeds"]
    epochs = ", ".join(str(run["best_epoch"]) for run in summary["runs"])
    title = f"{summary['model']} on {summary['dataset']}, seeds {', '.join(map(str, seeds))}"
    caption = [
        f"mean and standard deviation of {len(seeds)} seeds",
        f"best epochs {epochs} by {summary['selected_by']}",
        spent(summary["seconds"]),
    ]
    cells = {split: _means(summary[split]) for split in ("validation", "test")}
    return _table(title, summary["protocol"]["name"], cells, caption, summary["warnings"])


def recommendation_table(who: str, items: Iterable[tuple[int | str, float, str]], masked: str) -> Table:
    """Ranked items for somebody: item id, score, and what the data says about the pair."""
    table = Table(title=Text(f"{who} ({masked})"), box=SIMPLE_HEAD, title_justify="left")
    for name in ("rank", "item", "score"):
        table.add_column(name, justify="right")
    table.add_column("held out in")
    for rank, (item, score, split) in enumerate(items, start=1):
        table.add_row(str(rank), Text(str(item)), f"{score:.4f}", split)
    return table


def near_table(title: str, value: str, items: Iterable[tuple[int | str, float]], what: str = "item") -> Group:
    """Items, or parts, each with a value."""
    table = Table(box=SIMPLE_HEAD)
    for name in (what, value):
        table.add_column(name, justify="right")
    for item, number in items:
        table.add_row(Text(str(item)), f"{number:.4f}")
    return Group(Text(title), table)  # a title of the table would be folded to its width


def estimate_table(found: Estimate, config: RunConfig) -> Group:
    """What a run would take."""
    table = Table(box=SIMPLE_HEAD)
    for name in ("", "about"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("memory at the peak", f"{found.memory / 1e6:,.0f} MB")
    table.add_row("a training step", f"{1e3 * found.step:.2f} ms")
    table.add_row(f"an epoch of {found.steps:,} steps, with evaluation", duration(found.epoch))
    table.add_row(f"all {config.train.epochs:,} epochs, if none is saved", duration(found.epoch * config.train.epochs))
    table.add_row("a checkpoint", f"{found.checkpoint / 1e6:,.1f} MB")
    return Group(Text(f"what {config.train.model} on {config.train.dataset} would take"), table)


def duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def _numbers(metrics: dict[str, float]) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in metrics.items()}


def _means(metrics: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {
        name: f"{value['mean']:.4f}" + (f" ±{value['std']:.4f}" if value["std"] is not None else "")
        for name, value in metrics.items()
    }


def _table(
    title: str,
    protocol: str,
    cells: dict[str, dict[str, str]],
    caption: Sequence[str],
    warnings: Sequence[str],
) -> Group:
    reported = [name.rpartition("@") for values in cells.values() for name in values]
    metrics = list(dict.fromkeys([*_TABLE_METRICS, *(metric for metric, _, _ in reported)]))
    if reported:
        metrics = [metric for metric in metrics if metric in {name for name, _, _ in reported}]
    ks = sorted({*KS, *(int(k) for _, _, k in reported)})
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # 80 columns with deviations
    for column in ("split", "K", *metrics):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, values in cells.items():
        for k in ks:
            row = [values.get(f"{metric}@{k}", "-") for metric in metrics]
            table.add_row(split if k == ks[0] else "", str(k), *row, end_section=k == ks[-1])
    head = Text(f"{title}; protocol {protocol} ({MASKED[protocol]})", style="bold")
    notes = [Text("; ".join(caption)), *(Text(f"warning: {warning}", style="yellow") for warning in warnings)]
    return Group(head, table, *notes)
