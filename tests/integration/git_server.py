"""A Git server over HTTP: Git's own `http-backend` behind basic authentication, with faults that a test switches on."""

import asyncio
import base64
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

HOST = "127.0.0.1"
DEADLINE_SECONDS = 60


@dataclass
class Fault:
    """What a request is answered with instead. ``only``: requests whose path and query hold this.

    ``status``: at once, with ``location`` where that is a redirect. ``hang``: never. ``drop_after``: that many bytes of
    the true answer, then the connection is reset.
    """

    status: int = 0
    location: str = ""
    hang: bool = False
    drop_after: int | None = None
    only: str = ""


@dataclass
class GitServer:
    """``root``: bare repositories, as ``<root>/<owner>/<name>.git``. ``tokens``: by ``owner/name``; without: public.

    ``seen``: method and path with query of each request; ``logins``: the pairs that were shown, decoded.
    """

    root: Path
    url: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    seen: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def authority(self) -> str:
        return self.url.partition("//")[2]

    def address(self, name: str) -> str:
        return f"{self.url}/{name}.git"

    def create(self, name: str, *, token: str = "") -> Path:
        """A bare repository that takes pushes from whoever may read it."""
        bare = self.root / f"{name}.git"
        bare.mkdir(parents=True)
        for arguments in (
            ("init", "--quiet", "--bare", "--initial-branch=main"),
            ("config", "http.receivepack", "true"),
        ):
            subprocess.run(["git", *arguments], cwd=bare, check=True, timeout=DEADLINE_SECONDS)
        if token:
            self.tokens[name] = token
        return bare

    def protect(self, name: str, branch: str) -> None:
        """Let nobody push to the branch, by a hook of the repository."""
        words = "remote rejected: protected branch hook declined"
        self.hook(name, "update", f'test "$1" != refs/heads/{branch} || {{ echo "{words}" >&2; exit 1; }}')

    def hook(self, name: str, hook: str, script: str) -> None:
        path = self.root / f"{name}.git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path_qs}")
        login = _login(request)
        if login:
            self.logins.append(login)
        fault = self.fault if self.fault and self.fault.only in request.path_qs else None
        if fault and fault.hang:
            self.hanging.set()
            await asyncio.Event().wait()
        if fault and fault.status:
            return web.Response(status=fault.status, headers={"Location": fault.location} if fault.location else {})
        wanted = self.tokens.get(request.path.partition(".git/")[0].strip("/"))
        if wanted is not None and login.partition(":")[2] != wanted:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        status, headers, body = await self._run_backend(request, login)
        if fault and fault.drop_after is not None:
            return await _cut_off(request, status, headers, body, fault.drop_after)
        return web.Response(status=status, headers=headers, body=body)

    async def _run_backend(self, request: web.Request, login: str) -> tuple[int, dict[str, str], bytes]:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_USER": login.partition(":")[0],
            "REMOTE_ADDR": HOST,
        }
        # The server has taken a compressed body apart already.
        body = await request.read()
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment | {"CONTENT_LENGTH": str(len(body))},
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(body), DEADLINE_SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
        return _answer(output)


def _login(request: web.Request) -> str:
    kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
    return base64.b64decode(encoded).decode() if kind == "Basic" else ""


def _answer(output: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body out of what a CGI program wrote."""
    head, _, body = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    status = headers.pop("Status", "200").partition(" ")[0]
    return int(status), headers, body


async def _cut_off(
    request: web.Request, status: int, headers: dict[str, str], body: bytes, after_bytes: int
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers | {"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[:after_bytes])
    assert request.transport is not None
    request.transport.abort()
    return response


@asynccontextmanager
async def git_server(root: Path) -> AsyncIterator[GitServer]:
    """A server of its own on a free port. Git must be run as a process of its own, never blocking this loop."""
    server = GitServer(root)
    app = web.Application(client_max_size=1024**3)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        server.url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
