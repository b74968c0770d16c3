"""The tools of MCP servers as tools of a run."""

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any, Protocol

from services.agent.mcp.failures import AwayError, EndedError, ServerError
from services.agent.mcp.offering import ListedTool, Offer, offered
from services.agent.mcp.redacting import Redaction
from services.agent.tools.calls import MalformedInputError, Outcome, ToolError, ToolSpec

_SHORT_CHARACTERS = 50_000


@dataclass(frozen=True, slots=True)
class Answer:
    """``text``: as it came, with whatever it holds. ``is_error``: the tool itself says that it failed."""

    text: str
    is_error: bool


class Server(Protocol):
    async def tools(self) -> list[ListedTool]:
        """What it lists now. Raises ``ServerError``."""
        ...

    async def call(self, tool: str, arguments: dict[str, Any]) -> Answer:
        """Raises ``ServerError``."""
        ...


class McpTool:
    """One tool of one server. ``redaction``: of that server's secrets, whatever it says."""

    def __init__(self, offer: Offer, server: Server, redaction: Redaction) -> None:
        self._offer = offer
        self._server = server
        self._redaction = redaction

    @property
    def spec(self) -> ToolSpec:
        return self._offer.spec

    def subject(self, arguments: Any) -> str:
        fields = arguments if isinstance(arguments, dict) else {}
        plain = {name: value for name, value in fields.items() if isinstance(value, str | int | float)}
        return self._redaction(", ".join(f"{name}: {value}" for name, value in plain.items()))

    async def run(self, arguments: Any) -> Outcome:
        """Raises ``ToolError`` for all that goes wrong at the server."""
        checked = _checked(self.spec.name, arguments)
        try:
            answer = await self._server.call(self._offer.tool, checked)
        except ServerError as error:
            raise ToolError(self._failed(error)) from None
        text = await self._hidden(answer.text)
        if answer.is_error:
            raise ToolError(text)
        return Outcome(text)

    async def _hidden(self, text: str) -> str:
        """Beside the event loop where it is long: there may be megabytes of it, and thousands of words to be hidden."""
        if len(text) <= _SHORT_CHARACTERS:
            return self._redaction(text)
        return await asyncio.to_thread(self._redaction, text)

    def _failed(self, error: ServerError) -> str:
        words = _words(self._offer.server, error, self._redaction)
        if not isinstance(error, EndedError):
            return words
        unknown = " Whether the call did anything is not known: look before you make it again." * self.spec.writes
        return f"{words}{unknown} If its tools go on failing, do the work without them."


class MissingTool:
    """A tool that the run's requests offer since they began, and that its server did not list now.

    Such a server was away, mostly: it is asked again when the tool is called. What the tool does is taken for the
    worst. ``redaction``: as for any other.
    """

    def __init__(self, spec: ToolSpec, server_name: str, server: Server, redaction: Redaction) -> None:
        self.spec = replace(spec, writes=True, outside=True, resident=True)
        self._server_name = server_name
        self._server = server
        self._redaction = redaction
        self._found: McpTool | None = None

    def subject(self, arguments: Any) -> str:
        return self._called(self.spec.name).subject(arguments)

    async def run(self, arguments: Any) -> Outcome:
        """Raises ``ToolError``: the server is away still, or does not have it any more, and for all that may follow."""
        if self._found is None:
            _checked(self.spec.name, arguments)
            self._found = self._called(await self._name())
        return await self._found.run(arguments)

    async def _name(self) -> str:
        """What its server calls it."""
        try:
            listed = await self._server.tools()
        except ServerError as error:
            raise ToolError(_words(self._server_name, error, self._redaction)) from None
        for offer in offered({self._server_name: listed}).offers:
            if offer.spec.name == self.spec.name:
                return offer.tool
        raise ToolError(f"The MCP server {self._server_name} has no such tool any more: do the work without it.")

    def _called(self, tool: str) -> McpTool:
        return McpTool(Offer(self._server_name, tool, self.spec), self._server, self._redaction)


def _words(server: str, error: ServerError, redaction: Redaction) -> str:
    said = redaction(str(error))
    if isinstance(error, AwayError):
        return (
            f"The MCP server {server} is away, and the call was not made: it {said}. Do the work without its tools; "
            "call one again later only if you cannot."
        )
    return f"The MCP server {server} {said}."


def _checked(name: str, arguments: Any) -> dict[str, Any]:
    """What can be sent as JSON; whether it fits the schema is for the server to say."""
    if not isinstance(arguments, dict):
        raise MalformedInputError(f"The arguments of {name} were not a valid JSON object: send one.")
    try:
        json.dumps(arguments, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise MalformedInputError(
            f"The arguments of {name} hold what no JSON text can (a lone surrogate, NaN) or are nested too deep."
        ) from None
    return arguments
