"""A run's transcript as a message thread, in each of its views. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from services.contracts.rest import Run, Transcript, TranscriptMessage
from services.gateway.dialects.cody_batch.models import RawMessage, Thread, ThreadMessage, TokenUsage, View
from services.gateway.dialects.cody_batch.naming import thread_name

Block = Mapping[str, Any]
Turns = Mapping[int, Mapping[str, Any]]
"""The data of `turn.ended`, by the turn's number."""

_ROLES: Final[Mapping[str, Literal["human", "assistant"]]] = {"user": "human", "assistant": "assistant"}
_TEXT_TYPES: Final[Mapping[str, Literal["prompt", "response"]]] = {"user": "prompt", "assistant": "response"}
_WORDS: Final = ("prompt", "response")
_TOOLS: Final = ("tool_use", "tool_result")
_LIST_FILES: Final = "list_files"
_NO_FILES: Final = "No files."
_LEFT_OUT: Final = re.compile(r"\[(?:at least )?[\d,]+ more entries left out\]")


def thread(
    run: Run, transcript: Transcript, *, view: View = View.STANDARD, with_tools: bool = True, turns: Turns | None = None
) -> Thread:
    """``turns``: for the view `technical`; a turn that is not there has null for its usage and time."""
    messages = _messages(transcript.messages)
    if view is View.SIMPLIFIED or not with_tools:
        messages = (message for message in messages if message.type in _WORDS)
    raw = _raw(transcript.messages, turns or {}, with_tools=with_tools) if view is View.TECHNICAL else None
    return Thread(
        thread_id=thread_name(run.id),
        messages=list(messages),
        token_usage=_usage_of_run(run),
        raw_messages=list(raw) if raw is not None else None,
    )


def _messages(transcript: Iterable[TranscriptMessage]) -> Iterator[ThreadMessage]:
    tools: dict[str, str] = {}
    for message in transcript:
        for blocks in _together(message.content):
            if shown := _message(message, blocks, tools):
                yield shown


def _together(content: Any) -> Iterator[list[Block]]:
    """The blocks of a message one by one, but texts that follow one another as one."""
    texts: list[Block] = []
    for block in _blocks(content):
        if block.get("type") == "text":
            texts.append(block)
            continue
        if texts:
            yield texts
        texts = []
        yield [block]
    if texts:
        yield texts


def _message(message: TranscriptMessage, blocks: Sequence[Block], tools: dict[str, str]) -> ThreadMessage | None:
    """None for what only the view `technical` shows. ``tools``: which tool each call was of; calls are added."""
    first = blocks[0]
    kind: Literal["prompt", "response", "tool_call", "tool_result"]
    content: Any
    match first.get("type"):
        case "text":
            kind, content = _TEXT_TYPES[message.role], "\n\n".join(str(block.get("text", "")) for block in blocks)
        case "tool_use":
            tools[str(first.get("id"))] = str(first.get("name"))
            kind, content = "tool_call", {"tool": first.get("name"), "input": first.get("input")}
        case "tool_result":
            kind, content = "tool_result", {"result": _result(first, tools.get(str(first.get("tool_use_id"))))}
        case _:
            return None
    return ThreadMessage(role=_ROLES[message.role], content=content, timestamp=message.created_at, type=kind)


def _result(block: Block, tool: str | None) -> dict[str, Any]:
    text = "\n".join(str(each.get("text", "")) for each in _blocks(block.get("content")) if each.get("type") == "text")
    if block.get("is_error"):
        return {"error": text, "success": False}
    if tool == _LIST_FILES:
        return {"files": _files(text), "success": True}
    return {"output": text, "success": True}


def _files(text: str) -> list[str]:
    lines = text.split("\n")
    if _LEFT_OUT.fullmatch(lines[-1]):
        lines.pop()
    return [] if lines == [_NO_FILES] else lines


def _raw(transcript: Iterable[TranscriptMessage], turns: Turns, *, with_tools: bool) -> Iterator[RawMessage]:
    turn = 0
    for message in transcript:
        turn += message.role == "assistant"
        about = turns.get(turn, {}) if message.role == "assistant" else {}
        yield RawMessage(
            role=message.role,
            timestamp=message.created_at,
            content=[block for block in _blocks(message.content) if with_tools or block.get("type") not in _TOOLS],
            turn=turn if message.role == "assistant" else None,
            usage=_usage_of_turn(about["usage"]) if "usage" in about else None,
            duration_ms=about.get("durationMs"),
            stop_reason=about.get("stopReason"),
        )


def _blocks(content: Any) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or () if isinstance(block, Mapping)]


def _usage_of_run(run: Run) -> TokenUsage:
    used = run.usage
    return _usage(used.input_tokens, used.output_tokens, used.cache_creation_input_tokens, used.cache_read_input_tokens)


def _usage_of_turn(used: Mapping[str, Any]) -> TokenUsage:
    names = ("inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens")
    return _usage(*(int(used.get(name, 0)) for name in names))


def _usage(taken: int, given: int, cache_creation: int, cache_read: int) -> TokenUsage:
    return TokenUsage(
        input=taken,
        output=given,
        cache_creation=cache_creation,
        cache_read=cache_read,
        total=taken + given + cache_creation + cache_read,
    )
