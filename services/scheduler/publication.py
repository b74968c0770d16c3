"""Publishes durable events to NATS: in one order over all jobs, by one scheduler at a time, at least once."""

from __future__ import annotations

from services.contracts import subjects
from services.jobs.eventlog import LoggedEvent
from services.jobs.outbox import Outbox
from services.runtime.jetstream import Bus, Outgoing

_BATCH = 1_000


class EventPublisher:
    def __init__(self, outbox: Outbox, bus: Bus) -> None:
        self._outbox = outbox
        self._bus = bus
        self._confirmed = 0

    async def run_once(self) -> None:
        """Publish all that waits; raises ``StoreUnavailableError``, ``BusUnavailableError``.

        What NATS has of one round is told to Postgres with the next: a crash in between sends it again, under the
        same ids and in the same order.
        """
        while self._bus.is_connected:
            events = await self._outbox.next(self._confirmed, most=_BATCH)
            if not events:
                return
            await self._bus.publish_in_order([_outgoing(event) for event in events])
            self._confirmed = events[-1].sequence or self._confirmed
            if len(events) < _BATCH:
                return


def _outgoing(event: LoggedEvent) -> Outgoing:
    subject = subjects.event(str(event.job_id), str(event.run_id) if event.run_id else "", event.kind)
    headers = {subjects.SEQUENCE_HEADER: str(event.sequence), subjects.CLIENT_HEADER: str(event.client_id)}
    return Outgoing(subject, event.encoded(), str(event.id), headers)
