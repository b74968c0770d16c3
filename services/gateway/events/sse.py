"""Server-sent events over HTTP: frames are written, kept alive and given up on when a client does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from services.gateway.events.feed import Frame
from services.gateway.events.hub import SubscriptionEndedError
from services.runtime.jetstream import BusUnavailableError
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.sse")

KEEP_ALIVE_SECONDS = 10.0
"""Clients count on a comment at least every 15 s."""
WRITE_SECONDS = 10.0
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_OPENING = b"retry: 1000\n\n"
_COMMENT = b": keep-alive\n\n"


async def serve(request: web.Request, frames: AsyncGenerator[Frame | None, None]) -> web.StreamResponse:
    """Send ``frames`` until they end; every end but that of the job itself is one that can be resumed."""
    response = web.StreamResponse(headers=HEADERS)
    response.content_type = "text/event-stream"
    response.charset = "utf-8"
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await _write(response, _OPENING)
        await _pump(request, response, frames)
    except (SubscriptionEndedError, StoreUnavailableError, BusUnavailableError) as error:
        log.info("event stream ends early, to be resumed", reason=str(error) or type(error).__name__)
    except TimeoutError:
        log.info("event stream is cut: the client does not read")
        _abort(request)
    except ConnectionError:
        pass  # the client has left: aiohttp's word for it is a ConnectionError
    except Exception:
        # The answer has begun: it can only be broken off, so that nobody takes this for the job's end.
        log.exception("event stream failed")
        _abort(request)
    return response


async def _pump(request: web.Request, response: web.StreamResponse, frames: AsyncGenerator[Frame | None, None]) -> None:
    wrote = _now()
    async with aclosing(frames):
        async for frame in frames:
            if frame is not None:
                await _write(response, frame.encoded())
            elif request.transport is None:
                return  # the client has left
            elif _now() - wrote >= KEEP_ALIVE_SECONDS:
                await _write(response, _COMMENT)
            else:
                continue
            wrote = _now()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Raises ``TimeoutError`` where the client takes nothing for 10 s."""
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
