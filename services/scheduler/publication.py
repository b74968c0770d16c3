"""Publishes durable events to NATS: in one order over all jobs, by one scheduler at a time, at least once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson

from services.contracts import subjects
from services.jobs.eventlog import MOST_BYTES, encode_event, kind_of
from services.jobs.outbox import Outbox
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import Record, StoreUnavailableError

_BATCH = 1_000
_PART = 200
"""Sent together: to encode more would keep admission waiting, which shares the processor."""
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
            # One that has more must not hold up all the others.
            most_bytes = min(MOST_BYTES, self._bus.most_bytes)
            for messages in _parts(message_of(event, most_bytes=most_bytes) for event in events):
                await self._bus.publish_in_order(messages)
                self._confirmed = int(messages[-1].headers[subjects.SEQUENCE_HEADER])
            if len(events) < most:
                return

    async def _next(self, most: int) -> Sequence[Record] | None:
        """As ``Outbox.next``. So many may be too large together to be read in time: then it is fewer the next time."""
        try:
            events = await self._outbox.next(self._confirmed, most=most)
        except StoreUnavailableError:
            self._most = max(1, most // 4)
            raise
        self._most = min(_BATCH, most * 2)
        return events


def _parts(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """``messages`` in parts that are to be sent together."""
    part: list[Outgoing] = []
    size = 0
    for message in messages:
        part.append(message)
        size += len(message.data)
        if len(part) == _PART or size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def message_of(event: Record, *, most_bytes: int) -> Outgoing:
    """What is sent of an event as ``Outbox.next`` has it, whose data has so many bytes at most."""
    # By place: to look each column up by its name takes longer than to encode them.
    event_id, job_id, run_id, number, attempt, word, data, created_at, client_id, sequence = event
    run_id, kind = run_id or "", kind_of(word)
    encoded = encode_event(
        event_id=event_id,
        job_id=job_id,
        run_id=run_id,
        number=number,
        attempt=attempt,
        kind=kind,
        time=created_at,
        data=orjson.loads(data),
        most_bytes=most_bytes,
    )
    headers = {subjects.SEQUENCE_HEADER: str(sequence), subjects.CLIENT_HEADER: str(client_id)}
    return Outgoing(subjects.event_of_uuids(job_id, run_id, kind), encoded, event_id, headers)
