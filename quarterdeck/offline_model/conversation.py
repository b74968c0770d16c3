"""Who said what in a request: checks the order of turns as the real API does, and gathers calls with their results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.offline_model.wire import (
    CountRequest,
    Message,
    RequestError,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)

ASK_USER = "ask_user"


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a tool."""

    tool: str
    input: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said and did: ``calls`` and ``results`` have the same length and order."""

    calls: tuple[Call, ...]
    results: tuple[Result, ...]


@dataclass(slots=True)
class Conversation:
    """``speeches`` holds each thing the user said, with the number of tool turns that came before it."""

    speeches: list[tuple[str, int]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)


def read_conversation(request: CountRequest) -> Conversation:
    """Return the request's messages as turns; raises ``RequestError`` for what the real API refuses too.

    Refused: an assistant's message first or last, a result without its call in the message before, a call without
    its result in the message after, results behind other blocks, tool or call names that are not unique.
    """
    _require_unique_tools(tool.name for tool in request.tools)
    messages = _merge_by_role(request.messages)
    if messages[0].role != "user":
        raise RequestError('messages.0.role: the first message must use the "user" role')
    if messages[-1].role != "user":
        raise RequestError(
            f"messages.{len(request.messages) - 1}.role: prefilling the assistant's message is not supported; "
            'the last message must use the "user" role'
        )
    conversation = Conversation()
    uses: list[ToolUseBlock] = []
    seen: set[str] = set()
    for message in messages:
        if message.role == "assistant":
            uses = [block for block in message.content if isinstance(block, ToolUseBlock)]
            _require_new(uses, seen)
        else:
            _add_user_message(conversation, message, uses)
            uses = []
    return conversation


def _merge_by_role(messages: Sequence[Message]) -> list[Message]:
    """Neighbours of one role are one turn to the API; system messages in between belong to none."""
    merged: list[Message] = []
    for message in messages:
        if message.role == "system":
            continue
        if merged and merged[-1].role == message.role:
            content = [*merged[-1].content, *message.content]
            merged[-1] = merged[-1].model_copy(update={"content": content})
        else:
            merged.append(message)
    if not merged:
        raise RequestError('messages: at least one message with the "user" role is required')
    return merged


def _add_user_message(conversation: Conversation, message: Message, uses: list[ToolUseBlock]) -> None:
    results = _results_by_use(message, uses)
    answered = [results[use.id] for use in uses]
    if uses:
        conversation.turns.append(
            Turn(
                tuple(Call(use.name, use.input) for use in uses),
                tuple(Result(block.text, is_error=bool(block.is_error)) for block in answered),
            )
        )
    asked = zip(uses, answered, strict=True)
    answers = [block.text for use, block in asked if use.name == ASK_USER and not block.is_error]
    # Some agents answer a question in its result; others only acknowledge it there, and the answer is a message.
    said = [block.text for block in message.content if isinstance(block, TextBlock)] or answers
    if said:
        conversation.speeches.append(("\n".join(said), len(conversation.turns)))


def _results_by_use(message: Message, uses: list[ToolUseBlock]) -> dict[str, ToolResultBlock]:
    known = {use.id for use in uses}
    results: dict[str, ToolResultBlock] = {}
    for position, block in enumerate(message.content):
        if not isinstance(block, ToolResultBlock):
            continue
        if block.tool_use_id not in known:
            raise RequestError(
                f"messages: unexpected tool_use_id {block.tool_use_id!r} in a tool_result block: each needs its "
                "tool_use block in the message before"
            )
        if block.tool_use_id in results or position != len(results):
            raise RequestError(
                f"messages: the tool_result for {block.tool_use_id!r} must be given once, and before other blocks"
            )
        results[block.tool_use_id] = block
    if missing := sorted(known - results.keys()):
        raise RequestError(f"messages: tool_use ids without a tool_result in the next message: {', '.join(missing)}")
    return results


def _require_new(uses: list[ToolUseBlock], seen: set[str]) -> None:
    for use in uses:
        if use.id in seen:
            raise RequestError(f"messages: tool_use ids must be unique, {use.id!r} is not")
        seen.add(use.id)


def _require_unique_tools(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RequestError(f"tools: tool names must be unique, {name!r} is not")
        seen.add(name)
