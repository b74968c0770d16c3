"""The Claude tool loop of one attempt: turn → reply → checkpoint → tools → checkpoint, until it is finished.

It begins wherever the transcript stands, so that a resumed attempt is the same loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from services.agent import events
from services.agent.model import Fragment, Reply
from services.agent.prompts import prompt
from services.agent.tools import Completion, Toolbox, ToolCall, ToolResult
from services.agent.tools.finishing import TaskComplete
from services.agent.transcript import Transcript, result_blocks
from services.contracts.words import ExitReason
from services.jobs.models import Checkpoint, ModelUse, SavedTree, StoredMessage
from services.jobs.unit import Draft

# Replies that are not over, and the prompt that has the model go on with them.
_GOES_ON = {"max_tokens": "cut_off", "pause_turn": "paused"}
_THINKING = ("thinking", "redacted_thinking")

MAX_NUDGES = 1
MAX_CUT_OFFS = 2
MAX_MALFORMED = 3
MAX_IDENTICAL = 4
NUDGE_AT_IDENTICAL = 3


class RunFailedError(Exception):
    """The attempt cannot be finished. ``retryable``: another attempt may well be."""

    def __init__(self, reason: ExitReason, words: str, *, retryable: bool = False) -> None:
        super().__init__(words)
        self.reason = reason
        self.retryable = retryable


class Model(Protocol):
    """What the loop asks for replies; ``services.agent.model.Claude`` with everything fixed but the messages."""

    name: str

    async def __call__(
        self,
        transcript: Transcript,
        on_fragment: Callable[[Fragment], None],
        on_reset: Callable[[str], Awaitable[None]],
    ) -> Reply: ...


class Deltas(Protocol):
    def add(self, turn: int, fragment: Fragment) -> None: ...
    async def flush(self) -> None: ...
    async def reset(self, turn: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Finished:
    """The model is done."""

    summary: str
    blocked: bool = False


class Loop:
    def __init__(
        self,
        *,
        model: Model,
        toolbox: Toolbox,
        transcript: Transcript,
        deltas: Deltas,
        save: Callable[[Checkpoint], Awaitable[None]],
        saved_tree: Callable[[bool], Awaitable[SavedTree | None]],
        turns: int,
        max_turns: int,
        ends_on_text: bool,
    ) -> None:
        """``save`` stores a checkpoint, fenced; ``saved_tree`` has what to store of the worktree, given whether
        a tool wrote; None where that is as it was.

        ``turns``: requests that earlier attempts made. ``ends_on_text``: a reply without tool calls is the answer.
        """
        self._model = model
        self._toolbox = toolbox
        self._transcript = transcript
        self._deltas = deltas
        self._save = save
        self._saved_tree = saved_tree
        self._turn = turns
        self._max_turns = max_turns
        self._ends_on_text = ends_on_text
        self._malformed = 0

    async def run(self) -> Finished:
        """Drive turns until the model is done; raises ``RunFailedError``, and what ``save`` and the model raise."""
        while True:
            finished = await self._after_reply() if self._transcript.last_role == "assistant" else None
            if finished is not None:
                return finished
            if self._transcript.last_role == "user":
                await self._ask()

    async def _ask(self) -> None:
        """One turn's request: checks the limits first, stores the reply."""
        if self._turn >= self._max_turns:
            raise RunFailedError(ExitReason.MAX_TURNS, f"not finished after {self._max_turns} turns")
        self._turn += 1
        turn = self._turn
        began = time.monotonic()
        reply = await self._model(
            self._transcript,
            lambda fragment: self._deltas.add(turn, fragment),
            lambda reason: self._deltas.reset(turn, reason),
        )
        await self._deltas.flush()
        told = [events.turn_ended(turn, reply, timedelta(seconds=time.monotonic() - began))]
        await self._keep(reply, told)

    async def _keep(self, reply: Reply, told: list[Draft]) -> None:
        """Store the reply as far as it can stand in a transcript, before anything is done about it."""
        if (failure := self._failure(reply)) is not None:
            await self._save(Checkpoint(usage=_used(reply), events=told))  # it was paid for all the same
            raise failure
        messages = [self._transcript.append("assistant", _standing(reply))]
        calls = self._transcript.open_calls()
        told += [events.tool_started(self._turn, call, self._toolbox.subject(call)) for call in calls]
        if not calls and (asked := _GOES_ON.get(reply.stop_reason)):
            messages.append(self._say(prompt(asked)))
            told.append(self._next_turn())
        await self._save(Checkpoint(messages=messages, usage=_used(reply), events=told))

    def _failure(self, reply: Reply) -> RunFailedError | None:
        """Why the run cannot go on from ``reply``."""
        match reply.stop_reason:
            case "refusal":
                return RunFailedError(ExitReason.MODEL_REFUSED, _text_of(reply) or "the model refused the request")
            case "model_context_window_exceeded":
                words = "the conversation no longer fits the model's window"
                return RunFailedError(ExitReason.CONTEXT_EXHAUSTED, words)
            case "max_tokens" if self._transcript.times_said(prompt("cut_off")) >= MAX_CUT_OFFS:
                words = f"its replies were cut off at max_tokens {MAX_CUT_OFFS + 1} times"
                return RunFailedError(ExitReason.STUCK, words)
            case _:
                return None

    async def _after_reply(self) -> Finished | None:
        """Do what the last reply asks for; None where the model is to be asked again."""
        calls = self._transcript.open_calls()
        if calls:
            return await self._run_tools(calls)
        if self._ends_on_text or self._transcript.times_said(prompt("nudge")) >= MAX_NUDGES:
            return Finished(self._transcript.last_text())
        message = self._say(prompt("nudge"))
        await self._save(Checkpoint(messages=[message], events=[self._next_turn()]))
        return None

    async def _run_tools(self, calls: list[ToolCall]) -> Finished | None:
        began = time.monotonic()
        results = await self._toolbox.run(calls)
        took = timedelta(seconds=time.monotonic() - began)
        if self._toolbox.completion is not None:
            if _stands(self._toolbox.completion, results):
                # Stored no further: a resumed attempt runs these calls again, from the checkpoint before them.
                return _finished(self._toolbox.completion)
            self._toolbox.completion = None
            results = [_taken_back(call, result) for call, result in zip(calls, results, strict=True)]
        if self._toolbox.question is not None:
            return Finished(self._toolbox.question)
        await self._save(await self._results_checkpoint(calls, results, took))
        return None

    async def _results_checkpoint(
        self, calls: list[ToolCall], results: list[ToolResult], took: timedelta
    ) -> Checkpoint:
        content = result_blocks(results)
        if self._repeats(calls, results) == NUDGE_AT_IDENTICAL:
            content.append(_text(prompt("repeating")))
        message = self._transcript.append("user", content)
        told = [events.tool_ended(self._turn, c, r, took) for c, r in zip(calls, results, strict=True)]
        changes = [change for result in results for change in result.changed]
        told += [events.file_changed(change) for change in changes]
        tree = await self._saved_tree(bool(changes))
        return Checkpoint(messages=[message], tree=tree, events=[*told, self._next_turn()])

    def _repeats(self, calls: list[ToolCall], results: list[ToolResult]) -> int:
        """How many turns in a row were just like this one; raises where they get nowhere."""
        self._malformed = self._malformed + 1 if all(result.malformed for result in results) else 0
        if self._malformed >= MAX_MALFORMED:
            raise RunFailedError(ExitReason.STUCK, f"{MAX_MALFORMED} turns in a row had only malformed tool calls")
        repeats = self._transcript.repeats(calls, results)
        if repeats >= MAX_IDENTICAL:
            raise RunFailedError(ExitReason.STUCK, f"made the same call {MAX_IDENTICAL} times in a row")
        return repeats

    def _say(self, text: str) -> StoredMessage:
        return self._transcript.append("user", [_text(text)])

    def _next_turn(self) -> Draft:
        return events.turn_started(self._turn + 1, self._model.name)


