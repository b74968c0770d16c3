"""Reads a stream of events as a client on the wire sees it; waits with deadlines."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

ALL = "/v1/events"
STEP_SECONDS = 20.0


@dataclass
class Watcher:
    """One connection to a stream of events."""

    _messages: AsyncIterator[ServerSentEvent]
    last_id: str = ""

    async def take(self, count: int) -> list[str]:
        """The next ``count`` events, in brief."""
        return [await self._next() for _ in range(count)]

    async def rest(self) -> list[str]:
        """All events until the stream ends."""
        found = []
        try:
            while True:
                found.append(await self._next())
        except StopAsyncIteration:
            return found

    async def opening(self) -> str:
        """The id that the stream begins with, before any event."""
        async with asyncio.timeout(STEP_SECONDS):
            message = await anext(self._messages)
        assert not message.data
        self.last_id = message.id
        return self.last_id

    async def _next(self) -> str:
        async with asyncio.timeout(STEP_SECONDS):
            message = await anext(self._messages)
            while not message.data:
                message = await anext(self._messages)
        self.last_id = message.id
        return brief(message.event, json.loads(message.data))


def brief(kind: str, event: dict[str, Any]) -> str:
    """`log:TEXT`, `delta:TEXT`, `gap:FROM-TO`, or the kind alone."""
    if kind == "gap":
        return f"gap:{event['missedFrom']}-{event['missedTo']}"
    assert event["kind"] == kind
    if kind == "delta":
        return f"delta:{event['delta']['text']}"
    return f"log:{event['log']['message']}" if kind == "log" else kind


@asynccontextmanager
async def watching(client: httpx.AsyncClient, job_id: str, after: str = "", **query: Any) -> AsyncIterator[Watcher]:
    """One job. Leaving the context cuts the connection."""
    async with _open(client, f"/v1/jobs/{job_id}/events", after, query) as watcher:
        yield watcher


@asynccontextmanager
async def watching_all(client: httpx.AsyncClient, last_id: str = "", **query: Any) -> AsyncIterator[Watcher]:
    """All jobs of the client; where it begins is behind us. Leaving the context cuts the connection."""
    async with _open(client, ALL, last_id, query) as watcher:
        await watcher.opening()
        yield watcher


@asynccontextmanager
async def _open(client: httpx.AsyncClient, path: str, last_id: str, query: dict[str, Any]) -> AsyncIterator[Watcher]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.stream("GET", path, headers=headers, params=query) as answer:
        if answer.status_code != 200:
            await answer.aread()
        assert answer.status_code == 200, answer.text
        yield Watcher(EventSource(answer).aiter_sse())
