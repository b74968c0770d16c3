"""A message as server-sent events, in the order and with the fragments of the real service. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

# Cut behind each backslash, so that a client that parses fragments by themselves meets every escape in two parts.
_JSON_FRAGMENT = re.compile(r"[^\\]{0,11}\\|[^\\]{1,12}")
_TEXT_FRAGMENT = re.compile(r"\S+\s*|\s+")


def events(message: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield each event's name and its bytes on the wire; usage in `message_delta` is cumulative."""
    usage = message["usage"]
    opening = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield _event("message_start", message=opening)
    for index, block in enumerate(message["content"]):
        yield _event("content_block_start", index=index, content_block=_opened(block))
        if index == 0:
            yield _event("ping")
        for delta in _deltas(block):
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield _event("message_delta", delta=ending, usage=usage)
    yield _event("message_stop")


def _opened(block: dict[str, Any]) -> dict[str, Any]:
    return {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for text in _TEXT_FRAGMENT.findall(block["text"]):
            yield {"type": "text_delta", "text": text}
        return
    # The real service, too, begins with an empty fragment.
    for partial in ("", *_JSON_FRAGMENT.findall(json.dumps(block["input"]))):
        yield {"type": "input_json_delta", "partial_json": partial}


def _event(name: str, **data: Any) -> tuple[str, bytes]:
    return name, b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **data}))
