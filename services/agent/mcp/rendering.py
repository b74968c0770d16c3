"""What a server answered to a call, as text for the model."""

import json
from typing import Any, assert_never

from mcp import types

from services.agent.tools.showing import shortened, visible_line

_LINE_CHARACTERS = 300
# More is not laid out in lines: of a few megabytes, nested deep, that would make hundreds.
_LAID_OUT_CHARACTERS = 100_000
NOTHING = "The tool answered nothing."


def rendered(result: types.CallToolResult) -> str:
    """All text of ``result``, as it came; what is no text is a line of words each."""
    parts = [_words(block) for block in result.content]
    if result.structured_content is not None and not any(isinstance(b, types.TextContent) for b in result.content):
        # Beside text it says the same again: servers are told to give it as text too.
        parts.append(_json(result.structured_content))
    return "\n".join(part for part in parts if part) or NOTHING


def _words(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent():
            return _not_shown("image", block.mime_type, block.data)
        case types.AudioContent():
            return _not_shown("sound", block.mime_type, block.data)
        case types.ResourceLink():
            described = f": {block.description}" if block.description else ""
            return f"[link to the resource {_line(block.uri)} ({_line(block.name)}){_line(described)}]"
        case types.EmbeddedResource():
            return _embedded(block.resource)
        case _:
            assert_never(block)


def _embedded(resource: types.TextResourceContents | types.BlobResourceContents) -> str:
    if isinstance(resource, types.TextResourceContents):
        return f"[resource {_line(resource.uri)}]\n{resource.text}"
    return _not_shown(f"resource {_line(resource.uri)}", resource.mime_type, resource.blob)


def _not_shown(what: str, mime_type: str | None, encoded: str) -> str:
    size = len(encoded) * 3 // 4
    return f"[{what} of type {_line(mime_type or 'unknown')}, {size:,} bytes: cannot be shown here]"


def _line(text: str) -> str:
    return shortened(visible_line(text[: _LINE_CHARACTERS + 1]), _LINE_CHARACTERS)


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) > _LAID_OUT_CHARACTERS else json.dumps(value, ensure_ascii=False, indent=1)
