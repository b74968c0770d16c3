"""A session as server-sent events: its job's stream, which can be broken off anywhere, in the Worker's words."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from aiohttp import web

from services.contracts.rest import Run
from services.contracts.words import EventKind
from services.gateway.auth import CLIENT
from services.gateway.context import Gateway, gateway_of
from services.gateway.dialects.worker.frames import Addresses, Told, end_of, gap_of, told_of
from services.gateway.dialects.worker.models import now
from services.gateway.dialects.worker.places import Place
from services.gateway.dialects.worker.sessions import Session
from services.gateway.dialects.worker.surroundings import headers_of
from services.gateway.events.feed import GAP, Feed, Frame, Frames
from services.gateway.events.live import LiveEvent, found_event
from services.gateway.events.position import BadPositionError, Position
from services.gateway.events.sse import serve
from services.gateway.events.subscription import Subscription
from services.gateway.problems import FieldProblemError
from services.jobs.errors import NotCancellableError
from services.jobs.models import Client
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.worker")

SESSION_HEADER = "X-Session-Id"


class SessionFeed(Feed):
    """``begin``: None for all of it.

    What the model writes comes faster than the word that its turn has begun, and is held until that is told. An id
    given out meanwhile is of a place before what is held.
    """

    def __init__(
        self,
        session: Session,
        begin: Place | None,
        *,
        addresses: Addresses,
        subscription: Subscription,
        gateway: Gateway,
        client: Client,
    ) -> None:
        super().__init__(
            session.job_id, begin, subscription=subscription, log=gateway.log, bus=gateway.bus, hub=gateway.hub
        )
        self._session = session
        self._addresses = addresses
        self._reading = gateway.reading
        self._client = client
        self._begins_anew = begin is None
        self._turn = begin.turn if begin else 0
        self._held: deque[tuple[Position, Told]] = deque()

    def is_over(self) -> bool:
        """Whether there is nothing behind the watcher's place, and will not be."""
        return self._has_ended

    def follows(self, event: LiveEvent) -> bool:
        return super().follows(event) and not (self._held and event.kind == EventKind.TURN_STARTED)

    def place(self, event: LiveEvent) -> Frame | None:
        native = super().place(event)
        if native is None or native.kind == EventKind.JOB_FINISHED:
            return native
        told = told_of(native, self._session, self._addresses)
        if told is None:
            return None
        if native.kind == EventKind.TURN_STARTED:
            self._turn = max(self._turn, told.turn)
        elif not event.number and (self._held or told.turn > self._turn):
            self._held.append((native.position, told))
            return None
        return self._frame(self._held_from(native.position), told)

    def _held_from(self, position: Position) -> Position:
        """``position``, but in the stream no further than before what is held."""
        if not self._held:
            return position
        first, _ = self._held[0]
        return position.in_stream(first.incarnation, first.sequence - 1)

    def _frame(self, position: Position, told: Told) -> Frame:
        place = Place(position.number, position.incarnation, position.sequence, self._turn)
        return Frame(place, told.name, told.data)

    def _released(self) -> Iterator[Frame]:
        while self._held and self._held[0][1].turn <= self._turn:
            position, told = self._held.popleft()
            yield self._frame(position.at_number(self._at.number), told)

    async def frames(self) -> AsyncGenerator[Frame, None]:
        async with aclosing(super().frames()) as frames:
            async for frame in frames:
                if frame.kind == EventKind.JOB_FINISHED:
                    told = end_of(frame, self._session, await self._run(), self._addresses)
                    yield self._frame(frame.position, told)
                elif frame.kind == GAP:
                    yield self._frame(self._held_from(frame.position), gap_of(frame, now()))
                else:
                    yield frame
                    for each in self._released():
                        yield each

    async def _missed(self) -> Frames:
        """Who begins anew reads the stream of NATS from its start: what the model wrote is in it alone."""
        here = await self._hub.position() if self._begins_anew else None
        if here is not None:
            self._at = Position(0, here.incarnation, max(here.first_sequence - 1, 0))
        async with aclosing(super()._missed()) as missed:
            async for frame in missed:
                yield frame
        if here is not None and self._at.number == 0:
            # Nothing of it was published yet. Its first event alone: between later ones there may be what is not here.
            for event in await self._log.after(self._job_id, 0, most=1):
                if (placed := self.place(found_event(event))) is not None:
                    yield placed

    async def _run(self) -> Run | None:
        runs = (await self._reading.runs(self._client, self._session.job_id, limit=1, cursor=None)).items
        return runs[0] if runs else None


async def stream(
    request: web.Request, session: Session, *, addresses: Addresses, after: str = "", field: str = ""
) -> web.StreamResponse:
    """All of ``session``, or what is behind the id ``after``, which came as ``field``, until it has ended.

    204 where nothing is left, so that a browser's EventSource does not come back. Raises ``ProblemError``.
    """
    gateway, headers = gateway_of(request), {SESSION_HEADER: session.id}
    # Subscribed before anything is read: what happens meanwhile waits in memory.
    with gateway.hub.subscribe(str(session.job_id)) as subscription:
        try:
            feed = SessionFeed(
                session,
                Place.parse(after) if after else None,
                addresses=addresses,
                subscription=subscription,
                gateway=gateway,
                client=request[CLIENT],
            )
            await feed.check()
        except BadPositionError as error:
            raise FieldProblemError(field, str(error)) from error
        if feed.is_over():
            return web.Response(status=204, headers=headers)
        response = await serve(request, feed, subscription, headers={**headers, **headers_of(request)})
    if session.is_cancelled_alone and not feed.is_over() and _has_left(request):
        await _cancel(gateway, request[CLIENT], session)
    return response


def _has_left(request: web.Request) -> bool:
    """Also where the client was cut off since it did not read; not where this process stops."""
    return request.transport is None or request.transport.is_closing()


async def _cancel(gateway: Gateway, client: Client, session: Session) -> None:
    try:
        await gateway.cancelling.request(client, session.job_id)
    except (NotCancellableError, StoreUnavailableError) as error:
        log.info("a session goes on without its client", job=str(session.job_id), reason=str(error))
    else:
        gateway.commands.cancel_requested(session.job_id)
