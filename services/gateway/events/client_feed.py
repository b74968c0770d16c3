"""What a watcher of all of a client's jobs is sent: one stream without end, in the one order over all jobs.

A hole in that order is another client's event; what is not kept any more is told as a gap.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import orjson

from services.contracts.subjects import ALL_EVENTS, EVENTS_STREAM
from services.gateway.events.feed import GAP, PAGE, EventFeed, Frame, Frames
from services.gateway.events.hub import Hub
from services.gateway.events.live import ALL, LiveEvent, Wanted, client_of, found_event, live_event, order_of
from services.gateway.events.position import NOWHERE, BadPositionError, Position
from services.gateway.events.subscription import Subscription
from services.jobs.eventlog import EventLog, Page
from services.jobs.unit import SQL
from services.runtime.jetstream import Bus, StreamPosition, Tailed
from services.runtime.postgres import Statements

MOST_REREAD = 10_000
"""Messages of all clients that are read again for one who comes back; one who was away for more gets no deltas."""

_STATEMENTS = Statements(SQL / "reading.sql")


class ClientFeed(EventFeed):
    """``begin``: None for what happens from now on."""

    def __init__(
        self,
        client_id: UUID,
        begin: Position | None,
        *,
        subscription: Subscription,
        log: EventLog,
        bus: Bus,
        hub: Hub,
        wanted: Wanted = ALL,
    ) -> None:
        super().__init__(begin or Position(), subscription=subscription, log=log, bus=bus, hub=hub, wanted=wanted)
        self._client_id = client_id
        self._begins_now = begin is None

    async def check(self, newest: int) -> None:
        """Find where to begin. ``newest``: as ``EventLog.newest`` has it, asked after the subscription was made.

        Raises ``BadPositionError`` where the watcher says that it saw an event which there is not.
        """
        if self._at.number > newest:
            raise BadPositionError
        if self._begins_now:
            here = await self._hub.position()
            self._at = Position(newest, here.incarnation, here.last_sequence) if here else Position(newest)

    def follows(self, event: LiveEvent) -> bool:
        return event.heard_from <= self._at.number

    def place(self, event: LiveEvent) -> Frame | None:
        at = self._at
        has_passed = event.incarnation == NOWHERE or at.has_passed(event.incarnation, event.sequence)
        is_new = event.order > at.number if event.order else not has_passed
        number = max(at.number, event.heard_to)
        if has_passed and not is_new:
            self._at = at.at_number(number) if number > at.number else at
            self._subscription.reached = number
            return None
        frame = self._moved(event, number)
        return frame if is_new and event.data and self._wanted.takes(event.kind, event.number) else None

    async def _take(self, event: LiveEvent) -> Frames:
        if not self.follows(event):
            async for frame in self._from_log():
                yield frame
        placed = self.place(event)
        if placed is not None:
            yield placed

    def _is_kept(self, here: StreamPosition) -> bool:
        return super()._is_kept(here) and here.last_sequence - self._at.sequence <= MOST_REREAD

    async def _stream(self, here: StreamPosition) -> AsyncIterator[LiveEvent]:
        messages = self._bus.read(EVENTS_STREAM, ALL_EVENTS, after=self._at.sequence, until=here.last_sequence)
        async for message in messages:
            event = await self._of_client(message)
            if event is not None:
                yield event

    async def _of_client(self, message: Tailed) -> LiveEvent | None:
        """The event, or only how far its being read has come where it is another client's."""
        order = order_of(message.headers)
        owner = client_of(message.headers) or await self._hub.owner_of(message.subject.split(".")[2])
        event = live_event(message) if owner == str(self._client_id) else None
        if event is None or (event.number and not order):
            event = LiveEvent(0, "", b"", message.incarnation, message.sequence)
        event.order, event.heard_from, event.heard_to = order, max(order - 1, 0), order
        return event

    async def _look(self, number: int) -> Sequence[LiveEvent]:
        """What Postgres has behind ``number``, and last of all how far that goes."""
        through = self._hub.heard(number)
        while True:
            page = await self._log.published_after(self._client_id, through, most=PAGE)
            through = page.through
            if page.events or page.is_last:
                break
        found = [found_event(event) for event in page.events]
        for event in found:
            event.heard_from, event.heard_to = number, event.order
        return [*found, LiveEvent(0, "", b"", NOWHERE, 0, heard_from=number, heard_to=through)]

    async def _from_log(self, *, caught_up: StreamPosition | None = None) -> Frames:
        while True:
            page = await self._log.published_after(self._client_id, self._at.number, most=PAGE)
            for gap in await self._gap_before(page):
                yield gap
            for event in page.events:
                number = event.sequence or 0
                if caught_up is not None and page.is_last and event is page.events[-1]:
                    self._at = self._at.in_stream(caught_up.incarnation, caught_up.last_sequence)
                    number = page.through
                self._at = self._at.at_number(number)
                if self._wanted.takes(event.kind, event.number):
                    yield Frame(self._at, event.kind, event.encoded())
            self._at = self._at.at_number(max(page.through, self._at.number))
            if page.is_last:
                break
        if caught_up is not None:
            self._at = self._at.in_stream(caught_up.incarnation, caught_up.last_sequence)

    async def _gap_before(self, page: Page) -> list[Frame]:
        """Says where durable events are nowhere any more, this client's perhaps among them: never silence.

        Asked after the page was read: what it has was still there.
        """
        missed_from = self._at.number + 1
        if page.events and page.events[0].sequence == missed_from:
            return []
        first = await self._log.first_kept()
        kept_from = page.through + 1 if first is None else first
        if page.events:
            kept_from = min(kept_from, page.events[0].sequence or kept_from)
        if kept_from <= missed_from:
            return []
        self._at = self._at.at_number(kept_from - 1)
        return [Frame(self._at, GAP, orjson.dumps({"missedFrom": missed_from, "missedTo": kept_from - 1}))]
