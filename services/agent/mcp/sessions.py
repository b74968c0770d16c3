"""One session with one server: opened, asked within deadlines, closed. What the SDK raises becomes words here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from mcp import ClientSession, MCPError, types
from pydantic import BaseModel, ValidationError

from services.agent.mcp.failures import EndedError, RefusedError, ServerError
from services.agent.mcp.offering import MAX_TOOLS, ListedTool
from services.agent.mcp.traffic import Reader, Traffic, Writer

MAX_PAGES = 32
MAX_LISTED = 4 * MAX_TOOLS
CLOSING_TIMEOUT = timedelta(seconds=2)
_CLIENT = types.Implementation(name="quarterdeck", version="1")

R = TypeVar("R", bound=BaseModel)

# They log what servers say, at full length and as it came; what matters of it is told in words of our own.
for _name in ("mcp", "client"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Link(Protocol):
    """How to reach a server."""

    def streams(self, traffic: Traffic) -> AbstractAsyncContextManager[tuple[Reader, Writer]]:
        """Raises ``EndedError`` or ``OSError``."""
        ...


class Session:
    """Held open by a task of its own, as what the SDK enters must be left by the same task."""

    def __init__(self, link: Link) -> None:
        self._traffic = Traffic()
        self._client: ClientSession | None = None
        self._settled = asyncio.Event()
        self._closing = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._holder = asyncio.create_task(self._hold(link))
        self._holder.add_done_callback(_looked_at)

    @classmethod
    async def opened(cls, link: Link, timeout: timedelta) -> Session:
        """Raises ``ServerError``."""
        session = cls(link)
        try:
            await session._ready(timeout)
        except BaseException:
            await session.close()
            raise
        return session

    async def _hold(self, link: Link) -> None:
        try:
            async with (
                link.streams(self._traffic) as (reader, writer),
                ClientSession(reader, writer, client_info=_CLIENT) as client,
            ):
                await _greet(client)
                self._client = client
                self._settled.set()
                await self._closing.wait()
        finally:
            self._traffic.ended = True
            self._settled.set()

    async def _ready(self, timeout: timedelta) -> None:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._settled.wait()
                if self._client is None:
                    await asyncio.wait({self._holder})
        except TimeoutError:
            raise EndedError(f"was not ready within {timeout.total_seconds():g} s") from None
        if self._client is None:
            raise self._why_not_opened() from None

    def _why_not_opened(self) -> BaseException:
        error = _first(self._holder.exception())
        if isinstance(error, ServerError) or (self._traffic.trouble is None and not isinstance(error, _FAILURES)):
            return error or EndedError("ended before it was ready")
        return self._worded(error)

    @property
    def is_over(self) -> bool:
        """Whether there is nobody left to ask."""
        return self._traffic.ended or self._traffic.trouble is not None or self._holder.done()

    async def tools(self, timeout: timedelta) -> list[ListedTool]:
        """What the server lists, page by page, to a bound. Raises ``ServerError``."""
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await self._pages(timeout)
        except TimeoutError:
            raise EndedError(f"did not list its tools within {timeout.total_seconds():g} s") from None

    async def _pages(self, timeout: timedelta) -> list[ListedTool]:
        listed: list[ListedTool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            params = types.PaginatedRequestParams(cursor=cursor)
            page = await self._ask(types.ListToolsRequest(params=params), types.ListToolsResult, timeout)
            listed += [_listed(tool) for tool in page.tools[: MAX_LISTED - len(listed)]]
            cursor = page.next_cursor
            if cursor is None or len(listed) == MAX_LISTED:
                break
        return listed

    async def call(self, tool: str, arguments: dict[str, Any], timeout: timedelta) -> types.CallToolResult:
        """Raises ``ServerError``.

        Not by the SDK's own method, which holds the answer against the schema that the server gave for it: a
        schema's pattern can be made to take for ever, and all runs of this process would stand still.
        """
        params = types.CallToolRequestParams(name=tool, arguments=arguments)
        return await self._ask(types.CallToolRequest(params=params), types.CallToolResult, timeout)

    async def _ask(self, request: types.ClientRequest, result: type[R], timeout: timedelta) -> R:
        assert self._client is not None
        call = self._started(self._client.send_request(request, result))
        try:
            # Left to itself when broken off: it may want to tell the server so, which may take its time.
            done, _ = await asyncio.wait({call}, timeout=timeout.total_seconds())
        finally:
            call.cancel()
        if not done:
            raise EndedError(f"gave no answer within {timeout.total_seconds():g} s")
        try:
            return call.result()
        except _FAILURES as error:
            raise self._worded(error) from None
        except asyncio.CancelledError:
            raise EndedError("was stopped during the call") from None

    def _started(self, call: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        task.add_done_callback(_looked_at)
        return task

    def _worded(self, error: BaseException | None) -> ServerError:
        """``error`` in words that hold nothing of it but what the server itself said of a call."""
        if self._traffic.trouble is not None:
            return EndedError(self._traffic.trouble)
        if isinstance(error, OSError) and not isinstance(error, ConnectionError):
            return EndedError("could not be started: check its command in the client's settings")
        if isinstance(error, OSError) or _is_closing(error):
            return EndedError("ended before it was ready" if self._client is None else "ended without an answer")
        if isinstance(error, MCPError) and error.code != types.PARSE_ERROR:
            return RefusedError(f"answered with an error: {error.message}")
        return EndedError("answered what is not MCP")

    async def close(self) -> None:
        """End the session; what the server does not let go in time is torn down."""
        self._closing.set()
        for call in self._calls:
            call.cancel()
        if self._client is None:
            self._holder.cancel()
        try:
            await asyncio.wait({self._holder}, timeout=CLOSING_TIMEOUT.total_seconds())
        finally:
            self._holder.cancel()
        await asyncio.wait({self._holder}, timeout=CLOSING_TIMEOUT.total_seconds())


_FAILURES = (MCPError, ValidationError, OSError, RuntimeError, ValueError)


async def _greet(client: ClientSession) -> None:
    """Agree on a version of the protocol: the handshake that all servers know, or else what came after it."""
    try:
        await client.initialize()
    except MCPError as error:
        if error.code not in {types.METHOD_NOT_FOUND, types.UNSUPPORTED_PROTOCOL_VERSION}:
            raise
        await client.discover()


def _is_closing(error: BaseException | None) -> bool:
    """Whether the SDK says so: many servers use the same number for errors of their own."""
    return isinstance(error, MCPError) and (error.code, error.message) == (types.CONNECTION_CLOSED, "Connection closed")


def _listed(tool: types.Tool) -> ListedTool:
    read_only = tool.annotations is not None and tool.annotations.read_only_hint is True
    return ListedTool(tool.name, tool.description or "", tool.input_schema, read_only=read_only)


def _first(error: BaseException | None) -> BaseException | None:
    """The first of a group's errors: the others are what followed from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Whoever waited for ``task`` was told what came of it, or does not care any more."""
    if not task.cancelled():
        task.exception()
