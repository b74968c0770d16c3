"""Which client a job is of. Deltas do not say it: remembered from durable events, and looked up where it was not."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from uuid import UUID

from services.jobs.eventlog import EventLog
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.events")

MOST_JOBS = 10_000
LOOK_UP_SECONDS = 0.5
"""Everybody's events wait for it."""
PAUSE_SECONDS = 5.0
"""While Postgres is away, so that events do not wait for it again and again."""


class Owners:
    def __init__(self, *, most: int = MOST_JOBS) -> None:
        self._clients: OrderedDict[str, str] = OrderedDict()
        self._most = most
        self._not_before = 0.0

    def learn(self, job_id: str, client_id: str) -> None:
        self._clients[job_id] = client_id
        self._clients.move_to_end(job_id)
        if len(self._clients) > self._most:
            self._clients.popitem(last=False)

    async def of(self, job_id: str, event_log: EventLog) -> str:
        """The job's client; empty: it is not to be known now."""
        client_id = self._clients.get(job_id)
        if client_id is None:
            if time.monotonic() < self._not_before:
                return ""
            client_id = await self._look_up(job_id, event_log)
            if client_id is None:
                return ""
        self.learn(job_id, client_id)
        return client_id

    async def _look_up(self, job_id: str, event_log: EventLog) -> str | None:
        """Empty: there is no such job; None: unknown. Every job has a first event, which says whose it is."""
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                first = await event_log.after(UUID(job_id), 0, most=1)
        except ValueError:
            return ""
        except (StoreUnavailableError, TimeoutError) as error:
            self._not_before = time.monotonic() + PAUSE_SECONDS
            log.warning("whose job it is cannot be looked up: its deltas are left out", job=job_id, error=str(error))
            return None
        return str(first[0].client_id) if first and first[0].client_id else ""
