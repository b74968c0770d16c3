"""Stores a loop's checkpoints in their order, beside what the loop does next: two writes a turn, one after the other
with everything else, would be a third of a short turn.

Two become one transaction where that costs nothing: a reply whose tools only read and are quick goes with their
results, and a reply that comes while the worktree is still being looked at goes with the results before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar

from services.agent.side_by_side import finish
from services.jobs.models import Checkpoint, Standing

Result = TypeVar("Result")

HELD_SECONDS = 0.02
"""For so long a checkpoint may wait for the next."""
_SETTLE_SECONDS = 1.0


class Saving:
    def __init__(self, save: Callable[[Checkpoint], Awaitable[Standing]]) -> None:
        """``save``: stores a checkpoint, fenced."""
        self._save = save
        self._held: Checkpoint | None = None
        self._under_way: asyncio.Task[Standing] | None = None
        self._has_use = False
        self._takes_more = False
        self._more: Checkpoint | None = None
        self.unstored: Checkpoint | None = None
        """What was to be stored last and, as far as is known, was not; without what was to go with it."""

    async def save(self, checkpoint: Checkpoint) -> None:
        """Return once it is stored, and what was begun before it. Raises what storing any of that raises."""
        if self._takes_more and self._more is None:
            self._more = checkpoint
            await self.done()
        else:
            await self.done()
            await self._tried(checkpoint, checkpoint)

    def hold(self, checkpoint: Checkpoint) -> None:
        """Store it with the next one, or when that has not come within 20 ms of what is done ``beside``."""
        self._held = checkpoint

    def begin(self, checkpoint: Checkpoint) -> None:
        """Begin to store it, behind what was begun before."""

        async def made() -> Checkpoint:
            return checkpoint

        self.begin_making(made)
        self._has_use = self._has_use or checkpoint.usage is not None

    def begin_making(self, make: Callable[[], Awaitable[Checkpoint]]) -> None:
        """Begin to store what ``make`` comes to."""
        before, self._under_way = self._under_way, None
        held, self._held = self._held, None
        self._has_use = held is not None or (before is not None and self._has_use)
        # A checkpoint tells of what one request has used; and more would go with what was begun before.
        self._takes_more = held is None and before is None
        self._under_way = asyncio.create_task(self._store(before, held, make), name="checkpoint")

    async def beside(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do ``work`` beside what is being stored; both are done afterwards, but for what is held and was not due.

        Raises what either raises, once ``work`` is ended.
        """
        if self._under_way is None and self._held is None:
            return await work
        async with _ended_on_error(work) as doing:
            await self._stored_or_failed(doing)
            if self._held is not None:
                await asyncio.wait([doing], timeout=HELD_SECONDS)
            if self._held is not None and not doing.done():
                self._begin_held(self._held)
                await self._stored_or_failed(doing)
            return await doing

    async def ahead(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The same, but what is being stored may still be when ``work`` is done."""
        if self._under_way is None:
            return await work
        async with _ended_on_error(work) as doing:
            await asyncio.wait([doing, self._under_way], return_when=asyncio.FIRST_COMPLETED)
            if self._under_way.done():
                await self._finished()
            return await doing

    async def used(self) -> None:
        """Return once it is stored what requests have used; raises what storing it raises."""
        if self._under_way is not None and self._has_use:
            await asyncio.shield(self._under_way)

    async def done(self) -> None:
        """Return once everything is stored; raises what storing it raises."""
        await self._finished()
        if self._held is not None:
            self._begin_held(self._held)
            await self._finished()

    async def settle(self) -> None:
        """Whatever has ended the loop: what is not stored yet may be first, so that nothing is done again without need.

        Waits for a second at most, and raises nothing of what becomes of it.
        """
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_SECONDS):
                    await asyncio.gather(self.done(), return_exceptions=True)
        finally:  # also where it is cancelled once more: a lease that is lost outdoes all
            await finish(self._under_way)
            self._under_way = None

    def _begin_held(self, held: Checkpoint) -> None:
        self._held = None  # else it would go with itself
        self.begin(held)

    async def _store(
        self,
        before: asyncio.Task[Standing] | None,
        held: Checkpoint | None,
        make: Callable[[], Awaitable[Checkpoint]],
    ) -> Standing:
        if before is not None:
            await before
        try:
            checkpoint = await make()
        finally:
            self._takes_more = False
        whole = checkpoint if held is None else joined(held, checkpoint)
        if self._more is not None:
            whole, self._more = joined(whole, self._more), None
        return await self._tried(whole, checkpoint)

    async def _tried(self, whole: Checkpoint, checkpoint: Checkpoint) -> Standing:
        """Store ``whole``, with ``checkpoint`` in it."""
        self.unstored = checkpoint
        standing = await self._save(whole)
        self.unstored = None
        return standing

    async def _finished(self) -> None:
        if self._under_way is not None:
            # Whoever is broken off meanwhile, the checkpoint is not: `settle` waits for it.
            await asyncio.shield(self._under_way)
            self._under_way = None

    async def _stored_or_failed(self, doing: asyncio.Task[Any]) -> None:
        """Return once what is under way is stored; raises what storing it raises, or what ``doing`` raises before."""
        while self._under_way is not None and not self._under_way.done():
            waited = {self._under_way} if doing.done() else {self._under_way, doing}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if doing.done() and not self._under_way.done():
                doing.result()
        await self._finished()


@asynccontextmanager
async def _ended_on_error(work: Coroutine[Any, Any, Result]) -> AsyncIterator[asyncio.Task[Result]]:
    doing = asyncio.create_task(work)
    try:
        yield doing
    except BaseException:
        await finish(doing)
        raise


def joined(first: Checkpoint, second: Checkpoint) -> Checkpoint:
    """Both as one, in this order; one of them has looked at the worktree, and one has used anything, at most."""
    return replace(
        first,
        messages=[*first.messages, *second.messages],
        tree=second.tree or first.tree,
        usage=first.usage or second.usage,
        events=[*first.events, *second.events],
        read_through=max(first.read_through, second.read_through),
        outputs={**first.outputs, **second.outputs},
    )
