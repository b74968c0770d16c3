"""One run's connection with one server: started again when it fails, but not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, assert_never

from services.agent.mcp.failures import AwayError, EndedError, ServerError
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
        self._starts_left = 1 + MAX_RESTARTS
        self._opening = asyncio.Lock()

    async def tools(self) -> list[ListedTool]:
        """What it has now; started where it does not run. Raises ``AwayError``."""
        session = await self._usable_session()
        try:
            return await session.tools(self._opening_timeout)
        except ServerError as error:
            await self._drop(session)
            raise AwayError(str(error)) from None

    async def call(self, tool: str, arguments: dict[str, Any]) -> Answer:
        """What ``tool`` answers.

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
        """Raises ``AwayError``."""
        async with self._opening:
            if self._session is not None and self._session.is_over:
                await self._drop(self._session)
            if self._session is None:
                if self._starts_left == 0:
                    raise AwayError("failed too often and is not started again")
                self._starts_left -= 1
                try:
                    self._session = await Session.opened(self._link, self._opening_timeout)
                except ServerError as error:
                    raise AwayError(str(error)) from None
            return self._session

    async def _drop(self, session: Session) -> None:
        if self._session is session:
            self._session = None
        await session.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._drop(self._session)
