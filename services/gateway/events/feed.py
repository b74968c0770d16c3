"""What one watcher is sent, in order: first what it missed, then what happens. Nothing twice, no durable event missing.

The stream of NATS is preferred, since it has the deltas; Postgres fills every hole, and stands in while NATS is away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from uuid import UUID

import orjson

from services.contracts.subjects import EVENTS_STREAM, events_of_job
from services.contracts.words import EventKind
from services.gateway.events.hub import Hub
from services.gateway.events.live import ALL, Frame, LiveEvent, Wanted, found_event, live_event
from services.gateway.events.position import NOWHERE, BadPositionError, Position
from services.gateway.events.subscription import Subscription
from services.jobs.eventlog import EventLog
from services.runtime.jetstream import Bus, StreamPosition

__all__ = ["GAP", "EventFeed", "Feed", "Frame", "Frames"]

PAGE = 500
GAP = "gap"
_MOST_NUMBER = 2**31 - 1

Frames = AsyncGenerator[Frame, None]


class EventFeed(ABC):
    """``subscription``: made before this. ``begin``: where the watcher was."""

    def __init__(
        self, begin: Position, *, subscription: Subscription, log: EventLog, bus: Bus, hub: Hub, wanted: Wanted
    ) -> None:
        self._at = begin
        self._subscription = subscription
        self._log = log
        self._bus = bus
        self._hub = hub
        self._wanted = wanted
        self._has_ended = False
        self._here: StreamPosition | None = None
        self._has_begun = False
        subscription.look = self._look

    @property
    def position(self) -> Position:
        return self._at

    async def begin(self) -> None:
        """Find out from which place on the stream comes to the subscription by itself. Whoever is told that he watches
        is told after this: what is streamed from then on reaches him.
        """
        self._here = await self._hub.position()
        self._has_begun = True

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Everything behind the watcher's place, until the stream has its end.

        Raises ``SubscriptionEndedError``, ``StoreUnavailableError``, ``BusUnavailableError``: the stream must
        end then, and the watcher can go on at the last position it was sent.
        """
        if not self._has_ended:
            async with aclosing(self._missed()) as missed:
                async for frame in missed:
                    yield frame
        self._subscription.reached = self._at.number
        while not self._has_ended:
            event = await self._subscription.next()
            async with aclosing(self._take(event)) as taken:
                async for frame in taken:
                    yield frame

    @abstractmethod
    def follows(self, event: LiveEvent) -> bool:
        """Whether ``place`` may be called: nothing before ``event`` is missing, and the stream goes on behind it."""

    @abstractmethod
    def place(self, event: LiveEvent) -> Frame | None:
        """Move behind ``event``, whose place it is; None where there is nothing to send."""

    @abstractmethod
    def _take(self, event: LiveEvent) -> Frames:
        """``event``, after whatever durable ones should have come before it; nothing where it was sent already."""

    @abstractmethod
    def _from_log(self, *, caught_up: StreamPosition | None = None) -> Frames:
        """What Postgres has behind the watcher's place.

        ``caught_up``: a place in the stream, known before this, that the watcher has reached with the last of it:
        what was published before it was committed before it, so it is in what is read here.
        """

    @abstractmethod
    def _stream(self, here: StreamPosition) -> AsyncIterator[LiveEvent]:
        """What the stream has for the watcher up to ``here``."""

    @abstractmethod
    async def _look(self, number: int) -> Sequence[LiveEvent]:
        """For ``Subscription.look``."""

    async def _missed(self) -> Frames:
        if not self._has_begun:
            await self.begin()
        here = self._here
        if here is not None and self._is_kept(here):
            async for event in self._stream(here):
                async for frame in self._take(event):
                    yield frame
                if self._has_ended:
                    return
            return
        if here is not None:
            self._at = self._at.out_of_stream()
        async for frame in self._from_log(caught_up=here):
            yield frame

    def _is_kept(self, here: StreamPosition) -> bool:
        is_there = here.first_sequence - 1 <= self._at.sequence <= here.last_sequence
        return self._at.incarnation == here.incarnation and is_there

    def _moved(self, event: LiveEvent, number: int) -> Frame:
        """The message that ``event`` is where it takes the watcher to ``number``."""
        if event.incarnation == NOWHERE:
            frame = Frame(self._at.at_number(number), event.kind, event.data)
        else:
            frame = event.frame(number)
        self._at = frame.position
        self._subscription.reached = number
        return frame


