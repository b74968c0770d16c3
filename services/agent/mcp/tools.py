"""The tools of MCP servers as tools of a run."""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from services.agent.mcp.failures import EndedError, ServerError
from services.agent.mcp.offering import Offer
from services.agent.mcp.redacting import Redaction
from services.agent.tools.calls import MalformedInputError, Outcome, ToolError, ToolSpec
from services.agent.tools.showing import clipped, visible


@dataclass(frozen=True, slots=True)
class Answer:
    """``text``: bounded, safe to show. ``is_error``: the tool itself says that it failed."""

    text: str
    is_error: bool


class Server(Protocol):
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
        text = self._redaction(answer.text)
        if answer.is_error:
            raise ToolError(text)
        return Outcome(text)

    def _failed(self, error: ServerError) -> str:
        words = f"The MCP server {self._offer.server} {clipped(visible(self._redaction(str(error))))}."
        if not isinstance(error, EndedError):
            return words
        unknown = " Whether the call did anything is not known: look before you make it again." * self.spec.writes
        return f"{words}{unknown} If its tools go on failing, do the work without them."


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
