"""Asks Claude for one reply, streaming; retries whole requests and throws partial replies away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Protocol

import httpx2
import orjson
from pydantic import SecretStr

from services.agent.model.reply import Assembly, Fragment, Reply
from services.agent.model.retry import Patience, retrying
from services.agent.model.sdk import anthropic

# No byte for so long: the stream is dead, whatever the connection says.
_SILENCE_SECONDS = 120.0
_CONNECT_SECONDS = 10.0
_MOST_CONNECTIONS = 1_000
_MOST_CLIENTS = 256
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and with which key. ``base_url``: None: the service's usual address."""

    api_key: SecretStr
    base_url: str | None = None


class Pace(Protocol):
    """Keeps the whole fleet to what the model service takes."""

    async def permit(self, endpoint: Endpoint) -> None:
        """Return when a request may be sent."""

    async def throttled(self, endpoint: Endpoint, asked: timedelta) -> None:
        """The service said that it has too many requests; ``asked``: its `retry-after`, else zero."""


class FreePace:
    """Lets everything go at once."""

    async def permit(self, endpoint: Endpoint) -> None: ...

    async def throttled(self, endpoint: Endpoint, asked: timedelta) -> None: ...


@dataclass(frozen=True)
class Watch:
    """What the asker wants to know while the reply is on its way."""

    on_fragment: Callable[[Fragment], None]
    """Gets the pieces as they come."""
    on_reset: Callable[[str], Awaitable[None]]
    """Gets the reason where those so far are void."""
    interrupt: asyncio.Event | None
    """Set by the asker: what there is of the reply is the reply. None: it never interrupts."""


class Claude:
    """One per process: its connections are shared by all runs."""

    def __init__(self, *, patience: Patience | None = None, pace: Pace | None = None) -> None:
        self._patience = patience or Patience()
        self._pace = pace or FreePace()
        self._http = anthropic.DefaultAsyncHttpxClient(
            timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_CONNECTIONS),
            follow_redirects=False,  # a key goes to the address that was allowed, and nowhere else
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none: what one key was given is not another's
        )
        self._client_of = lru_cache(_MOST_CLIENTS)(self._new_client)

    def _new_client(self, endpoint: Endpoint) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            api_key=endpoint.api_key.get_secret_value(),
            base_url=endpoint.base_url,
            max_retries=0,
            http_client=self._http,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def reply(self, endpoint: Endpoint, body: bytes, watch: Watch) -> Reply:
        """The model's answer to ``body``, an encoded request.

        Raises as ``retrying`` does; when cancelled the stream is closed at once.
        """
        client = self._client_of(endpoint)
        assembly = Assembly(watch.on_fragment)

        async def once() -> Reply:
            nonlocal assembly
            assembly = Assembly(watch.on_fragment)
            async with aclosing(_events(client, body)) as events:
                async for data in events:
                    assembly.feed(_parsed(data))
            return assembly.reply()

        async def thrown_away(reason: str) -> None:
            nonlocal assembly
            assembly = Assembly(watch.on_fragment)  # nothing of it comes back, should the user interrupt the wait
            await watch.on_reset(reason)

        async def all_tries() -> Reply:
            return await retrying(
                once,
                patience=self._patience,
                on_retry=thrown_away,
                on_throttle=lambda asked: self._pace.throttled(endpoint, asked),
                permit=lambda: self._pace.permit(endpoint),
            )

        reply = await (all_tries() if watch.interrupt is None else _unless(watch.interrupt, all_tries()))
        return assembly.interrupted() if reply is None else reply


def _parsed(data: str) -> Any:
    """An event's JSON. Half of a pair of surrogates is legal there, and comes wherever a stream cuts a character."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


async def _events(client: anthropic.AsyncAnthropic, body: bytes) -> AsyncGenerator[str, None]:
    """The data of each server-sent event."""
    async with await client.post(
        "/v1/messages",
        cast_to=object,
        content=body,
        options={"headers": _JSON},
        stream=True,
        stream_cls=anthropic.AsyncStream[object],
    ) as stream:
        async for event in anthropic.AsyncStream.raw_events(stream.response):
            if event.data:
                yield event.data


async def _unless(moment: asyncio.Event, work: Coroutine[Any, Any, Reply]) -> Reply | None:
    """What ``work`` comes to; None where ``moment`` came first, and ``work`` was cancelled."""
    doing = asyncio.create_task(work, name="reply")
    waiting = asyncio.create_task(moment.wait(), name="interrupt")
    try:
        await asyncio.wait([doing, waiting], return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, waiting):
            task.cancel()
        await asyncio.gather(doing, waiting, return_exceptions=True)
