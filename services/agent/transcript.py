"""A run's transcript: append-only, each message kept as the exact bytes that are stored and sent again.

Only the last message is kept parsed: a run's memory is its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import orjson

from services.agent.tools import ToolCall, ToolResult
from services.jobs.models import StoredMessage

Block = dict[str, Any]
Role = Literal["user", "assistant"]

_OF_USER = b'{"role":"user"'

REPEATS_SEEN = 4
"""Turns in a row that are compared with one another."""


class Transcript:
    def __init__(self, stored: Sequence[StoredMessage]) -> None:
        """``stored``: what earlier attempts left, in order."""
        self.bodies: list[bytes] = [message.body for message in stored]
        self._last: dict[str, Any] | None = orjson.loads(self.bodies[-1]) if self.bodies else None
        self._exchanges = self._exchanges_stored()

    def __len__(self) -> int:
        return len(self.bodies)

    def append(self, role: Role, content: Sequence[Block]) -> StoredMessage:
        """Add a message and return it as it is to be stored, numbered from 1."""
        body = orjson.dumps({"role": role, "content": list(content)})
        self.bodies.append(body)
        # Loaded again, so that a resumed transcript is the same as this one in every detail.
        self._last = orjson.loads(body)
        if role == "assistant" and not self.open_calls():
            self._exchanges = []
        return StoredMessage(len(self.bodies), role, body)

    @property
    def last_role(self) -> Role | None:
        return self._last["role"] if self._last else None

    def open_calls(self) -> list[ToolCall]:
        """The tool calls of the last message that nobody has answered yet."""
        if self._last is None or self.last_role != "assistant":
            return []
        return [_call(block) for block in self._last["content"] if block.get("type") == "tool_use"]

    def last_text(self) -> str:
        """The text of the last assistant message that has any."""
        for body in reversed(self.bodies):
            message = orjson.loads(body)
            if message["role"] == "assistant" and (text := _text(message["content"])):
                return text
        return ""

    def repeats(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> int:
        """How many turns in a row made ``calls`` and got ``results``, this one included, which is noted."""
        exchange = _digest([(call.name, call.input) for call in calls], [result.content for result in results])
        self._exchanges = [*self._exchanges, exchange][-REPEATS_SEEN:]
        count = 0
        for earlier in reversed(self._exchanges):
            if earlier != exchange:
                break
            count += 1
        return count

    def _exchanges_stored(self) -> list[bytes]:
        """The newest turns whose calls were answered."""
        found: list[bytes] = []
        place = len(self.bodies) - (2 if self.last_role == "assistant" else 1)
        while place > 0 and len(found) < REPEATS_SEEN - 1:
            exchange = _exchange(orjson.loads(self.bodies[place - 1]), orjson.loads(self.bodies[place]))
            if exchange is None:
                break
            found.append(exchange)
            place -= 2
        return found[::-1]

    def times_said(self, text: str) -> int:
        """How often a user message of ours said just ``text``: what a resumed loop counts its nudges by."""
        return self.bodies.count(orjson.dumps({"role": "user", "content": [{"type": "text", "text": text}]}))

    def times_begun(self, mark: str, *, since: str) -> int:
        """How often a text in a user message of ours began with ``mark``, behind the last that was ``since``."""
        beginning = orjson.dumps({"type": "text", "text": mark})[:-2]  # quotes within other strings are escaped
        start = orjson.dumps({"type": "text", "text": since})
        count = 0
        for body in reversed(self.bodies):
            if body.startswith(_OF_USER):
                if start in body:
                    break
                count += body.count(beginning)
        return count


def _call(block: Block) -> ToolCall:
    given = block["input"]
    malformed = given.get("malformed") if len(given) == 1 else None
    return ToolCall(block["id"], block["name"], malformed if isinstance(malformed, str) else given)


def _exchange(reply: Block, answer: Block) -> bytes | None:
    """None where ``reply`` made no calls, or ``answer`` is none to them."""
    calls = [_call(block) for block in reply["content"] if block.get("type") == "tool_use"]
    results = [block["content"] for block in answer["content"] if block.get("type") == "tool_result"]
    if not calls or answer["role"] != "user":
        return None
    return _digest([(call.name, call.input) for call in calls], results)


def _digest(calls: Sequence[tuple[str, Any]], results: Sequence[str]) -> bytes:
    encoded = orjson.dumps([calls, results], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(encoded, digest_size=16).digest()


def _text(content: Sequence[Block]) -> str:
    return "\n\n".join(block["text"] for block in content if block["type"] == "text")


def result_blocks(results: Sequence[ToolResult]) -> list[Block]:
    """All results of a turn as one user message has them, in call order."""
    return [
        {
            "type": "tool_result",
            "tool_use_id": result.tool_use_id,
            "content": result.content,
            **({"is_error": True} if result.is_error else {}),
        }
        for result in results
    ]
