"""Events as they happen: of one job, and of all of a client's jobs."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from services.contracts.words import EventKind
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.events.client_feed import ClientFeed
from services.gateway.events.feed import Feed
from services.gateway.events.live import ALL, Wanted
from services.gateway.events.position import BadPositionError, Position
from services.gateway.events.sse import serve
from services.gateway.operations import Answer, Header, Operation
from services.gateway.problems import FieldProblemError
from services.gateway.query import EventsQuery, read_id, read_query


class WatchQuery(EventsQuery):
    repeatable = frozenset({"kind"})

    kind: list[EventKind] | None = Field(
        None, description="only events of these kinds; repeat it, or separate them by commas"
    )
    deltas: bool = Field(default=True, description="false: durable events alone")

    @property
    def wanted(self) -> Wanted:
        return Wanted(frozenset(self.kind or ()), self.deltas) if self.kind or not self.deltas else ALL


class WatchAllQuery(WatchQuery):
    after: Annotated[int, Field(ge=0, lt=10**18)] | None = Field(
        None, description="begin behind this place over all jobs: 0 for all that is kept; without it: now"
    )


async def job_events(request: web.Request) -> web.StreamResponse:
    """From the first event on, or from behind `Last-Event-ID`, until the job has finished."""
    gateway = gateway_of(request)
    job_id, query = read_id(request, "job"), read_query(request, WatchQuery)
    field, text = _last_event_id(request, query)
    await gateway.reading.job(request[CLIENT], job_id)
    # Subscribed before anything is read: what happens meanwhile waits in memory.
    with gateway.hub.subscribe(str(job_id)) as subscription:
        try:
            feed = Feed(
                job_id,
                Position.parse(text) if text else None,
                subscription=subscription,
                log=gateway.log,
                bus=gateway.bus,
                hub=gateway.hub,
                wanted=query.wanted,
            )
            await feed.check()
        except BadPositionError as error:
            raise FieldProblemError(field, str(error)) from error
        return await serve(request, feed, subscription)


async def all_events(request: web.Request) -> web.StreamResponse:
    """From now on, or from behind `Last-Event-ID` or `after`, for ever."""
    gateway, client_id = gateway_of(request), request[CLIENT].id
    query = read_query(request, WatchAllQuery)
    with gateway.hub.subscribe_client(client_id, gateway.log) as subscription:
        field, begin = _begin(request, query)
        feed = ClientFeed(
            client_id,
            begin,
            subscription=subscription,
            log=gateway.log,
            bus=gateway.bus,
            hub=gateway.hub,
            wanted=query.wanted,
        )
        try:
            await feed.check(await gateway.log.newest())
        except BadPositionError as error:
            raise FieldProblemError(field, str(error)) from error
        return await serve(request, feed, subscription, begin=feed.position)


def _begin(request: web.Request, query: WatchAllQuery) -> tuple[str, Position | None]:
    """What to call it in an error, and where to begin; None: now."""
    field, text = _last_event_id(request, query)
    if not text:
        return "after", Position(query.after) if query.after is not None else None
    try:
        return field, Position.parse(text)
    except BadPositionError as error:
        raise FieldProblemError(field, str(error)) from error


def _last_event_id(request: web.Request, query: EventsQuery) -> tuple[str, str]:
    """What to call it in an error, and its value; empty: none was given."""
    header = request.headers.get("Last-Event-ID", "")
    return ("Last-Event-ID", header) if header else ("lastEventId", query.last_event_id or "")


_LAST_EVENT_ID = Header("Last-Event-ID", "the id of the last message seen: go on behind it, without gap or repeat")
_FRAMES = "server-sent events: each `event` is the kind, each `data` one event as JSON. "
_GAPS = "`gap` names durable events that are no longer kept."

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        name="watchAll",
        summary="Watch all jobs: their events as they happen, without end",
        handler=all_events,
        query=WatchAllQuery,
        headers=(_LAST_EVENT_ID,),
        answers=(
            Answer(
                200,
                f"{_FRAMES}An id begins with the event's place over all jobs; places left out are other clients'. "
                f"A stream that ends is to be taken up again with `Last-Event-ID`; {_GAPS}",
                media_type="text/event-stream",
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{id}/events",
        name="watchJob",
        summary="Watch a job: its events as they happen, until it has finished",
        handler=job_events,
        query=WatchQuery,
        headers=(_LAST_EVENT_ID,),
        answers=(
            Answer(
                200,
                f"{_FRAMES}A stream that ends before `job.finished` is to be taken up again with `Last-Event-ID`; "
                f"{_GAPS}",
                media_type="text/event-stream",
            ),
        ),
    ),
)
