"""One live consumer of the event stream in this process, fanned out in memory to the watchers of each job.

Nobody is buffered without bound: who reads too slowly is cut off, and can go on from the last id it saw.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import orjson

from services.contracts.subjects import ALL_EVENTS, EVENTS_STREAM
from services.runtime.jetstream import Bus, BusUnavailableError, StreamPosition, Tailed
from services.runtime.telemetry import logger

log = logger("gateway.events")

MOST_EVENTS = 2_000
MOST_BYTES = 4 * 1024**2
RETRY_SECONDS = 0.5
COVER_SECONDS = 1.0


class SubscriptionEndedError(Exception):
    """The watcher read too slowly, or the process stops: connect again with the last id seen."""


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """A message of the event stream. ``number``: 0 for a delta. ``data``: one line of JSON."""

    number: int
    kind: str
    data: bytes
    incarnation: str
    sequence: int


def live_event(message: Tailed) -> LiveEvent | None:
    """None where the message is no event."""
    try:
        body = orjson.loads(message.data)
        number, kind = int(body.get("number", 0)), str(body["kind"])
    except (ValueError, TypeError, KeyError, AttributeError):
        log.warning("not an event", subject=message.subject, sequence=message.sequence)
        return None
    # A publisher of another make may spread its JSON over lines, which a message of SSE cannot hold.
    data = orjson.dumps(body) if b"\n" in message.data or b"\r" in message.data else message.data
    return LiveEvent(number, kind, data, message.incarnation, message.sequence)


class Subscription:
    """What one watcher has not read yet."""

    def __init__(self, *, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        self._events: deque[LiveEvent] = deque()
        self._bytes = 0
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._changed = asyncio.Event()
        self.has_ended = False

    def offer(self, event: LiveEvent) -> None:
        if self.has_ended:
            return
        if len(self._events) >= self._most_events or self._bytes + len(event.data) > self._most_bytes:
            log.info("a watcher reads too slowly and is cut off", events=len(self._events), bytes=self._bytes)
            self.end()
            return
        self._events.append(event)
        self._bytes += len(event.data)
        self._changed.set()

    def end(self) -> None:
        self._events.clear()
        self.has_ended = True
        self._changed.set()

    async def next(self, *, timeout_seconds: float) -> LiveEvent | None:
        """The next event; None where none came in time. Raises ``SubscriptionEndedError``."""
        if not self._events and not self.has_ended:
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._changed.wait()
            except TimeoutError:
                return None
        if self.has_ended:
            raise SubscriptionEndedError
        event = self._events.popleft()
        self._bytes -= len(event.data)
        return event


class Hub:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._covers = asyncio.Event()
        self._is_closed = False

    async def run(self) -> None:
        """Deliver for ever; to be run as a background task."""
        begin = await self._begin()
        self._covers.set()
        async for message in self._bus.tail(EVENTS_STREAM, ALL_EVENTS, after=begin.last_sequence):
            self._deliver(message)

    async def _begin(self) -> StreamPosition:
        while True:
            try:
                return await self._bus.stream_position(EVENTS_STREAM)
            except BusUnavailableError:
                await asyncio.sleep(RETRY_SECONDS)

    def _deliver(self, message: Tailed) -> None:
        job_id = message.subject.split(".")[2]
        subscriptions = self._subscriptions.get(job_id)
        if not subscriptions:
            return
        event = live_event(message)
        if event is not None:
            for subscription in subscriptions:
                subscription.offer(event)

    async def is_connected(self) -> bool:
        return self._covers.is_set() and await self._bus.check() == "ok"

    async def position(self) -> StreamPosition | None:
        """A place in the stream behind which every event reaches today's subscribers; None while NATS is away.

        Subscribe before you ask.
        """
        if await self._bus.check() != "ok":
            return None
        try:
            async with asyncio.timeout(COVER_SECONDS):
                await self._covers.wait()
            return await self._bus.stream_position(EVENTS_STREAM)
        except (TimeoutError, BusUnavailableError):
            return None

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        subscription = Subscription()
        if self._is_closed:
            subscription.end()
        self._subscriptions[job_id].add(subscription)
        try:
            yield subscription
        finally:
            watchers = self._subscriptions[job_id]
            watchers.discard(subscription)
            if not watchers:
                del self._subscriptions[job_id]

    def close(self) -> None:
        """End every stream, now and from now on; each can be taken up again elsewhere."""
        self._is_closed = True
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.end()
