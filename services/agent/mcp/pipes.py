"""Speaks to a server over the pipes of its process, which runs in the sandbox: a JSON text a line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Generic

from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCNotification, jsonrpc_message_adapter

from services.agent.mcp.failures import EndedError
from services.agent.mcp.processes import Limits_contra, Process, Sandbox
from services.agent.mcp.traffic import Reader, Traffic, Writer
from services.agent.sandbox import SandboxUnavailableError
from services.contracts.agents import StdioServer

MAX_LINE_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


class StdioLink(Generic[Limits_contra]):
    """How to start ``server``; each time it is, it is a process of its own."""

    def __init__(
        self, server: StdioServer, *, sandbox: Sandbox[Limits_contra], worktree: Path, limits: Limits_contra
    ) -> None:
        self._server = server
        self._sandbox = sandbox
        self._worktree = worktree
        self._limits = limits

    @asynccontextmanager
    async def streams(self, traffic: Traffic) -> AsyncIterator[tuple[Reader, Writer]]:
        """Start it; leaving the context ends it. Raises ``EndedError`` or ``OSError``."""
        try:
            async with self._process() as process:
                yield Reader(_messages(process.stdout, traffic), traffic), Writer(_Pipe(process.stdin), traffic)
                # Most servers end by themselves when nobody can ask them any more.
                process.stdin.close()
        except SandboxUnavailableError as error:
            raise EndedError(f"could not be started: {error}") from None

    def _process(self) -> AbstractAsyncContextManager[Process]:
        return self._sandbox.open(
            self._server.command,
            worktree=self._worktree,
            limits=self._limits,
            network=self._server.network,
            environment=self._server.env,
            # It lives beside all other tools: one that could swap folders for links under a search or a checkpoint
            # would be shown, or have stored, what lies outside.
            writes=False,
        )


class _Pipe:
    def __init__(self, stdin: asyncio.StreamWriter) -> None:
        self._stdin = stdin

    async def send(self, item: SessionMessage, /) -> None:
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        self._stdin.write(text.encode() + b"\n")
        # A server that reads nothing must not hold up whoever breaks a call off, and only wants to say so.
        if not isinstance(item.message, JSONRPCNotification):
            await self._stdin.drain()

    async def aclose(self) -> None:
        self._stdin.close()


async def _messages(
    stdout: asyncio.StreamReader, traffic: Traffic
) -> AsyncIterator[tuple[SessionMessage | Exception, int]]:
    """What each line says, or why it says nothing: programs print all kinds of things."""
    buffer = bytearray()
    while chunk := await stdout.read(_CHUNK_BYTES):
        searched = len(buffer)
        buffer += chunk
        while (end := buffer.find(b"\n", searched)) >= 0:
            line = bytes(buffer[:end])
            del buffer[: end + 1]
            searched = 0
            yield _parsed(line), len(line)
        if len(buffer) > MAX_LINE_BYTES:
            traffic.trouble = f"sent a message of more than {MAX_LINE_BYTES // 1024 // 1024} MB"
            return


def _parsed(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error
