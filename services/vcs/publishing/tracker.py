"""Asks forges about the changesets that are open there, some at a time; a webhook makes the next look come sooner."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from services.jobs.tracking import TrackedChange, Tracking
from services.runtime import jetstream, lifecycle, postgres
from services.runtime.telemetry import logger
from services.vcs.errors import ForgeError, ForgePausedError, ForgeRefusedError, VcsError
from services.vcs.publishing.changesets import Changesets

log = logger("vcs.tracker")

MOST_AT_ONCE: Final = 4
_TAKEN: Final = 20
_LOOK_EVERY: Final = timedelta(seconds=1)
_AGAIN: Final = timedelta(minutes=2)
"""For one whose look failed, or whose vcs died over it."""
_REFUSED: Final = timedelta(hours=1)
"""Until the next look at what the forge does not show us: it takes a person to change that."""


class Tracker:
    def __init__(self, tracking: Tracking, changesets: Changesets) -> None:
        self._tracking = tracking
        self._changesets = changesets

    async def run(self) -> None:
        """Look for what is due, for ever."""

        async def wait() -> None:
            await asyncio.sleep(_LOOK_EVERY.total_seconds())

        transient = (*postgres.TRANSIENT, *jetstream.TRANSIENT)
        await lifecycle.repeat("tracker", self.run_once, wait=wait, transient=transient)

    async def run_once(self) -> None:
        """Ask about everything that is due now; what fails is due again later. Raises ``StoreUnavailableError`` only
        before the first look: no look ends another.
        """
        due = await self._tracking.take_due(most=_TAKEN, again=_AGAIN)
        slots = asyncio.Semaphore(MOST_AT_ONCE)

        async def observe(change: TrackedChange) -> None:
            async with slots:
                try:
                    await self._observe(change)
                except postgres.StoreUnavailableError as error:
                    log.warning("what a forge said was not recorded", changeset=str(change.id), error=str(error))

        async with asyncio.TaskGroup() as looking:
            for change in due:
                looking.create_task(observe(change))

    async def _observe(self, change: TrackedChange) -> None:
        try:
            await self._changesets.observe(change)
        except ForgePausedError as error:
            await self._tracking.defer(change.id, timedelta(seconds=error.seconds))
        except ForgeRefusedError as error:
            log.warning("the forge does not show a changeset", changeset=str(change.id), error=str(error))
            await self._tracking.defer(change.id, _REFUSED, error=str(error))
        except (ForgeError, VcsError) as error:
            log.warning("a changeset will be looked at again", changeset=str(change.id), error=str(error))
