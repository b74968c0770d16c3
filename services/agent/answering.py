"""What stands in the transcript where a reply, or a call of it, did not come to what the model meant. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from services.agent.model import INTERRUPTED, Reply
from services.agent.tools import Completion, ToolCall, ToolResult
from services.agent.tools.finishing import AskUser, TaskComplete, TaskCompleteInput

NOTED = "Noted."
CANCELLED = (
    "Cancelled: your user stopped the run before the result of this call was known. It may have taken effect outside "
    "of the worktree, or not; the worktree is as it was before the calls of this turn."
)
OTHERS_FAILED = "Not noted, as another call of this turn failed: see to that first."
MORE_WAS_SAID = "Not noted: your user has more to say."
NOT_ALONE = "Not asked: your user is waited for only where `ask_user` is the one call of a turn. Call it again, alone."
_THINKING = ("thinking", "redacted_thinking")
_INSTEAD = {"max_tokens": "(cut off)", INTERRUPTED: "(interrupted by the user)"}


def standing_blocks(reply: Reply) -> list[dict[str, Any]]:
    """The blocks of ``reply`` that can be sent back.

    Of a reply that was cut off only the text: a tool call cut short parses as something else, and thinking cut short
    has no signature. A message may be neither empty nor end with thinking.
    """
    is_cut_off = reply.stop_reason in ("max_tokens", INTERRUPTED)
    kept = [block for block in reply.content if not is_cut_off or block["type"] == "text"]
    if not kept or kept[-1]["type"] in _THINKING:
        kept.append(text_block(_INSTEAD.get(reply.stop_reason, "(no reply)")))
    return kept


def only_question(calls: Sequence[ToolCall]) -> ToolCall | None:
    """The call that asks the user, where that is all that ``calls`` do and it does ask something."""
    if [call.name for call in calls] == [AskUser.name] and question_of(calls[0]):
        return calls[0]
    return None


def question_of(call: ToolCall | None) -> str:
    """What ``call`` asks the user; empty where it asks nothing, or there is no call."""
    asked = call.input.get("question") if call is not None and isinstance(call.input, dict) else None
    return asked.strip() if isinstance(asked, str) else ""


def only_completes(calls: Sequence[ToolCall]) -> bool:
    """Whether there is nothing that ``calls`` do but to call the work done."""
    return all(call.name == TaskComplete.name for call in calls)


def completion_of(calls: Sequence[ToolCall]) -> Completion | None:
    """What the last of ``calls`` says that calls the work done; None where none does."""
    for call in reversed(calls):
        if call.name == TaskComplete.name:
            with suppress(ValidationError):
                given = TaskCompleteInput.model_validate(call.input)
                return Completion(given.summary, given.status)
    return None


def is_meant(completion: Completion, results: Sequence[ToolResult]) -> bool:
    """Whether the model can have meant it: it called the work done before it saw that another call had failed."""
    return completion.status == "blocked" or not any(result.is_error for result in results)


def instead_of(
    name: str, calls: Sequence[ToolCall], results: Sequence[ToolResult], words: str, *, is_error: bool = False
) -> list[ToolResult]:
    """``results``, with ``words`` for those calls of tool ``name`` that succeeded, but in vain."""
    return [
        replace(result, content=words, is_error=is_error) if call.name == name and not result.is_error else result
        for call, result in zip(calls, results, strict=True)
    ]


def text_block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def text_of(reply: Reply) -> str:
    return "\n".join(block["text"] for block in reply.content if block["type"] == "text")
