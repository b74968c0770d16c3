"""Server-sent events over HTTP: frames are written, kept alive and given up on when a client does not read."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import aclosing

from aiohttp import HttpVersion11, web

from services.gateway.events.feed import EventFeed
from services.gateway.events.live import LiveEvent, chunked
from services.gateway.events.position import Position
from services.gateway.events.subscription import Subscription, SubscriptionEndedError
from services.runtime.jetstream import BusUnavailableError
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.sse")

KEEP_ALIVE_SECONDS = 10
"""Clients count on a comment at least every 15 s."""
WRITE_SECONDS = 10
MOST_UNSENT_BYTES = 64 * 1024
"""What one socket's buffer in this process may hold before events wait in the subscription, which is bounded."""
KERNEL_BYTES = 128 * 1024
"""Asked of the kernel, which would buffer 4 MiB for a client that does not read; Linux gives twice as much."""
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY = b"retry: 1000\n"
_COMMENT = b": keep-alive\n\n"
_NO_LINGER = struct.pack("ii", 1, 0)


class _Socket:
    """Takes live events straight to the client: no task wakes up for them."""

    __slots__ = ("_feed", "_is_chunked", "_quiet_seconds", "_stuck_seconds", "_transport", "_unsent")

    def __init__(self, feed: EventFeed, transport: asyncio.Transport, *, is_chunked: bool) -> None:
        self._feed = feed
        self._transport = transport
        self._is_chunked = is_chunked
        self._quiet_seconds = 0
        self._stuck_seconds = 0
        self._unsent = 0

    def take(self, event: LiveEvent) -> bool:
        """False where the client has not taken what was before, or something is to be looked up first."""
        if self._transport.is_closing():
            return False  # the task finds that its client has left; to write now would raise
        if self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES or not self._feed.follows(event):
            return False
        frame = self._feed.place(event)
        if frame is not None:
            self._transport.write(frame.chunk() if self._is_chunked else frame.encoded())
            self._quiet_seconds = 0
        return True

    def tick(self) -> bool:
        if self._transport.is_closing():
            return False
        if self._is_stuck():
            _cut(self._transport)
            return False
        self._quiet_seconds += 1
        if self._quiet_seconds >= KEEP_ALIVE_SECONDS and not self._unsent:
            self._transport.write(chunked(_COMMENT) if self._is_chunked else _COMMENT)
            self._quiet_seconds = 0
        return True

    def _is_stuck(self) -> bool:
        """Whether something waits, and nothing of it was taken for 10 s."""
        unsent, before = self._transport.get_write_buffer_size(), self._unsent
        self._stuck_seconds = self._stuck_seconds + 1 if unsent and unsent >= before else 0
        self._unsent = unsent
        return self._stuck_seconds > WRITE_SECONDS


async def serve(
    request: web.Request,
    feed: EventFeed,
    subscription: Subscription,
    *,
    begin: Position | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send all of ``feed`` until it ends; every end but its own is one that can be resumed.

    ``begin``: told first, so that who gets no event can still resume; None: such a one begins anew.
    ``headers``: of the answer, beside those of every stream.
    """
    is_chunked = request.version >= HttpVersion11
    if request.method != "HEAD":
        await feed.begin()
    response = await _opened(request, {**HEADERS, **(headers or {})}, is_chunked=is_chunked)
    transport = request.transport
    if request.method == "HEAD" or transport is None:
        return response
    try:
        _bound(transport)
        await _write(response, _opening(begin))
        subscription.sink = _Socket(feed, transport, is_chunked=is_chunked)
        async with aclosing(feed.frames()) as frames:
            async for frame in frames:
                await _write(response, frame.encoded())
    except (SubscriptionEndedError, StoreUnavailableError, BusUnavailableError) as error:
        if not transport.is_closing():
            log.info("event stream ends early, to be resumed", reason=str(error) or type(error).__name__)
    except TimeoutError:
        _cut(transport)
    except ConnectionError:
        pass  # the client has left: aiohttp's word for it is a ConnectionError
    except Exception:
        # The answer has begun: it can only be broken off, so that nobody takes this for the job's end.
        log.exception("event stream failed")
        transport.abort()
    return response


async def _opened(request: web.Request, headers: Mapping[str, str], *, is_chunked: bool) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    if is_chunked:
        response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def _bound(transport: asyncio.Transport) -> None:
    """So that a client that does not read is noticed, and not buffered for."""
    transport.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)


def _opening(begin: Position | None) -> bytes:
    return _RETRY + (b"id: %b\n\n" % str(begin).encode() if begin else b"\n")


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises ``TimeoutError`` where the client takes nothing for 10 s."""
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)


def _cut(transport: asyncio.Transport) -> None:
    """At once: otherwise the kernel would go on for minutes to offer the client what it has of ours."""
    log.info("event stream is cut: the client does not read")
    connection = transport.get_extra_info("socket")
    if connection is not None and not transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()
