"""The tools that a request offers, called by the input names of the request's own schemas and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quarterdeck.offline_model.conversation import Call
from quarterdeck.offline_model.wire import Tool, ToolChoice

# Other agents name the same inputs otherwise; the first name that the schema has is used.
_OTHER_NAMES = {
    "pattern": ("regex", "query"),
    "path": ("file_path", "file"),
    "old_string": ("old_str", "old_text"),
    "new_string": ("new_str", "new_text"),
    "max_results": ("limit",),
    "summary": ("message", "result"),
}


class Toolbox:
    """Answers which tools there are and builds calls to them."""

    def __init__(self, tools: Sequence[Tool], choice: ToolChoice | None) -> None:
        forbidden = choice is not None and choice.type == "none"
        self._properties: dict[str, dict[str, Any]] = {
            tool.name: _properties(tool) for tool in ([] if forbidden else tools)
        }
        self.may_call_several = choice is None or not choice.disable_parallel_tool_use

    def __contains__(self, tool: str) -> bool:
        return tool in self._properties

    def missing(self, *tools: str) -> list[str]:
        return [tool for tool in tools if tool not in self]

    def call(self, tool: str, **values: Any) -> Call:
        """Build a call to an offered ``tool``; a value that is None or that its schema has no name for is left out."""
        properties = self._properties[tool]
        named = {_name_in(properties, name): value for name, value in values.items() if value is not None}
        return Call(
            tool,
            {name: _at_most(properties.get(name), value) for name, value in named.items() if name is not None},
        )


def _properties(tool: Tool) -> dict[str, Any]:
    properties = tool.input_schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _name_in(properties: dict[str, Any], name: str) -> str | None:
    candidates = (name, *_OTHER_NAMES.get(name, ()))
    # A tool without a schema gets the plain names; it can say itself what is wrong with them.
    return next((each for each in candidates if each in properties or not properties), None)


def _at_most(schema: Any, value: Any) -> Any:
    """Lower a number to the schema's maximum, so that asking for much is never refused."""
    maximum = schema.get("maximum") if isinstance(schema, dict) else None
    return min(value, maximum) if type(value) is int and type(maximum) is int else value
