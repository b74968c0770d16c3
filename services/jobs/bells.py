"""Rings for what was committed, and no more often than anybody acts upon it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.jobs.unit import Rung

EVENTS_EVERY = timedelta(milliseconds=10)
"""Whoever publishes events lingers for longer: a second ring within that tells nothing."""


class Bell:
    """For one process. A ring that is lost with it costs time alone: the scheduler also looks by itself."""

    def __init__(self, ring: Callable[[Rung], Awaitable[None]], *, every: timedelta = EVENTS_EVERY) -> None:
        """``every``: for events, at most one ring in so long; for slots each is rung at once."""
        self._ring = ring
        self._every = every.total_seconds()
        self._rung_at = 0.0
        self._later: asyncio.Task[None] | None = None

    async def __call__(self, rung: Rung) -> None:
        left = self._rung_at + self._every - time.monotonic()
        if rung is Rung.SLOTS or (left <= 0 and self._later is None):
            await self._now(rung)
        elif self._later is None:
            self._later = asyncio.create_task(self._after(left), name="bell")

    async def _now(self, rung: Rung) -> None:
        self._rung_at = time.monotonic()
        await self._ring(rung)

    async def _after(self, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            await self._now(Rung.EVENTS)
        finally:
            self._later = None
