"""A Git server over HTTP for measures: `git http-backend`, its output passed on as it comes. Counts what is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

HOST = "127.0.0.1"
_CHUNK_BYTES = 256 * 1024
_MOST_REQUEST_BYTES = 64 * 1024 * 1024
# What a server writes before a pack in protocol 2, as the packet that it is.
_PACK_FOLLOWS = b"000dpackfile\n"
_FETCH = b"command=fetch"


@dataclass
class Remote:
    """``port``: at which each bare repository of the folder is served. ``asked``: how often commands began to ask it.

    ``packs``: how many were sent, and so how often something was fetched.
    """

    folder: Path
    port: int = 0
    asked: int = 0
    packs: int = 0

    def url(self, repository: str) -> str:
        return f"http://{HOST}:{self.port}/bench/{repository}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        # The server has taken a compressed body apart already.
        body = await request.read()
        self.asked += request.path.endswith("/info/refs")
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment(request) | {"CONTENT_LENGTH": str(len(body))},
            limit=_CHUNK_BYTES,
        )
        try:
            response = await self._answer(request, body, process)
        except BaseException:
            process.kill()
            raise
        await process.wait()
        return response

    async def _answer(
        self, request: web.Request, body: bytes, process: asyncio.subprocess.Process
    ) -> web.StreamResponse:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(body)
        process.stdin.close()
        head = await process.stdout.readuntil(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(headers.pop("Status", "200").partition(" ")[0])
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        begun = b""
        while chunk := await process.stdout.read(_CHUNK_BYTES):
            if len(begun) < _CHUNK_BYTES:
                begun += chunk
            await response.write(chunk)
        self.packs += _FETCH in body and _PACK_FOLLOWS in begun
        await response.write_eof()
        return response

    def _environment(self, request: web.Request) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path.removeprefix("/bench"),
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": HOST,
        }


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Remote]:
    """Serve ``folder`` on a free port. Whoever asks must be a process of its own, never blocking this loop."""
    remote = Remote(folder)
    app = web.Application(client_max_size=_MOST_REQUEST_BYTES)
    app.router.add_route("*", "/{path:.*}", remote.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        remote.port = runner.addresses[0][1]
        yield remote
    finally:
        await runner.cleanup()
