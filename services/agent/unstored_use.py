"""What an attempt's requests have used and is not stored: that of replies which come to nothing would be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from services.jobs.errors import LeaseLostError
from services.jobs.models import ModelUse, VoidUse
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("agent.unstored_use")

_SETTLE_SECONDS = 2.0


class UnstoredUse:
    def __init__(self, count_void: Callable[[Sequence[VoidUse]], Awaitable[None]]) -> None:
        """``count_void``: counts what it is given, each once, fenced; `Running.count_void` with the hold filled in."""
        self._count_void = count_void
        self._thrown_away: list[VoidUse] = []
        self._replies: list[VoidUse] = []

    def threw_away(self, use: ModelUse) -> None:
        """There will be no turn that tells of ``use``."""
        self._thrown_away.append(VoidUse(use))

    def replied(self, use: ModelUse, *, turn: int) -> None:
        """A checkpoint is to tell of ``use``, as the end of the run's ``turn``."""
        self._replies.append(VoidUse(use, turn))

    def stored(self, use: ModelUse | None) -> None:
        """A checkpoint has told of ``use``."""
        self._replies = [reply for reply in self._replies if reply.use is not use]

    async def store(self) -> None:
        """Store what was thrown away; where Postgres is away it is kept for the next time.

        Raises ``LeaseLostError``.
        """
        try:
            await self._store(self._thrown_away)
        except StoreUnavailableError as error:
            log.warning("what a reply has used that was thrown away is stored later", error=str(error))

    async def settle(self) -> None:
        """At the attempt's end, while it holds its lease: store all that is left, replies that no checkpoint tells of
        included, as far as that goes within 2 s. Raises nothing of what becomes of it.
        """
        with suppress(LeaseLostError, StoreUnavailableError, TimeoutError):
            async with asyncio.timeout(_SETTLE_SECONDS):
                await self._store([*self._thrown_away, *self._replies])

    async def _store(self, uses: list[VoidUse]) -> None:
        if not uses:
            return
        told = {void.id for void in uses}
        await self._count_void(list(uses))
        self._thrown_away = [void for void in self._thrown_away if void.id not in told]
        self._replies = [reply for reply in self._replies if reply.id not in told]
