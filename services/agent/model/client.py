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

    async def permit(self, endpoint: Endpoint, *, until: float | None) -> None:
        """Return when a request may be sent. ``until``: when whoever asks is out of time, on the monotonic clock.

        Raises ``PostponedError`` where that is not worth waiting for.
        """

    async def throttled(self, endpoint: Endpoint, asked: timedelta) -> None:
        """The service said that it has too many requests; ``asked``: its `retry-after`, else zero."""


class FreePace:
    """Lets everything go at once."""

    async def permit(self, endpoint: Endpoint, *, until: float | None) -> None: ...

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


@dataclass(frozen=True)
class Request:
    """What is to be asked, in as many tries as it takes."""

    body: Callable[[], Awaitable[bytes]]
    """Encodes it, anew for each try: what it may come to may have changed. What it raises is final."""
    thrown_away: Callable[[Reply], None]
    """Gets what there was of each reply that comes to nothing, with what that used as far as the service told it."""
    version: str | None = None
    """Of the API. None: the one that the SDK speaks."""
    until: float | None = None
    """When the asker is out of time, on the monotonic clock; None: never."""


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
        client = anthropic.AsyncAnthropic(
            api_key=endpoint.api_key.get_secret_value(),
            base_url=endpoint.base_url,
            max_retries=0,
            http_client=self._http,
        )
        # The SDK takes ANTHROPIC_CUSTOM_HEADERS from the environment whatever it is given, and has no way to refuse
        # them: what the operator has there is not for the services that clients name.
        client._custom_headers = {}  # noqa: SLF001
        return client

    async def close(self) -> None:
        await self._http.aclose()

    async def reply(self, endpoint: Endpoint, request: Request, watch: Watch) -> Reply:
        """The model's answer to ``request``.

        Raises as ``retrying`` does, and what ``request.body`` raises; when cancelled the stream is closed at once.
        """
        client = self._client_of(endpoint)
        assembly = Assembly(watch.on_fragment)

        def throw_away() -> None:
            nonlocal assembly
            void, assembly = assembly, Assembly(watch.on_fragment)
            request.thrown_away(void.interrupted())

        async def once() -> Reply:
            body = await request.body()
            async with aclosing(_events(client, body, request.version)) as events:
                async for data in events:
                    assembly.feed(_parsed(data))
            return assembly.reply()

        async def again(reason: str) -> None:
            throw_away()  # nothing of it comes back, should the user interrupt the wait
            await watch.on_reset(reason)

        async def all_tries() -> Reply:
            return await retrying(
                once,
                patience=self._patience,
                on_retry=again,
                on_throttle=lambda asked: self._pace.throttled(endpoint, asked),
                permit=lambda: self._pace.permit(endpoint, until=request.until),
            )

        try:
            reply = await (all_tries() if watch.interrupt is None else _unless(watch.interrupt, all_tries()))
        except BaseException:  # also where it was cancelled
            throw_away()
            raise
        return assembly.interrupted() if reply is None else reply


def _parsed(data: str) -> Any:
    """An event's JSON. Half of a pair of surrogates is legal there, and comes wherever a stream cuts a character."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


async def _events(client: anthropic.AsyncAnthropic, body: bytes, version: str | None) -> AsyncGenerator[str, None]:
    """The data of each server-sent event. ``version``: of the API, if not the SDK's own."""
    headers = _JSON if version is None else {**_JSON, "anthropic-version": version}
    async with await client.post(
        "/v1/messages",
        cast_to=object,
        content=body,
        options={"headers": headers},
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
