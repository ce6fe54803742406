"""A training step: forward, backward, optimizer. On a GPU it is captured once as a CUDA graph and then replayed.

A step of these models is some hundred kernels of a few microseconds each; launched one by one from Python they leave a
GPU idle most of the time. A captured step is one launch, reads its batch from a fixed place in memory, and never makes
the host wait.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from smore_ext.models import Recommender

WARM_UP = 3  # steps before the first capture: they make Adam's moments, cuBLAS's workspace and cuFFT's plans

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

    def __call__(self, batch: Tensor) -> Losses:
        """Takes a step on `batch` [3, B] int64: users, positives, negatives. Returns "loss" and its parts, detached."""
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            loss = self.model.loss(*batch)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), **self.model.loss_parts}

    def _precision(self) -> AbstractContextManager:
        if not self.amp:
            return nullcontext()
        # Without its cache of cast weights, which would outlive a captured step's memory.
        return torch.autocast(next(self.model.parameters()).device.type, torch.bfloat16, cache_enabled=False)


class CapturedStep(Step):
    """The same steps, replayed from a CUDA graph: one graph a batch size, as an epoch's last batch may be smaller.

    The model must be `capturable`, and the optimizer (`capturable=True`, its rate a tensor on the device).
    """

    def __init__(self, model: Recommender, optimizer: torch.optim.Optimizer, amp: bool = False) -> None:
        super().__init__(model, optimizer, amp)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor, list[str], Tensor]] = {}
        self._stream = torch.cuda.Stream()
        self._eager_left = WARM_UP

    def __call__(self, batch: Tensor) -> Losses:
        if self._eager_left > 0:
            self._eager_left -= 1
            return self._on_side_stream(batch)
        size = batch.shape[1]
        if size not in self._graphs:
            self._graphs[size] = self._capture(batch)
        graph, place, names, losses = self._graphs[size]
        place.copy_(batch)
        graph.replay()
        # Copied: the next replay writes there again.
        return dict(zip(names, losses.clone().unbind(), strict=True))

    def _on_side_stream(self, batch: Tensor) -> Losses:
        """An ordinary step, away from the default stream, as capturing demands of what goes before it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = super().__call__(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _capture(self, batch: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, list[str], Tensor]:
        """Records a step without taking it."""
        place = torch.empty_like(batch)
        pool = next(iter(self._graphs.values()))[0].pool() if self._graphs else None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                losses = super().__call__(place)
                values = torch.stack(list(losses.values()))
        except RuntimeError as error:
            raise RuntimeError(
                f"the training step could not be captured as a CUDA graph ({str(error).splitlines()[0]}); "
                "--no-cuda-graph runs it kernel by kernel"
            ) from error
        return graph, place, list(losses), values


def make_step(model: Recommender, optimizer: torch.optim.Optimizer, amp: bool, captured: bool) -> Step:
    return (CapturedStep if captured else Step)(model, optimizer, amp)
