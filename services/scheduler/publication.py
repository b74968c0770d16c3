"""Publishes durable events to NATS: in order within each job, by one scheduler at a time, at least once."""

from __future__ import annotations

from services.contracts import subjects
from services.jobs.eventlog import EventLog, LoggedEvent
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import Connection, Database

# Chosen once, at random; whoever holds this advisory lock is the one that publishes.
_PUBLISHER_LOCK = 2_094_617_558
_BATCH = 500


class EventPublisher:
    def __init__(self, database: Database, log: EventLog, bus: Bus) -> None:
        self._database = database
        self._log = log
        self._bus = bus

    async def run_once(self) -> None:
        """Publish all that waits; raises ``StoreUnavailableError``, ``BusUnavailableError``."""
        while self._bus.is_connected and await self._database.in_transaction(self._batch) == _BATCH:
            pass

    async def _batch(self, connection: Connection) -> int:
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _PUBLISHER_LOCK):
            return 0
        events = await self._log.unpublished(connection, most=_BATCH)
        if events:
            # Marked only once JetStream has them: a crash in between sends them again, under the same ids.
            await self._bus.publish_all([_outgoing(event) for event in events])
            await self._log.mark_published(connection, events)
        return len(events)


def _outgoing(event: LoggedEvent) -> Outgoing:
    subject = subjects.event(str(event.job_id), str(event.run_id) if event.run_id else "", event.kind)
    return Outgoing(subject, event.encoded(), str(event.id))