class Feed(EventFeed):
    """Of one job, from its first event on where ``begin`` is None, until it has finished."""

    def __init__(
        self,
        job_id: UUID,
        begin: Position | None,
        *,
        subscription: Subscription,
        log: EventLog,
        bus: Bus,
        hub: Hub,
        wanted: Wanted = ALL,
    ) -> None:
        super().__init__(begin or Position(), subscription=subscription, log=log, bus=bus, hub=hub, wanted=wanted)
        self._job_id = job_id

    async def check(self) -> None:
        """Raises ``BadPositionError`` where the watcher says that it saw an event which there is not."""
        number = self._at.number
        if number == 0:
            return
        events = await self._log.after(self._job_id, number - 1, most=1) if number <= _MOST_NUMBER else []
        if not events:
            raise BadPositionError
        last = events[0]
        self._has_ended = last.number == number and last.kind is EventKind.JOB_FINISHED

    def follows(self, event: LiveEvent) -> bool:
        return event.number <= self._at.number + 1 and event.kind != EventKind.JOB_FINISHED

    def place(self, event: LiveEvent) -> Frame | None:
        at = self._at
        has_passed = at.has_passed(event.incarnation, event.sequence) or event.incarnation == NOWHERE
        is_new = event.number > at.number if event.number else not has_passed
        if has_passed and not is_new:
            return None
        frame = self._moved(event, max(at.number, event.number))
        if is_new and event.kind == EventKind.JOB_FINISHED:
            self._has_ended = True
        return frame if is_new and self._wanted.takes(event.kind, event.number) else None

    async def _take(self, event: LiveEvent) -> Frames:
        if event.number > self._at.number + 1:
            async for frame in self._from_log():
                yield frame
            for gap in self._gap_before(event.number):
                yield gap
        placed = self.place(event)
        if placed is not None:
            yield placed

    async def _stream(self, here: StreamPosition) -> AsyncIterator[LiveEvent]:
        subject = events_of_job(str(self._job_id))
        messages = self._bus.read(EVENTS_STREAM, subject, after=self._at.sequence, until=here.last_sequence)
        async for message in messages:
            event = live_event(message)
            if event is not None:
                yield event

    async def _look(self, number: int) -> Sequence[LiveEvent]:
        return [found_event(event) for event in await self._log.after(self._job_id, number, most=PAGE)]

    async def _from_log(self, *, caught_up: StreamPosition | None = None) -> Frames:
        while not self._has_ended:
            page = await self._log.after(self._job_id, self._at.number, most=PAGE)
            is_last = len(page) < PAGE
            for event in page:
                for gap in self._gap_before(event.number):
                    yield gap
                if caught_up is not None and is_last and event is page[-1]:
                    self._at = self._at.in_stream(caught_up.incarnation, caught_up.last_sequence)
                placed = self.place(found_event(event))
                if placed is not None:
                    yield placed
            if is_last:
                break
        if caught_up is not None:
            self._at = self._at.in_stream(caught_up.incarnation, caught_up.last_sequence)

    def _gap_before(self, number: int) -> list[Frame]:
        """Says which durable events are nowhere any more: never silence."""
        if number <= self._at.number + 1:
            return []
        missed = {"jobId": str(self._job_id), "missedFrom": self._at.number + 1, "missedTo": number - 1}
        self._at = self._at.at_number(number - 1)
        return [Frame(self._at, GAP, orjson.dumps(missed))]
