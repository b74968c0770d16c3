"""A proxy in front of the emulated GitHub that remembers what it was asked, and breaks it off as it is told to.

What it answers by itself is scripted: that GitHub answers so is what its documentation says, not what was seen here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import aiohttp
from aiohttp import web

HOST: Final = "127.0.0.1"
_CALL_SECONDS: Final = 30
_HOP: Final = {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "content-encoding", "date"}

When = Literal["instead", "after"]
Do = Literal["answer", "drop", "hang"]


@dataclass
class Fault:
    """``path``: a pattern that is found in the path. ``when``: in the place of what was asked, or after it was done."""

    method: str
    path: str
    do: Do
    when: When
    times: int
    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    status: int
    """What was answered; 0: nothing."""


class FaultProxy:
    def __init__(self, target: str, session: aiohttp.ClientSession) -> None:
        self._target = target
        self._session = session
        self._faults: list[Fault] = []
        self.requests: list[Request] = []
        self.has_etags = False
        """Scripted, for the emulator has none: answers to GET get an ETag, and 304 where it was shown."""
        self.address = ""

    def answer(
        self,
        method: str,
        path: str,
        status: int,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        when: When = "instead",
        times: int = 1,
    ) -> None:
        """Scripted: what a GitHub would say that is not the emulator."""
        self._faults.append(Fault(method, path, "answer", when, times, status, body, headers or {}))

    def drop(self, method: str, path: str, *, when: When, times: int = 1) -> None:
        """Close the connection without an answer."""
        self._faults.append(Fault(method, path, "drop", when, times))

    def hang(self, method: str, path: str, *, when: When, times: int = 1) -> None:
        """Answer nothing for as long as the client waits."""
        self._faults.append(Fault(method, path, "hang", when, times))

    def count(self, method: str, path: str) -> int:
        """How often it was asked, answered or not."""
        return len(self.asked(method, path))

    def asked(self, method: str, path: str) -> list[Request]:
        return [one for one in self.requests if one.method == method and re.search(path, one.path)]

    @property
    def unused(self) -> list[Fault]:
        return [fault for fault in self._faults if fault.times > 0]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        fault = self._taken(request)
        if fault is None or fault.when == "after":
            response = await self._forwarded(request, content)
        if fault is not None:
            response = await self._broken(request, fault)
        if self.has_etags and request.method == "GET" and response.status == web.HTTPOk.status_code:
            response = _with_etag(request, response)
        self._remember(request, content, response.status)
        return response

    def _taken(self, request: web.Request) -> Fault | None:
        for fault in self._faults:
            if fault.times > 0 and fault.method == request.method and re.search(fault.path, request.path):
                fault.times -= 1
                return fault
        return None

    async def _broken(self, request: web.Request, fault: Fault) -> web.Response:
        if fault.do == "answer":
            return web.json_response(fault.body, status=fault.status, headers=fault.headers)
        self._remember(request, await request.read(), 0)
        if fault.do == "hang":
            await asyncio.Event().wait()  # until the client goes, which cancels this
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError

    async def _forwarded(self, request: web.Request, content: bytes) -> web.Response:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        async with self._session.request(
            request.method, self._target + request.rel_url.raw_path_qs, data=content, headers=headers, timeout=timeout
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    def _remember(self, request: web.Request, content: bytes, status: int) -> None:
        body = json.loads(content) if content else None
        self.requests.append(Request(request.method, request.path, dict(request.query), request.headers, body, status))


def _with_etag(request: web.Request, response: web.Response) -> web.Response:
    assert isinstance(response.body, bytes)
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:16]}"'
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=web.HTTPNotModified.status_code, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response


@asynccontextmanager
async def running_proxy(target: str) -> AsyncIterator[FaultProxy]:
    async with aiohttp.ClientSession(auto_decompress=True) as session:
        proxy = FaultProxy(target, session)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        # Else what hangs would hold up the end of the test.
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port: int = runner.addresses[0][1]
        proxy.address = f"http://{HOST}:{port}"
        try:
            yield proxy
        finally:
            await runner.cleanup()
