"""What one watcher is sent, in order: first what it missed, then what happens. Nothing twice, no durable event missing.

The stream of NATS is preferred, since it has the deltas; Postgres fills every hole, and stands in while NATS is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

import orjson

from services.contracts.subjects import EVENTS_STREAM, events_of_job
from services.contracts.words import EventKind
from services.gateway.events.hub import Hub, LiveEvent, Subscription, live_event
from services.gateway.events.position import BadPositionError, Position
from services.jobs.eventlog import EventLog, LoggedEvent
from services.runtime.jetstream import Bus, StreamPosition
from services.runtime.postgres import StoreUnavailableError

PAGE = 500
LOOK_SECONDS = 5.0
"""Durable events that nobody published (the scheduler is away) are found by looking into Postgres this often."""
LOOK_WITHOUT_NATS_SECONDS = 1.0
GAP = "gap"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the stream. ``data``: one line of JSON."""

    position: Position
    kind: str
    data: bytes

    def encoded(self) -> bytes:
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(self.position).encode(), self.kind.encode(), self.data)


Frames = AsyncGenerator[Frame, None]


class Feed:
    """``subscription``: the job's, made before this. ``begin``: where the watcher was; None: at the first event."""

    def __init__(
        self, job_id: UUID, begin: Position | None, *, subscription: Subscription, log: EventLog, bus: Bus, hub: Hub
    ) -> None:
        self._job_id = job_id
        self._at = begin or Position()
        self._subscription = subscription
        self._log = log
        self._bus = bus
        self._hub = hub
        self._had_finished = False
        self._looked = 0.0
        self._was_connected = False

    async def check(self) -> None:
        """Raises ``BadPositionError`` where the watcher says that it saw an event which there is not."""
        if self._at.number == 0:
            return
        events = await self._log.after(self._job_id, self._at.number - 1, most=1)
        if not events:
            raise BadPositionError
        last = events[0]
        self._had_finished = last.number == self._at.number and last.kind is EventKind.JOB_FINISHED

    async def frames(self) -> AsyncGenerator[Frame | None, None]:
        """Everything behind the watcher's place until the job has finished; None in quiet moments.

        Raises ``SubscriptionEndedError``, ``StoreUnavailableError``, ``BusUnavailableError``: the stream must
        end then, and the watcher can go on at the last position it was sent.
        """
        if self._had_finished:
            return
        async with aclosing(self._everything()) as everything:
            async for frame in everything:
                yield frame
                if frame is not None and frame.kind == EventKind.JOB_FINISHED:
                    return

    async def _everything(self) -> AsyncGenerator[Frame | None, None]:
        async for frame in self._missed():
            yield frame
        self._looked = _now()
        self._was_connected = await self._hub.is_connected()
        while True:
            async for news in self._news():
                yield news

    async def _missed(self) -> Frames:
        here = await self._hub.position()
        if here is not None and self._is_kept(here):
            async for frame in self._from_stream(here):
                yield frame
            return
        if here is not None:
            self._at = self._at.out_of_stream()
        async for frame in self._from_log(caught_up=here):
            yield frame

    def _is_kept(self, here: StreamPosition) -> bool:
        is_there = here.first_sequence - 1 <= self._at.sequence <= here.last_sequence
        return self._at.incarnation == here.incarnation and is_there

    async def _from_stream(self, here: StreamPosition) -> Frames:
        subject = events_of_job(str(self._job_id))
        messages = self._bus.read(EVENTS_STREAM, subject, after=self._at.sequence, until=here.last_sequence)
        async for message in messages:
            event = live_event(message)
            if event is None:
                continue
            async for frame in self._take(event):
                yield frame

    async def _news(self) -> AsyncGenerator[Frame | None, None]:
        """What comes next; None where nothing does for a second."""
        event = await self._subscription.next(timeout_seconds=LOOK_WITHOUT_NATS_SECONDS)
        if event is None:
            yield None
        else:
            async for frame in self._take(event):
                yield frame
        if await self._is_time_to_look():
            async for frame in self._look():
                yield frame

    async def _is_time_to_look(self) -> bool:
        was_connected, self._was_connected = self._was_connected, await self._hub.is_connected()
        interval = LOOK_SECONDS if self._was_connected else LOOK_WITHOUT_NATS_SECONDS
        # What was published while NATS came back may have been missed: look at once.
        return was_connected != self._was_connected or _now() >= self._looked + interval

    async def _look(self) -> Frames:
        self._looked = _now()
        try:
            async for frame in self._from_log():
                yield frame
        except StoreUnavailableError:
            return  # live events go on, and the next look is soon

    async def _take(self, event: LiveEvent) -> Frames:
        """``event``, after whatever durable ones should have come before it; nothing where it was sent already."""
        if event.number > self._at.number + 1:
            async for frame in self._from_log():
                yield frame
            for gap in self._gap_before(event.number):
                yield gap
        passed = self._at.has_passed(event.incarnation, event.sequence)
        is_new = event.number > self._at.number if event.number else not passed
        if is_new or not passed:
            self._at = self._at.in_stream(event.incarnation, event.sequence)
        if is_new:
            # That it follows without a hole shows that all before it was heard: no need to look soon.
            self._looked = _now() if event.number else self._looked
            yield self._frame(event.number, event.kind, event.data)

    async def _from_log(self, *, caught_up: StreamPosition | None = None) -> Frames:
        """What Postgres has behind the watcher's place.

        ``caught_up``: a place in the stream, known before this, that the watcher has reached with the last of it:
        what was published before it was committed before it, so it is in what is read here.
        """
        while True:
            page = await self._log.after(self._job_id, self._at.number, most=PAGE)
            is_last = len(page) < PAGE
            for event in page:
                for gap in self._gap_before(event.number):
                    yield gap
                if caught_up is not None and is_last and event is page[-1]:
                    self._at = self._at.in_stream(caught_up.incarnation, caught_up.last_sequence)
                yield self._logged(event)
            if is_last:
                break
        if caught_up is not None:
            self._at = self._at.in_stream(caught_up.incarnation, caught_up.last_sequence)

    def _gap_before(self, number: int) -> list[Frame]:
        """Says which durable events are nowhere any more: never silence."""
        if number <= self._at.number + 1:
            return []
        missed = {"jobId": str(self._job_id), "missedFrom": self._at.number + 1, "missedTo": number - 1}
        return [self._frame(number - 1, GAP, orjson.dumps(missed))]

    def _logged(self, event: LoggedEvent) -> Frame:
        return self._frame(event.number, event.kind, event.encoded())

    def _frame(self, number: int, kind: str, data: bytes) -> Frame:
        """``number``: 0 for a delta, whose id repeats the last durable number."""
        if number:
            self._at = self._at.at_number(number)
        return Frame(self._at, kind, data)


def _now() -> float:
    return asyncio.get_running_loop().time()
