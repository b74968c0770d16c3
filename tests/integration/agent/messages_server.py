"""A Messages server on a real port that answers as a test tells it to: whole, in pieces, broken, or not to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Literal, Self

import orjson
from aiohttp import web

from quarterdeck.offline_model.stream import events

HOST = "127.0.0.1"
DEADLINE_SECONDS = 60
Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """``then``: what the server does behind ``chunks``: end, cut the connection, or wait to be let go (and end, or
    garble what follows).
    """

    chunks: Sequence[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    then: Literal["end", "cut", "wait", "garble"] = "end"


def call(number: int, name: str, **arguments: Any) -> Json:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}


def said(text: str) -> Json:
    return {"type": "text", "text": text}


def chunks(*blocks: Json, stop: str = "tool_use") -> list[bytes]:
    """A whole reply as server-sent events, one a chunk."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-scripted", "content": blocks}
    return [data for _, data in events({**message, "stop_reason": stop, "stop_sequence": None, "usage": usage})]


def whole(*blocks: Json, stop: str = "tool_use") -> Answer:
    return Answer(chunks(*blocks, stop=stop))


def hanging(*blocks: Json, stop: str = "tool_use") -> Answer:
    """The beginning of a reply, and its end once it is let go."""
    return Answer(chunks(*blocks, stop=stop), then="wait")


def event(name: str, **data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **data}))


def refused(status: int, words: str, *, kind: str = "invalid_request_error", **headers: str) -> Answer:
    body = orjson.dumps({"type": "error", "error": {"type": kind, "message": words}})
    return Answer([body], status, {name.replace("_", "-"): value for name, value in headers.items()})


class MessagesServer:
    """Gives its ``answers`` one after another, then ``ever_after``; keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.ever_after: Answer | None = None
        self.requests: list[Json] = []
        self.headers: list[dict[str, str]] = []
        """Of the requests."""
        self.url = ""
        self.go_on = asyncio.Event()
        """Lets a waiting answer end."""
        self.waits = asyncio.Event()
        """An answer is waiting, with its beginning sent."""
        self.gone = asyncio.Event()
        """The client went away from a waiting answer."""
        self._open = AsyncExitStack()

    def answer(self, *answers: Answer) -> None:
        self.answers += answers

    async def until(self, moment: asyncio.Event) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await moment.wait()

    async def until_asked(self, times: int) -> None:
        await self._until(lambda: len(self.requests) >= times)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self._asked:
            await self._asked.wait_for(condition)

    async def __aenter__(self) -> Self:
        self._asked = asyncio.Condition()
        app = web.Application(client_max_size=32 * 1024 * 1024)
        app.router.add_post("/v1/messages", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, HOST, 0).start()
        self.url = f"http://{HOST}:{runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on.set()
        await self._open.aclose()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        async with self._asked:
            self.headers.append(dict(request.headers))
            self.requests.append(orjson.loads(await request.read()))
            self._asked.notify_all()
        answer = self.answers.pop(0) if self.answers else self.ever_after
        if answer is None:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text="the test has no more answers")
        is_stream = answer.status == HTTPStatus.OK
        headers = {"content-type": "text/event-stream" if is_stream else "application/json", **answer.headers}
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(request)
        await self._send(response, answer)
        if answer.then == "garble":
            assert request.transport is not None
            request.transport.write(b"no chunk\r\n")
        if answer.then == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response

    async def _send(self, response: web.StreamResponse, answer: Answer) -> None:
        held_back = 2 if answer.then in {"wait", "garble"} else 0  # `message_delta` and `message_stop`
        ready = len(answer.chunks) - held_back
        for chunk in answer.chunks[:ready]:
            await response.write(chunk)
        if not held_back:
            return
        self.waits.set()
        try:
            await self.go_on.wait()
            if answer.then == "garble":
                return
            for chunk in answer.chunks[ready:]:
                await response.write(chunk)
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
