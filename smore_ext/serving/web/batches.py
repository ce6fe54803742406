"""Users who were asked about at the same time are ranked together: the kernel takes eight in the time of one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import torch

from smore_ext.serving.served import Served, Similar


class _Asked(NamedTuple):
    user: int
    k: int
    answer: asyncio.Future[list[Similar]]


class Batches:
    """Gathers what the event loop took in one turn. Nobody waits for others to come."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.AbstractEventLoop, dict[tuple[int, bool], tuple[Served, list[_Asked]]]] = {}

    async def best(self, model: Served, user: int, k: int, filter_seen: bool) -> list[Similar]:
        """The k items ranked first for a user, by number, among all items."""
        loop = asyncio.get_running_loop()
        asked = _Asked(user, k, loop.create_future())
        if loop not in self._waiting:
            self._waiting[loop] = {}
            loop.call_soon(self._answer, loop)  # after the requests that are being read in this turn
        self._waiting[loop].setdefault((id(model), filter_seen), (model, []))[1].append(asked)
        return await asked.answer

    def _answer(self, loop: asyncio.AbstractEventLoop) -> None:
        for (_, filter_seen), (model, asked) in self._waiting.pop(loop).items():
            try:
                lists: Sequence[list[Similar]] = _lists(model, asked, filter_seen)
            except Exception as error:  # each of them is answered
                for one in asked:
                    if not one.answer.done():
                        one.answer.set_exception(error)
                continue
            for one, found in zip(asked, lists, strict=True):
                if not one.answer.done():  # its client may have left
                    one.answer.set_result(found)


def _lists(model: Served, asked: Sequence[_Asked], filter_seen: bool) -> list[list[Similar]]:
    users = torch.tensor([one.user for one in asked])
    score, index = model.ranked(users, max(one.k for one in asked), filter_seen)
    rows = zip(asked, score, index, strict=True)
    return [model.named(scores[: one.k], items[: one.k]) for one, scores, items in rows]
