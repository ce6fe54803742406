"""A training step: forward, backward, optimizer. On a GPU it is captured once as a CUDA graph and then replayed.

A step of these models is some hundred kernels of a few microseconds each; launched one by one from Python they leave a
GPU idle most of the time. A captured step is one launch, reads its batch from a fixed place in memory, and never makes
the host wait.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from smore_ext.models import Batch, Recommender

WARM_UP = 3  # steps before the first capture: they make Adam's moments, cuBLAS's workspace and cuFFT's plans
WARM_UP_AGAIN = 1  # before a later one: it makes what graphs make when they are first used, such as their transposes

Losses = dict[str, Tensor]


class Step:
    """One step after the other, each launched kernel by kernel.

    Args:
        model: in training mode when a step is taken.
        optimizer: over its parameters.
        amp: autocast to bfloat16: torch's layers compute in it, graph products hold their rows in it. Sums, the other
            ops of this package and the optimizer stay in float32.
    """

    def __init__(self, model: Recommender, optimizer: torch.optim.Optimizer, amp: bool = False) -> None:
        self.model, self.optimizer, self.amp = model, optimizer, amp
        self._checked = not model.capturable

    def __call__(self, batch: Batch) -> Losses:
        """Takes a step on `batch`. Returns "loss" and its parts, detached.

        Raises `RuntimeError` when the first step of a model that can be captured moves a tensor: it would write in
        vain once it is captured. Found on a CPU too, where nothing is captured.
        """
        if self._checked:
            return self._take(batch)
        before = self.model.addresses()
        losses = self._take(batch)
        check_in_place(self.model, before, "a step (loss, after_step)")
        self._checked = True
        return losses

    def _take(self, batch: Batch) -> Losses:
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss = self.model.loss(batch)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.model.after_step()
        return {"loss": loss.detach(), **self.model.loss_parts}

    def forget(self) -> None:
        """What the model's loss reads has moved: nothing that was recorded before is good."""

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.amp:
            return nullcontext()
        # Without its cache of cast weights, which would outlive a captured step's memory.
        return torch.autocast(next(self.model.parameters()).device.type, torch.bfloat16, cache_enabled=False)


class Captured(NamedTuple):
    """A recorded step: the place it reads its batch from, and where it leaves the losses of these names."""

    graph: torch.cuda.CUDAGraph
    place: Batch
    names: list[str]
    losses: Tensor


class CapturedStep(Step):
    """The same steps, replayed from a CUDA graph: one graph a batch size, as an epoch's last batch may be smaller.

    The model must be `capturable`, and the optimizer (`capturable=True`, its rate a tensor on the device).
    """

    def __init__(self, model: Recommender, optimizer: torch.optim.Optimizer, amp: bool = False) -> None:
        super().__init__(model, optimizer, amp)
        self._captured: dict[int, Captured] = {}
        self._stream = torch.cuda.Stream()
        self._eager_left = WARM_UP

    def __call__(self, batch: Batch) -> Losses:
        if self._eager_left > 0:
            self._eager_left -= 1
            return self._on_side_stream(batch)
        size = len(batch.users)
        if size not in self._captured:
            self._captured[size] = self._capture(batch)
        graph, place, names, losses = self._captured[size]
        for fixed, given in zip(place, batch, strict=True):
            if fixed is not None and given is not None:
                fixed.copy_(given)
        graph.replay()
        # Copied: the next replay writes there again.
        return dict(zip(names, losses.clone().unbind(), strict=True))

    def forget(self) -> None:
        self._captured.clear()
        self._eager_left = max(self._eager_left, WARM_UP_AGAIN)

    def _on_side_stream(self, batch: Batch) -> Losses:
        """An ordinary step, away from the default stream, as capturing demands of what goes before it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = super().__call__(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _capture(self, batch: Batch) -> Captured:
        """Records a step without taking it."""
        place = batch.map(torch.empty_like)
        pool = next(iter(self._captured.values())).graph.pool() if self._captured else None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                losses = self._take(place)
                values = torch.stack(list(losses.values()))
        except RuntimeError as error:
            raise RuntimeError(
                f"the training step could not be captured as a CUDA graph ({str(error).splitlines()[0]}); "
                "--no-cuda-graph runs it kernel by kernel"
            ) from error
        return Captured(graph, place, list(losses), values)


def make_step(model: Recommender, optimizer: torch.optim.Optimizer, amp: bool, captured: bool) -> Step:
    return (CapturedStep if captured else Step)(model, optimizer, amp)


def begin_epoch(model: Recommender, step: Step, epoch: int, generator: torch.Generator) -> None:
    """Lets the model redraw or relearn what the epoch uses, and has the step recorded again where it says so.

    Raises `RuntimeError` when a tensor that a captured step reads has moved and the model did not say so; on a CPU too.
    """
    before = model.addresses() if model.capturable else {}
    with torch.no_grad():
        if model.begin_epoch(epoch, generator):
            step.forget()
            return
    check_in_place(model, before, "begin_epoch (which did not return True)")


def check_in_place(model: Recommender, before: dict[str, tuple[int, torch.Size]], what: str) -> None:
    """Raises `RuntimeError` when tensors of the model are no longer where they were."""
    now = model.addresses()
    moved = [name for name, place in before.items() if now.get(name) != place]
    if moved:
        raise RuntimeError(
            f"{type(model).__name__}: {what} moved {', '.join(moved)}, from which a captured step reads: "
            f"write in place (copy_), or let begin_epoch return True"
        )
