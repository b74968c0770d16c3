"""Makes the API's message out of a step: ids by hash, usage by byte lengths: equal requests get equal replies."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson

from quarterdeck.offline_model.searching import Step
from quarterdeck.offline_model.wire import MODEL_NAME

_CACHE_CONTROL = re.compile(rb'"cache_control"\s*:\s*\{')
BYTES_PER_TOKEN = 4
UNCACHED_TOKENS = 3
"""With caching the real service counts a few tokens behind the last breakpoint as plain input."""


def compose(step: Step, decoded: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Return the Messages API's message for ``step``, as the reply to the request ``body`` (``decoded``: the same)."""
    digest = hashlib.sha256(body).hexdigest()
    calls = [
        {"type": "tool_use", "id": f"toolu_{_derived(digest, position)}", "name": call.tool, "input": call.input}
        for position, call in enumerate(step.calls)
    ]
    content: list[dict[str, Any]] = [{"type": "text", "text": step.text}, *calls]
    stop_reason = "tool_use" if calls else "end_turn"
    if _tokens(content) > decoded["max_tokens"]:
        kept = step.text.encode()[: decoded["max_tokens"] * BYTES_PER_TOKEN].decode(errors="ignore")
        content, stop_reason = [{"type": "text", "text": kept}], "max_tokens"
    return {
        "id": f"msg_{_derived(digest, -1)}",
        "type": "message",
        "role": "assistant",
        "model": MODEL_NAME,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            **_input_usage(decoded, caches=_CACHE_CONTROL.search(body) is not None),
            "output_tokens": min(_tokens(content), decoded["max_tokens"]),
        },
    }


def count_input_tokens(decoded: dict[str, Any]) -> int:
    """Estimate the tokens of tools, system prompt and messages; at least 1."""
    return _prefix_tokens(decoded, len(decoded["messages"]))


def _input_usage(decoded: dict[str, Any], *, caches: bool) -> dict[str, int]:
    """With a cache breakpoint, all before the last message counts as read from the cache, the rest as written to it."""
    total = count_input_tokens(decoded)
    read = written = 0
    if caches:
        before = len(decoded["messages"]) - 1
        read = _prefix_tokens(decoded, before) if before else 0
        written = max(0, total - read - UNCACHED_TOKENS)
    return {
        "input_tokens": total - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
    }


def _prefix_tokens(decoded: dict[str, Any], messages: int) -> int:
    parts = [decoded.get("tools", []), decoded.get("system", ""), *decoded["messages"][:messages]]
    return sum(_tokens(part) for part in parts)


def _tokens(part: Any) -> int:
    return -(-len(orjson.dumps(part)) // BYTES_PER_TOKEN)


def _derived(digest: str, position: int) -> str:
    return hashlib.sha256(f"{digest}:{position}".encode()).hexdigest()[:24]
