"""A run's transcript: append-only, each message kept as the exact bytes that are stored and sent again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import orjson

from services.agent.tools import ToolCall, ToolResult
from services.jobs.models import StoredMessage

Block = dict[str, Any]


class Transcript:
    def __init__(self, stored: Sequence[StoredMessage]) -> None:
        """``stored``: what earlier attempts left, in order."""
        self.messages: list[dict[str, Any]] = [orjson.loads(message.body) for message in stored]

    def __len__(self) -> int:
        return len(self.messages)

    def append(self, role: Literal["user", "assistant"], content: Sequence[Block]) -> StoredMessage:
        """Add a message and return it as it is to be stored, numbered from 1."""
        body = orjson.dumps({"role": role, "content": list(content)})
        # Loaded again, so that a resumed transcript is the same as this one in every detail.
        self.messages.append(orjson.loads(body))
        return StoredMessage(len(self.messages), role, body)

    @property
    def last_role(self) -> str | None:
        return self.messages[-1]["role"] if self.messages else None

    def open_calls(self) -> list[ToolCall]:
        """The tool calls of the last message that nobody has answered yet."""
        if self.last_role != "assistant":
            return []
        return [_call(block) for block in self.messages[-1]["content"] if block["type"] == "tool_use"]

    def last_text(self) -> str:
        """The text of the last assistant message that has any."""
        for message in reversed(self.messages):
            if message["role"] == "assistant" and (text := _text(message["content"])):
                return text
        return ""

    def repeats(self, calls: Sequence[ToolCall], results: Sequence[ToolResult]) -> int:
        """How many turns in a row made ``calls`` and got ``results``; the one that is being answered is the first."""
        wanted = ([(call.name, call.input) for call in calls], [result.content for result in results])
        count = 1
        # Before the open calls: the results of the turn before, then its calls, and so on back.
        for place in range(len(self.messages) - 2, 0, -2):
            if _exchange(self.messages[place - 1], self.messages[place]) != wanted:
                break
            count += 1
        return count

    def times_said(self, text: str) -> int:
        """How often a user message of ours said just ``text``: what a resumed loop counts its nudges by."""
        return sum(message["role"] == "user" and _text(message["content"]) == text for message in self.messages)


def _call(block: Block) -> ToolCall:
    given = block["input"]
    malformed = given.get("malformed") if len(given) == 1 else None
    return ToolCall(block["id"], block["name"], malformed if isinstance(malformed, str) else given)


def _exchange(reply: Block, answer: Block) -> tuple[list[tuple[str, Any]], list[str]]:
    calls = [_call(block) for block in reply["content"] if block["type"] == "tool_use"]
    results = [block["content"] for block in answer["content"] if block["type"] == "tool_result"]
    return [(call.name, call.input) for call in calls], results


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
