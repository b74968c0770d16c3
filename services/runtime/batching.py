"""Work that is cheaper together: calls that come while a batch is under way make up the next one.

A call that comes alone is carried out at once, so nobody waits for company; only after a batch that shows that more are
on their way may the next one wait for a moment. Knows nothing of what the work is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MANY = 4
"""Items of a batch that show that others are on their way."""


@dataclass(frozen=True)
class Rest:
    """From one beginning to the next, while much is to do: a transaction costs more than a row of it."""

    duration: timedelta
    many: int = MANY

    async def after(self, items: int, *, begun: float) -> None:
        """Wait for what is left of it, where a round that began then (monotonic seconds) had so many ``items``."""
        left = begun + self.duration.total_seconds() - time.monotonic()
        if items >= self.many and left > 0:
            await asyncio.sleep(left)


class Batcher(Generic[Item, Result]):
    def __init__(
        self,
        carry_out: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        most: int,
        transient: tuple[type[BaseException], ...],
        rest: Rest | None = None,
    ) -> None:
        """``carry_out``: does a batch of at most ``most`` and answers each item in its place, with a result or the
        error that is this item's alone. What it raises is everybody's where it is ``transient``; else each item is
        carried out by itself, so that one that cannot be done takes no other with it. ``rest``: from the beginning of
        a batch to the next one's, unless that is full already; None: at once.
        """
        self._carry_out = carry_out
        self._most = most
        self._transient = transient
        self._rest = rest
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._under_way: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Carry out ``item``, with others where there are any; once accepted it is done even if the caller leaves."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._under_way is None:
            self._under_way = asyncio.create_task(self._work(), name="batch")
        return await done

    async def _work(self) -> None:
        try:
            while self._waiting:
                begun = time.monotonic()
                batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                await self._answer(batch)
                if self._rest is not None and len(self._waiting) < self._most:
                    await self._rest.after(len(batch), begun=begun)
        finally:
            self._under_way = None

    async def _answer(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            answers = await self._carry_out([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Exception as error:  # noqa: BLE001  it is raised again where it belongs: at each caller
            if len(batch) == 1 or isinstance(error, self._transient):
                answers = [error] * len(batch)
            else:
                for one in batch:
                    await self._answer([one])
                return
        for (_, done), answer in zip(batch, answers, strict=True):
            if done.done():
                continue  # the caller has left
            if isinstance(answer, Exception):
                done.set_exception(answer)
            else:
                done.set_result(answer)
