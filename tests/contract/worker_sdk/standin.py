"""A server of recorded sessions that misbehaves on wish. The wish is the folder of its address, such as `/cut/17`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.integration.waiting import until

Json = dict[str, Any]
Headers = dict[str, str]

TIME: Final = "2025-01-06T00:00:00.000Z"
EVENTS: Final[tuple[tuple[str, Json], ...]] = (
    ("connected", {"message": "Connected", "timestamp": TIME}),
    ("status", {"message": "Grüße 🦆", "timestamp": TIME}),
    ("claude_start", {"turn": 1, "prompt": "Refactor this function", "timestamp": TIME}),
    ("claude_delta", {"turn": 1, "content": "Zwei\r\nZeilen, \u2028", "timestamp": TIME}),
    ("claude_delta", {"turn": 1, "content": "日本語 🦆", "timestamp": TIME}),
    ("claude_end", {"turn": 1, "timestamp": TIME}),
    ("file_change", {"message": "1 file", "workspaceDir": "/w", "timestamp": TIME}),
    ("complete", {"sessionId": "s", "turns": 1, "timestamp": TIME}),
)
CONTENTS: Final = tuple(data["content"] for name, data in EVENTS if name == "claude_delta")
TOLD: Final = tuple({"event": name, "id": str(number), **data} for number, (name, data) in enumerate(EVENTS, 1))
"""What a client makes of them."""

_LINE_ENDS: Final = (b"\n", b"\r\n", b"\r")
_FAILED: Final = ("error", {"message": "The model is gone", "timestamp": TIME})


def rendered(after: int, line_end: bytes = b"\n", *, events: tuple[tuple[str, Json], ...] = EVENTS) -> bytes:
    """The body behind the event with that number: with a BOM, comments, data in several lines, an unknown event."""
    lines = ["\ufeff: begins", "retry: 1", "", "event: later", "data: of a later version", ""]
    for number, (name, data) in enumerate(events, 1):
        if number > after:
            text = json.dumps(data, ensure_ascii=False, indent=0 if name == "claude_delta" else None)
            lines += [f"id: {number}", f"event:{name}", *(f"data: {line}" for line in text.split("\n")), "", ": ping"]
    return "".join(f"{line}\n" for line in lines).encode().replace(b"\n", line_end)


@dataclass
class Seen:
    """What came for one session. ``attached``: the `Last-Event-ID` of each GET, None without."""

    body: Json = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    posts: int = 0
    attached: list[str | None] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class StandIn:
    def __init__(self) -> None:
        self.address = ""
        self.sessions: dict[str, Seen] = {}
        self._dropped: set[str] = set()

    def seen(self, session_id: str) -> Seen:
        return self.sessions.setdefault(session_id, Seen())

    def application(self) -> web.Application:
        application = web.Application()
        application.on_response_prepare.append(_admit_pages)
        folder = r"/{wish:\w+}/{size:\d+}"
        application.router.add_post(f"{folder}/interactive/start", self._start)
        application.router.add_get(f"{folder}/interactive/start", self._attach)
        application.router.add_get(f"{folder}/interactive/status", self._status)
        application.router.add_delete(f"{folder}/interactive/{{id}}", self._end)
        application.router.add_get(f"{folder}/health", self._health)
        application.router.add_get("/expected", self._expected)
        application.router.add_get("/seen/{id}", self._seen)
        application.router.add_options(f"{folder}/{{rest:.*}}", _preflight)
        application.router.add_route("*", "/moved/{rest:.*}", self._moved)
        return application

    async def _start(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        wish = _wish(request)
        if wish == "refuse":
            return _error(request, "QUOTA_EXCEEDED", int(request.match_info["size"]), {"Retry-After": "17"})
        if wish == "unarrived" and body["sessionId"] not in self._dropped:
            self._dropped.add(body["sessionId"])
            return _hang_up(request)
        session = self.seen(body["sessionId"])
        session.posts += 1
        if session.posts > 1:
            return _error(request, "VALIDATION_ERROR", 400)
        session.body, session.headers = body, dict(request.headers)
        if wish == "lost":
            return _hang_up(request)
        return await self._stream(request, session, body["sessionId"], after=0)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        session_id = request.query["sessionId"]
        if session_id not in self.sessions:
            return _error(request, "NOT_FOUND", 404)
        session, last_id = self.seen(session_id), request.headers.get("Last-Event-ID")
        session.attached.append(last_id)
        if _wish(request) == "busy" and len(session.attached) <= int(request.match_info["size"]):
            return _error(request, "INTERNAL_ERROR", 503, {"Retry-After": "0"})
        return await self._stream(request, session, session_id, after=int(last_id or 0))

    async def _stream(self, request: web.Request, seen: Seen, session_id: str, *, after: int) -> web.StreamResponse:
        wish, size = _wish(request), int(request.match_info["size"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Session-Id": session_id})
        await response.prepare(request)
        events = (*EVENTS[:-1], _FAILED) if wish == "fail" else EVENTS
        body = rendered(after, _LINE_ENDS[size % 3], events=events)
        is_cut = not seen.attached or wish in {"each", "silent"}
        if wish in {"cut", "each", "end", "busy", "silent"} and is_cut:
            await response.write(body[: max(size, _one_event(after, body, wish))])
            return await self._break(request, response, seen, wish)
        await response.write(body)
        await response.write_eof()
        return response

    async def _break(
        self, request: web.Request, response: web.StreamResponse, seen: Seen, wish: str
    ) -> web.StreamResponse:
        if wish == "end":
            await response.write_eof()
        elif wish == "silent":
            await _client_leaves(request, seen)
        elif request.transport is not None:
            request.transport.close()  # what was written is still sent, without the end of the body
        return response

    async def _status(self, request: web.Request) -> web.Response:
        session_id = request.query["sessionId"]
        if session_id not in self.sessions:
            return _error(request, "NOT_FOUND", 404)
        repository = self.sessions[session_id].body.get("repository")
        times = {"createdAt": 1641234567890, "lastActivityAt": 1641234599999}
        turn = {"status": "processing", "currentTurn": 2, "repository": repository}
        return web.json_response({"sessionId": session_id, **turn, **times})

    async def _end(self, request: web.Request) -> web.Response:
        if self.sessions.pop(request.match_info["id"], None) is None:
            return _error(request, "NOT_FOUND", 404)
        return web.json_response({"success": True, "message": "Session ended"})

    async def _health(self, request: web.Request) -> web.Response:
        is_well = _wish(request) == "whole"
        body: Json = {"status": "healthy" if is_well else "unhealthy", "version": "1.0.0", "components": {}}
        return web.json_response(body, status=200 if is_well else 503)

    async def _expected(self, request: web.Request) -> web.Response:
        """With the whole bodies, for each end of lines, by the number of events before them; the longest's size."""
        recorded = [[rendered(after, end).decode() for after in range(len(EVENTS))] for end in _LINE_ENDS]
        size = max(len(rendered(0, end)) for end in _LINE_ENDS)
        return web.json_response({"events": TOLD, "contents": CONTENTS, "size": size, "recorded": recorded})

    async def _seen(self, request: web.Request) -> web.Response:
        seen = self.seen(request.match_info["id"])
        return web.json_response(
            {"body": seen.body, "posts": seen.posts, "attached": seen.attached, "isGone": seen.gone.is_set()}
        )

    async def _moved(self, request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{self.address}/whole/0/{request.match_info['rest']}")


async def _admit_pages(request: web.Request, response: web.StreamResponse) -> None:
    """What the documented API lets a page of another origin do, and no more."""
    allowed = "Content-Type, Authorization, X-Requested-With, Last-Event-ID"
    response.headers["Access-Control-Allow-Origin"] = request.headers.get("Origin", "null")
    response.headers["Access-Control-Allow-Headers"] = allowed
    response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"


async def _preflight(request: web.Request) -> web.Response:
    return web.Response(status=204)


def _wish(request: web.Request) -> str:
    return request.match_info["wish"]


def _one_event(after: int, body: bytes, wish: str) -> int:
    """Where the first new event in ``body`` ends, for a wish that brings one with each connection."""
    return body.index(b"ping") if wish == "each" and after < len(EVENTS) else 0


def _hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def _client_leaves(request: web.Request, seen: Seen) -> None:
    try:
        await until(lambda: request.transport is None or request.transport.is_closing())
    finally:
        seen.gone.set()


def _error(request: web.Request, code: str, status: int, headers: Headers | None = None) -> web.Response:
    body = {"error": code, "message": f"{request.method} is refused", "timestamp": TIME}
    return web.json_response(body, status=status, headers=headers)


@asynccontextmanager
async def running_stand_in() -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    async with TestServer(stand_in.application(), host="127.0.0.1") as server:
        stand_in.address = str(server.make_url("")).rstrip("/")
        yield stand_in
