"""Runs the MCP servers of the tests: as plain processes in place of the sandbox, and behind a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp.web

from quarterdeck.stack.ports import free_ports
from services.agent.mcp import McpTools, connected
from services.agent.tools.calls import Outcome, Tool, ToolSpec
from services.contracts.agents import HttpServer, McpServer, StdioServer

SERVER = Path(__file__).with_name("mcp_server.py")
DEADLINE_SECONDS = 60


@dataclass(frozen=True)
class Pipes:
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    pid: int


class PlainSandbox:
    """No sandbox at all: a subprocess, killed when its context is left."""

    def __init__(self) -> None:
        self.opened: list[Mapping[str, Any]] = []
        self.running: set[int] = set()
        self.started = asyncio.Event()

    @asynccontextmanager
    async def open(
        self,
        argv: Sequence[str],
        *,
        worktree: Path,
        limits: object,
        network: bool,
        environment: Mapping[str, str],
        writes: bool,
    ) -> AsyncIterator[Pipes]:
        self.opened.append(
            {
                "worktree": worktree,
                "limits": limits,
                "network": network,
                "environment": environment,
                "writes": writes,
            }
        )
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=worktree,
            env=dict(environment),
        )
        assert process.stdin
        assert process.stdout
        self.running.add(process.pid)
        self.started.set()
        try:
            yield Pipes(process.stdin, process.stdout, process.pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # What it wrote last is in the way of its end being seen.
            while await process.stdout.read(1 << 20):
                pass
            await process.wait()
            self.running.discard(process.pid)


def stdio(**environment: str) -> StdioServer:
    return StdioServer(type="stdio", command=[sys.executable, str(SERVER), "stdio"], env=environment)


def http(url: str, **headers: str) -> HttpServer:
    return HttpServer(type="http", url=url, headers=headers)


def connecting(
    worktree: Path,
    *,
    sandbox: PlainSandbox | None = None,
    allow_private_addresses: bool = True,
    call_seconds: float = DEADLINE_SECONDS,
    opening_seconds: float = DEADLINE_SECONDS,
    expected: Sequence[ToolSpec] = (),
    **servers: McpServer,
) -> AbstractAsyncContextManager[McpTools]:
    return connected(
        servers,
        sandbox=sandbox or PlainSandbox(),
        worktree=worktree,
        limits=None,
        allow_private_addresses=allow_private_addresses,
        expected=expected,
        opening_timeout=timedelta(seconds=opening_seconds),
        call_timeout=timedelta(seconds=call_seconds),
    )


def tool(tools: McpTools, name: str) -> Tool:
    return next(tool for tool in tools.tools if tool.spec.name == name)


async def use(tools: McpTools, name: str, **arguments: Any) -> Outcome:
    """Call the tool ``name`` of the server s."""
    return await asyncio.wait_for(tool(tools, f"mcp__s__{name}").run(arguments), DEADLINE_SECONDS)


@asynccontextmanager
async def http_server(port: int | None = None) -> AsyncIterator[str]:
    """The URL of a real MCP server in a process of its own. ``port``: a free one where not given."""
    port = port or free_ports(1)[0]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "http", str(port), env={"PATH": os.environ["PATH"]}
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await _listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


Handler = Callable[[aiohttp.web.BaseRequest], Awaitable[aiohttp.web.StreamResponse]]


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncIterator[str]:
    """The URL of a server that answers everything by ``handler``."""
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(handler), shutdown_timeout=1)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    finally:
        await runner.cleanup()
