"""One live consumer of the event stream in this process, fanned out in memory to the watchers of each job and client.

It is there while anybody watches: what nobody here wants is not even read. It keeps one clock for all of them: what
nobody told is looked for, and quiet connections are kept alive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from uuid import UUID

from services.contracts.subjects import ALL_EVENTS, EVENTS_STREAM
from services.gateway.events.audience import Audience
from services.gateway.events.live import client_of, live_event, order_of
from services.gateway.events.owners import Owners
from services.gateway.events.subscription import Subscription, SubscriptionEndedError
from services.jobs.eventlog import EventLog
from services.runtime.jetstream import Bus, BusUnavailableError, StreamPosition, Tailed
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

__all__ = ["Hub", "Subscription", "SubscriptionEndedError"]

log = logger("gateway.events")

RETRY_SECONDS = 0.5
COVER_SECONDS = 1.0
TICK_SECONDS = 1.0
LOOK_SECONDS = 5.0
"""Durable events that nobody published (the scheduler is away) are found by looking into Postgres this often."""
LOOK_WITHOUT_NATS_SECONDS = 1.0
LOOKS_AT_ONCE = 4
LINGER_SECONDS = 5.0
"""How long the stream is heard after the last watcher has left: who comes back soon finds it there."""


class Hub:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscriptions: dict[str, Audience] = {}
        self._clients: dict[str, Audience] = {}
        self._log: EventLog | None = None
        self._owners = Owners()
        self._heard_from = 0
        self._heard_to = 0
        self._covers = asyncio.Event()
        self._watched = asyncio.Event()
        self._is_closed = False

    async def run(self) -> None:
        """Deliver for ever; to be run as a background task."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear_watched(), name="event hearing")
            group.create_task(self._tick(), name="event clock")
            group.create_task(self._look(), name="event look")

    async def _hear_watched(self) -> None:
        """Hear the stream while somebody watches, for ever. Who comes asks for ``position``, which waits for it."""
        while True:
            await self._watched.wait()
            async with asyncio.TaskGroup() as group:
                tail = group.create_task(self._tail(), name="event tail")
                await self._unwatched()
                # In one step with having seen that nobody is there.
                self._covers.clear()
                self._watched.clear()
                tail.cancel()

    async def _unwatched(self) -> None:
        """Until nobody has watched for a while."""
        since: float | None = None
        while since is None or time.monotonic() < since + LINGER_SECONDS:
            await asyncio.sleep(TICK_SECONDS)
            since = None if self._audiences() else since or time.monotonic()

    async def _tail(self) -> None:
        begin = await self._begin()
        self._covers.set()
        async with aclosing(self._bus.tail(EVENTS_STREAM, ALL_EVENTS, after=begin.last_sequence)) as messages:
            async for message in messages:
                await self._deliver(message)

    async def _begin(self) -> StreamPosition:
        while True:
            try:
                return await self._bus.stream_position(EVENTS_STREAM)
            except BusUnavailableError:
                await asyncio.sleep(RETRY_SECONDS)

    async def _deliver(self, message: Tailed) -> None:
        job_id, order = message.subject.split(".")[2], order_of(message.headers)
        client_id = client_of(message.headers)
        if order and client_id:
            self._hear(order)
            self._owners.learn(job_id, client_id)
        elif self._clients:
            client_id = await self.owner_of(job_id)
        of_job, of_client = self._subscriptions.get(job_id), self._clients.get(client_id)
        if of_job is None and of_client is None:
            return
        event = live_event(message)
        if event is None:
            return
        if of_job is not None:
            of_job.offer(event)
        if of_client is not None and (order or not event.number):
            of_client.offer(replace(event, order=order, heard_from=self._heard_from, heard_to=self._heard_to))

    async def owner_of(self, job_id: str) -> str:
        """The job's client; empty: it is not to be known now."""
        return await self._owners.of(job_id, self._log) if self._log is not None else ""

    def _hear(self, order: int) -> None:
        """Keep the unbroken run of orders up to the last one heard; one heard again changes nothing."""
        if order > self._heard_to + 1:
            self._heard_from = order - 1
        self._heard_to = max(self._heard_to, order)

    async def is_connected(self) -> bool:
        return self._covers.is_set() and self._bus.is_connected

    async def position(self) -> StreamPosition | None:
        """A place in the stream behind which every event reaches today's subscribers; None while NATS is away.

        Subscribe before you ask.
        """
        if not self._bus.is_connected:
            return None
        try:
            async with asyncio.timeout(COVER_SECONDS):
                await self._covers.wait()
            return await self._bus.stream_position(EVENTS_STREAM)
        except (TimeoutError, BusUnavailableError):
            return None

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """To one job's events."""
        with self._joined(self._subscriptions, job_id) as subscription:
            yield subscription

    @contextmanager
    def subscribe_client(self, client_id: UUID, event_log: EventLog) -> Iterator[Subscription]:
        """To the events of all of a client's jobs. ``event_log``: says whose job it is where nothing else does."""
        self._log = event_log
        with self._joined(self._clients, str(client_id)) as subscription:
            yield subscription

    @contextmanager
    def _joined(self, audiences: dict[str, Audience], key: str) -> Iterator[Subscription]:
        subscription = Subscription()
        if self._is_closed:
            subscription.end()
        audience = audiences.setdefault(key, Audience())
        audience.subscriptions.add(subscription)
        self._watched.set()
        try:
            yield subscription
        finally:
            audience.subscriptions.discard(subscription)
            if not audience.subscriptions:
                del audiences[key]

    def _audiences(self) -> list[Audience]:
        return [*self._subscriptions.values(), *self._clients.values()]

    async def _tick(self) -> None:
        """Every second, for all: no watcher has a clock of its own."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for audience in self._audiences():
                for subscription in audience.subscriptions:
                    subscription.tick()

    async def _look(self) -> None:
        """Look for what was not told, for ever."""
        was_connected = False
        while True:
            await asyncio.sleep(LOOK_WITHOUT_NATS_SECONDS)
            is_connected = await self.is_connected()
            interval = LOOK_SECONDS if is_connected else LOOK_WITHOUT_NATS_SECONDS
            # What was published while NATS came back may have been missed: look at once.
            is_other = is_connected != was_connected
            due = [each for each in self._audiences() if is_other or each.is_quiet(interval)]
            was_connected = is_connected
            for begin in range(0, len(due), LOOKS_AT_ONCE):
                if not await self._look_for(due[begin : begin + LOOKS_AT_ONCE]):
                    break

    async def _look_for(self, audiences: list[Audience]) -> bool:
        """Whether Postgres answered; where it did not, live events go on, and the next look is soon."""
        try:
            await asyncio.gather(*(audience.look() for audience in audiences))
        except StoreUnavailableError as error:
            log.debug("no look at the event log", error=str(error))
            return False
        return True

    def heard(self, number: int) -> int:
        """How far one is who was at ``number`` of the order over all jobs, with what was heard and given out since."""
        return self._heard_to if self._heard_from <= number <= self._heard_to else number

    def close(self) -> None:
        """End every stream, now and from now on; each can be taken up again elsewhere."""
        self._is_closed = True
        for audience in self._audiences():
            for subscription in audience.subscriptions:
                subscription.end()
