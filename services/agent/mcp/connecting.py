"""Connects a run with its servers and makes tools of what they list; a server that fails is gone on without."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from services.agent.mcp.failures import ServerError
from services.agent.mcp.naming import server_of
from services.agent.mcp.offering import ListedTool, offered
from services.agent.mcp.processes import Limits_contra, Sandbox
from services.agent.mcp.redacting import Redaction
from services.agent.mcp.tools import McpTool, MissingTool
from services.agent.tools.calls import Tool, ToolSpec
from services.agent.tools.showing import shortened, visible_line
from services.contracts.agents import HttpServer, McpServer, StdioServer

if TYPE_CHECKING:
    from services.agent.mcp.connection import Connection

OPENING_TIMEOUT = timedelta(seconds=30)
CALL_TIMEOUT = timedelta(seconds=120)
MAX_PROBLEMS = 20
_PROBLEM_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class McpTools:
    """``tools``: sorted by name, those that are only expected behind the others.

    ``problems``: a line each, safe to show, for what the run goes on without.
    """

    tools: tuple[Tool, ...] = ()
    problems: tuple[str, ...] = ()


@asynccontextmanager
async def connected(
    servers: Mapping[str, McpServer],
    *,
    sandbox: Sandbox[Limits_contra],
    worktree: Path,
    limits: Limits_contra,
    allow_private_addresses: bool,
    expected: Sequence[ToolSpec] = (),
    opening_timeout: timedelta = OPENING_TIMEOUT,
    call_timeout: timedelta = CALL_TIMEOUT,
) -> AsyncIterator[McpTools]:
    """The tools of ``servers`` (by name, as in the client's settings) for one run, until the context is left.

    ``allow_private_addresses``: whether HTTP servers may be in this machine's own network. ``expected``: the tools
    that the run's requests offer since they began; of those that a server does not list now, it is asked again when
    they are called. Raises nothing for what a server does.
    """
    if not servers:
        yield McpTools()
        return
    # Its import takes most of a second: for runs that need it, and beside the event loop.
    connection = await asyncio.to_thread(importlib.import_module, "services.agent.mcp.connection")
    settings = connection.Settings(sandbox, worktree, limits, allow_private_addresses, opening_timeout, call_timeout)
    connections: dict[str, Connection] = {
        name: connection.connection_to(server, settings) for name, server in servers.items()
    }
    try:
        redactions = {name: Redaction(_secrets(server)) for name, server in servers.items()}
        yield await _tools(connections, redactions, expected)
    finally:
        await asyncio.gather(*(connection.close() for connection in connections.values()))


async def _tools(
    connections: Mapping[str, Connection], redactions: Mapping[str, Redaction], expected: Sequence[ToolSpec]
) -> McpTools:
    answers = await asyncio.gather(*(_listing(connection) for connection in connections.values()))
    answered = dict(zip(connections, answers, strict=True))
    listings = {
        name: [_without_secrets(tool, redactions[name]) for tool in answer]
        for name, answer in answered.items()
        if not isinstance(answer, str)
    }
    offers = offered(listings)
    tools = [McpTool(offer, connections[offer.server], redactions[offer.server]) for offer in offers.offers]
    names = {tool.spec.name for tool in tools}
    missing = [
        MissingTool(spec, name, connections[name], redactions[name])
        for spec in expected
        if spec.name not in names and (name := server_of(spec.name)) in connections
    ]
    problems = _problems(answered, Counter(server_of(tool.spec.name) for tool in missing))
    return McpTools((*tools, *missing), _told([*problems, *offers.problems], redactions.values()))


async def _listing(connection: Connection) -> list[ListedTool] | str:
    """What it lists, or why it could not be asked."""
    try:
        return await connection.tools()
    except ServerError as error:
        return str(error)


def _problems(answered: Mapping[str, list[ListedTool] | str], missing: Mapping[str, int]) -> Iterator[str]:
    """A line for each server that does not do what was expected. ``missing``: how many tools, by server."""
    for name, answer in answered.items():
        if isinstance(answer, str) and missing.get(name):
            yield f"MCP server {name} {answer}. The run goes on; a call of its tools tries to connect with it again."
        elif isinstance(answer, str):
            yield f"MCP server {name} {answer}. The run goes on without its tools."
        elif missing.get(name):
            yield f"MCP server {name}: {missing[name]} of its tools are not there any more that the run began with."


def _without_secrets(tool: ListedTool, redaction: Redaction) -> ListedTool:
    return replace(tool, description=redaction(tool.description))


def _told(problems: Sequence[str], redactions: Iterable[Redaction]) -> tuple[str, ...]:
    hidden = list(problems[:MAX_PROBLEMS])
    for redaction in redactions:
        hidden = [redaction(line) for line in hidden]
    if len(problems) > MAX_PROBLEMS:
        hidden.append(f"MCP: {len(problems) - MAX_PROBLEMS} further problems are not told.")
    return tuple(shortened(visible_line(line), _PROBLEM_CHARACTERS) for line in hidden)


def _secrets(server: McpServer) -> Iterable[str]:
    match server:
        case StdioServer():
            return server.env.values()
        case HttpServer():
            return server.headers.values()
        case _:
            assert_never(server)