def _used(reply: Reply) -> ModelUse:
    return ModelUse(reply.usage, reply.model)


def _standing(reply: Reply) -> list[dict[str, Any]]:
    """The blocks of ``reply`` that can be sent back.

    Of a reply that was cut off only the text: a tool call cut short parses as something else, and thinking cut short
    has no signature. A message may be neither empty nor end with thinking.
    """
    is_cut_off = reply.stop_reason == "max_tokens"
    kept = [block for block in reply.content if not is_cut_off or block["type"] == "text"]
    if not kept or kept[-1]["type"] in _THINKING:
        kept.append(_text("(cut off)" if is_cut_off else "(no reply)"))
    return kept


def _stands(completion: Completion, results: list[ToolResult]) -> bool:
    """Whether the model can have meant it: it called the work done before it saw that another call had failed."""
    return completion.status == "blocked" or not any(result.is_error for result in results)


def _taken_back(call: ToolCall, result: ToolResult) -> ToolResult:
    if call.name != TaskComplete.name:
        return result
    return replace(result, content="Not noted, as another call of this turn failed: see to that first.", is_error=True)


def _finished(completion: Completion) -> Finished:
    return Finished(completion.summary, blocked=completion.status == "blocked")


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _text_of(reply: Reply) -> str:
    return "\n".join(block["text"] for block in reply.content if block["type"] == "text")
