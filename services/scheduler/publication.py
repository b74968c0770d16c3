"""Publishes durable events to NATS: in one order over all jobs, by one scheduler at a time, at least once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.contracts import subjects
from services.jobs.eventlog import MOST_BYTES, LoggedEvent
from services.jobs.outbox import Outbox
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import StoreUnavailableError

_BATCH = 1_000
_PART_BYTES = 4 * 1024**2
"""What is sent together must arrive within the two seconds of a publish; whatever its size, each part does."""


class EventPublisher:
    def __init__(self, outbox: Outbox, bus: Bus) -> None:
        self._outbox = outbox
        self._bus = bus
        self._confirmed = 0
        self._most = _BATCH

    async def run_once(self) -> None:
        """Publish all that waits; raises ``StoreUnavailableError``, ``BusUnavailableError``.

        What NATS has of one round is told to Postgres with the next: a crash in between sends it again, under the
        same ids and in the same order.
        """
        while self._bus.is_connected:
            most = self._most
            events = await self._next(most)
            if not events:
                return
            for sequence, messages in _parts(events, most_bytes=min(MOST_BYTES, self._bus.most_bytes)):
                await self._bus.publish_in_order(messages)
                self._confirmed = sequence or self._confirmed
            if len(events) < most:
                return

    async def _next(self, most: int) -> list[LoggedEvent] | None:
        """As ``Outbox.next``. So many may be too large together to be read in time: then it is fewer the next time."""
        try:
            events = await self._outbox.next(self._confirmed, most=most)
        except StoreUnavailableError:
            self._most = max(1, most // 4)
            raise
        self._most = min(_BATCH, most * 2)
        return events


def _parts(events: Sequence[LoggedEvent], *, most_bytes: int) -> Iterator[tuple[int | None, list[Outgoing]]]:
    """``events`` as messages to be sent together, and the sequence of the last of them. ``most_bytes``: of each event:
    one that has more must not hold up all the others.
    """
    messages: list[Outgoing] = []
    size = 0
    for event in events:
        messages.append(_outgoing(event, most_bytes))
        size += len(messages[-1].data)
        if size >= _PART_BYTES:
            yield event.sequence, messages
            messages, size = [], 0
    if messages:
        yield events[-1].sequence, messages


def _outgoing(event: LoggedEvent, most_bytes: int = MOST_BYTES) -> Outgoing:
    subject = subjects.event(str(event.job_id), str(event.run_id) if event.run_id else "", event.kind)
    headers = {subjects.SEQUENCE_HEADER: str(event.sequence), subjects.CLIENT_HEADER: str(event.client_id)}
    return Outgoing(subject, event.encoded(most_bytes=most_bytes), str(event.id), headers)
