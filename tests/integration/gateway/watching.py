"""Reads a job's event stream as a client on the wire sees it; waits with deadlines."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

STEP_SECONDS = 10.0


@dataclass
class Watcher:
    """One connection to a job's events."""

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
async def watching(client: httpx.AsyncClient, job_id: str, after: str = "") -> AsyncIterator[Watcher]:
    """Leaving the context cuts the connection."""
    headers = {"Last-Event-ID": after} if after else {}
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
        assert answer.status_code == 200, answer.text
        yield Watcher(EventSource(answer).aiter_sse())
