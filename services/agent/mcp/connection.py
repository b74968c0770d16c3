"""One run's connection with one server: started again when it fails, but not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_never

from services.agent.mcp.failures import EndedError
from services.agent.mcp.offering import ListedTool
from services.agent.mcp.pipes import StdioLink
from services.agent.mcp.processes import Sandbox
from services.agent.mcp.rendering import rendered
from services.agent.mcp.sessions import Link, Session
from services.agent.mcp.tools import Answer
from services.agent.mcp.web import HttpLink
from services.contracts.agents import HttpServer, McpServer, StdioServer

MAX_RESTARTS = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What all connections of a run have in common."""

    sandbox: Sandbox[Any]
    worktree: Path
    limits: Any
    allow_private_addresses: bool
    opening_timeout: timedelta
    call_timeout: timedelta


def connection_to(server: McpServer, settings: Settings) -> Connection:
    """A connection that is not made yet."""
    return Connection(
        _link(server, settings), opening_timeout=settings.opening_timeout, call_timeout=settings.call_timeout
    )


def _link(server: McpServer, settings: Settings) -> Link:
    match server:
        case StdioServer():
            return StdioLink(server, sandbox=settings.sandbox, worktree=settings.worktree, limits=settings.limits)
        case HttpServer():
            return HttpLink(
                server,
                allow_private_addresses=settings.allow_private_addresses,
                read_timeout=settings.call_timeout,
            )
        case _:
            assert_never(server)


class Connection:
    """``opening_timeout`` is for starting it and for listing its tools; ``call_timeout`` for each call."""

    def __init__(self, link: Link, *, opening_timeout: timedelta, call_timeout: timedelta) -> None:
        self._link = link
        self._opening_timeout = opening_timeout
        self._call_timeout = call_timeout
        self._session: Session | None = None
        self._restarts_left = MAX_RESTARTS
        self._opening = asyncio.Lock()

    async def tools(self) -> list[ListedTool]:
        """Start it and ask what it has. Raises ``ServerError``."""
        self._session = await Session.opened(self._link, self._opening_timeout)
        return await self._session.tools(self._opening_timeout)

    async def call(self, tool: str, arguments: dict[str, Any]) -> Answer:
        """What ``tool`` answers, bounded.

        Raises ``ServerError``; where its session is of no use any more, the next call starts it again.
        """
        session = await self._usable_session()
        try:
            result = await session.call(tool, arguments, self._call_timeout)
        except EndedError:
            await self._drop(session)
            raise
        return Answer(rendered(result), is_error=result.is_error)

    async def _usable_session(self) -> Session:
        async with self._opening:
            if self._session is not None and self._session.is_over:
                await self._drop(self._session)
            if self._session is None:
                if self._restarts_left == 0:
                    raise EndedError("failed too often and is not started again: go on without its tools")
                self._restarts_left -= 1
                self._session = await Session.opened(self._link, self._opening_timeout)
            return self._session

    async def _drop(self, session: Session) -> None:
        if self._session is session:
            self._session = None
        await session.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._drop(self._session)
