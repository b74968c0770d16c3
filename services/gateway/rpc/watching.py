"""A job's events as a stream of messages: the frames of the event feed, typed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from google.protobuf.json_format import Parse, ParseError

from services.contracts.v1.events_pb2 import Event
from services.contracts.v1.jobs_pb2 import Gap, WatchedEvent, WatchJobRequest
from services.gateway.context import Gateway
from services.gateway.events.feed import GAP, Feed, Frame
from services.gateway.events.position import Position
from services.gateway.rpc.messages import read_id
from services.jobs.models import Client
from services.runtime.telemetry import logger

log = logger("gateway.rpc")


async def watch(gateway: Gateway, client: Client, request: WatchJobRequest) -> AsyncGenerator[WatchedEvent, None]:
    """From the first event on, or from behind the last position, until the job has finished.

    Raises ``NotFoundError``, ``BadPositionError``, and as ``Feed.frames`` does where it is to be taken up again.
    """
    job_id = read_id(request.job_id, "job")
    await gateway.reading.job(client, job_id)
    # Subscribed before anything is read: what happens meanwhile waits in memory.
    with gateway.hub.subscribe(str(job_id)) as subscription:
        begin = Position.parse(request.last_position) if request.last_position else None
        feed = Feed(job_id, begin, subscription=subscription, log=gateway.log, bus=gateway.bus, hub=gateway.hub)
        await feed.check()
        async with aclosing(feed.frames()) as frames:
            async for frame in frames:
                if (watched := _watched(frame)) is not None:
                    yield watched


def _watched(frame: Frame) -> WatchedEvent | None:
    """None where the frame is none of ours: only a stranger on the event stream can have sent it."""
    position = str(frame.position)
    if frame.kind == GAP:
        missed = orjson.loads(frame.data)
        return WatchedEvent(position=position, gap=Gap(missed_from=missed["missedFrom"], missed_to=missed["missedTo"]))
    try:
        # A newer process may tell more than this one knows.
        return WatchedEvent(position=position, event=Parse(frame.data, Event(), ignore_unknown_fields=True))
    except ParseError as error:
        log.warning("an event of the stream cannot be read, and is left out", position=position, error=str(error))
        return None
