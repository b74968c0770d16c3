"""Which of the tools that servers list are offered to the model, and how they are told of: pure, bounded, frozen."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.agent.mcp.naming import offered_names
from services.agent.tools.calls import ToolSpec
from services.agent.tools.showing import shortened, visible, visible_line

MAX_TOOLS = 128
MAX_DESCRIPTION_CHARACTERS = 4_000
MAX_SCHEMA_BYTES = 64 * 1024
MAX_ALL_SCHEMAS_BYTES = 512 * 1024
"""Of all tools together: every request to the model carries them."""
MAX_SCHEMA_DEPTH = 64
_NAME_CHARACTERS = 60

# What the model service refuses: one such schema would fail every request of the run.
_PROPERTY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REFUSED_ON_TOP = ("oneOf", "anyOf", "allOf")


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server told of it; nothing about it may be taken for granted."""

    name: str
    description: str
    schema: Mapping[str, Any]
    read_only: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """``tool``: what ``server`` calls it; ``spec.name``: what the model calls it."""

    server: str
    tool: str
    spec: ToolSpec


@dataclass(frozen=True, slots=True)
class Offers:
    """``offers``: sorted by the name that the model uses. ``problems``: a line each for what was left out."""

    offers: tuple[Offer, ...]
    problems: tuple[str, ...]


def offered(listings: Mapping[str, Sequence[ListedTool]]) -> Offers:
    """What is offered of ``listings`` (by server's name): the same whatever order a server lists its tools in."""
    problems: list[str] = []
    found: list[Offer] = []
    for server, listing in sorted(listings.items()):
        tools = _distinct(server, listing, problems)
        names = offered_names(server, tools)
        for tool in tools.values():
            if problem := schema_problem(tool.schema):
                problems.append(f"MCP server {server}: its tool {_shown(tool.name)} is left out: {problem}.")
            else:
                found.append(Offer(server, tool.name, _spec(server, names[tool.name], tool)))
    found.sort(key=lambda offer: offer.spec.name)
    return Offers(tuple(_within_bounds(found, problems)), tuple(problems))


def _distinct(server: str, listing: Sequence[ListedTool], problems: list[str]) -> dict[str, ListedTool]:
    tools: dict[str, ListedTool] = {}
    for tool in listing:
        if not tool.name.strip():
            problems.append(f"MCP server {server}: a tool without a name is left out.")
        elif tool.name in tools:
            problems.append(f"MCP server {server}: it lists {_shown(tool.name)} more than once; the first is used.")
        else:
            tools[tool.name] = tool
    return dict(sorted(tools.items()))


def _within_bounds(found: Sequence[Offer], problems: list[str]) -> list[Offer]:
    kept: list[Offer] = []
    left_out: dict[str, int] = {}
    room = MAX_ALL_SCHEMAS_BYTES
    for offer in found:
        size = len(_encoded(offer.spec.input_schema))
        if len(kept) == MAX_TOOLS or size > room:
            left_out[offer.server] = left_out.get(offer.server, 0) + 1
        else:
            kept.append(offer)
            room -= size
    problems += [
        f"MCP server {server}: {count} of its tools are left out: a run has at most {MAX_TOOLS}, with schemas of "
        f"{MAX_ALL_SCHEMAS_BYTES // 1024} KB in all. Configure fewer servers, or let this one list fewer."
        for server, count in left_out.items()
    ]
    return kept


def _spec(server: str, name: str, tool: ListedTool) -> ToolSpec:
    words = tool.description.strip() or f"The tool {tool.name} of the MCP server {server}."
    # Cut before it is spelled out too, as there may be very much of it.
    described = shortened(visible(words[: MAX_DESCRIPTION_CHARACTERS + 1]), MAX_DESCRIPTION_CHARACTERS)
    schema = _visible_strings(dict(tool.schema))
    return ToolSpec(name, described, schema, writes=not tool.read_only, outside=True, resident=True)


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Why the model cannot be given ``schema``, or None."""
    if _is_deeper(schema, MAX_SCHEMA_DEPTH):
        return f"its schema is nested more than {MAX_SCHEMA_DEPTH} levels deep"
    try:
        size = len(_encoded(schema))
    except (ValueError, TypeError):
        return "its schema is not JSON"
    if size > MAX_SCHEMA_BYTES:
        return f"its schema has {size:,} bytes, more than {MAX_SCHEMA_BYTES:,}"
    return _shape_problem(schema)


def _shape_problem(schema: Mapping[str, Any]) -> str | None:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("type") != "object":
        return "its schema is not of `type: object`"
    if clashing := [word for word in _REFUSED_ON_TOP if word in schema]:
        return f"its schema has `{clashing[0]}` on its top level, which the model does not take"
    if not isinstance(properties, dict) or not all(isinstance(rules, dict | bool) for rules in properties.values()):
        return "its schema's `properties` are not schemas"
    if unfit := [name for name in properties if not _PROPERTY.fullmatch(name)]:
        return f"the model takes no argument named {_shown(unfit[0])}"
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return "its schema's `required` is not a list of names"
    return None


def _encoded(schema: Mapping[str, Any]) -> bytes:
    """Raises ``ValueError`` for what is in no JSON text: NaN, lone surrogates, numbers of thousands of digits."""
    return json.dumps(schema, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether ``value`` is nested deeper than that; without recursion, as it may be as deep as it likes."""
    layer = [value]
    for _ in range(levels):
        layer = [child for parent in layer for child in _children(parent)]
        if not layer:
            return False
    return True


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _visible_strings(value: Any) -> Any:
    """``value`` with the control characters of all its strings spelled out."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [_visible_strings(item) for item in value]
    if isinstance(value, dict):
        return {visible(key): _visible_strings(item) for key, item in value.items()}
    return value


def _shown(name: str) -> str:
    return f"`{shortened(visible_line(name[: _NAME_CHARACTERS + 1]), _NAME_CHARACTERS)}`"
