"""A job's events as they happen."""

from __future__ import annotations

from aiohttp import web

from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.events.feed import Feed
from services.gateway.events.position import BadPositionError, Position
from services.gateway.events.sse import serve
from services.gateway.operations import Answer, Header, Operation
from services.gateway.problems import FieldProblemError
from services.gateway.query import EventsQuery, read_id, read_query


async def job_events(request: web.Request) -> web.StreamResponse:
    """From the first event on, or from behind `Last-Event-ID`, until the job has finished."""
    gateway = gateway_of(request)
    job_id = read_id(request, "job")
    field, text = _last_event_id(request)
    await gateway.reading.job(request[CLIENT], job_id)
    # Subscribed before anything is read: what happens meanwhile waits in memory.
    with gateway.hub.subscribe(str(job_id)) as subscription:
        try:
            begin = Position.parse(text) if text else None
            feed = Feed(job_id, begin, subscription=subscription, log=gateway.log, bus=gateway.bus, hub=gateway.hub)
            await feed.check()
        except BadPositionError as error:
            raise FieldProblemError(field, str(error)) from error
        return await serve(request, feed.frames())


def _last_event_id(request: web.Request) -> tuple[str, str]:
    """What to call it in an error, and its value; empty: none was given."""
    query = read_query(request, EventsQuery)
    header = request.headers.get("Last-Event-ID", "")
    return ("Last-Event-ID", header) if header else ("lastEventId", query.last_event_id or "")


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/jobs/{id}/events",
        name="watchJob",
        summary="Watch a job: its events as they happen, until it has finished",
        handler=job_events,
        query=EventsQuery,
        headers=(Header("Last-Event-ID", "the id of the last message seen: go on behind it, without gap or repeat"),),
        answers=(
            Answer(
                200,
                "server-sent events: each `event` is the kind, each `data` one event as JSON. A stream that ends "
                "before `job.finished` is to be taken up again with `Last-Event-ID`; `gap` names durable events "
                "that are no longer kept.",
                media_type="text/event-stream",
            ),
        ),
    ),
)
