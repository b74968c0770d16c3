"""A Messages server that answers at once and always the same: it notes when each job's first request came."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from quarterdeck.offline_model.stream import events

HOST = "127.0.0.1"
_MARK = re.compile(rb"bench-[0-9a-f]{32}")
_REPLY = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": "bench",
    "content": [
        {
            "type": "tool_use",
            "id": "toolu_bench",
            "name": "task_complete",
            "input": {"summary": "Nothing to do.", "status": "done"},
        }
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
}


class ScriptedModel:
    """Says at every request that the work is over. A prompt holds a mark of its own, `bench-<32 hex>`."""

    def __init__(self) -> None:
        self._reply = b"".join(data for _, data in events(_REPLY))
        self._arrivals: dict[bytes, asyncio.Future[float]] = {}
        self._open = AsyncExitStack()
        self.url = ""

    def expect(self, mark: str) -> asyncio.Future[float]:
        """``time.perf_counter()`` when the first request with ``mark`` came in."""
        arrival: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._arrivals[mark.encode()] = arrival
        return arrival

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/v1/messages", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, HOST, 0).start()
        _, port = runner.addresses[0]
        self.url = f"http://{HOST}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def _answer(self, request: web.Request) -> web.Response:
        came = time.perf_counter()
        found = _MARK.search(await request.read())
        arrival = self._arrivals.pop(found[0], None) if found else None
        if arrival is not None and not arrival.done():
            arrival.set_result(came)
        return web.Response(body=self._reply, content_type="text/event-stream")
