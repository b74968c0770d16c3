"""The Claude tool loop of one attempt: turn → reply → checkpoint → tools → checkpoint, until it is finished.

It begins wherever the transcript stands, so that a resumed attempt is the same loop. A checkpoint of results is stored
while the next request is under way, and one of a reply while tools run that only read, or with their results where
those are there at once: what follows from either is stored behind it, so a kill between them costs nothing that was
checkpointed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from services.agent import events
from services.agent.answering import (
    MORE_WAS_SAID,
    NOT_ALONE,
    OTHERS_FAILED,
    instead_of,
    is_meant,
    only_question,
    question_of,
    standing_blocks,
    text_block,
    text_of,
)
from services.agent.conversation import Conversation, Heard
from services.agent.model import Fragment, Reply, Watch
from services.agent.prompts import prompt
from services.agent.saving import Saving
from services.agent.tools import FileChange, Toolbox, ToolCall, ToolResult
from services.agent.tools.finishing import AskUser, TaskComplete
from services.agent.transcript import Transcript, result_blocks
from services.contracts.words import ExitReason
from services.jobs.models import Checkpoint, ModelUse, SavedTree, Standing, StoredMessage
from services.jobs.unit import Draft

# Replies that are not over, and the prompt that has the model go on with them.
_GOES_ON = {"max_tokens": "cut_off", "pause_turn": "paused", "compaction": "paused"}

_MOST_FILES_TOLD = 1_000

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
    """What the loop asks for replies: the run's model, with everything fixed but the messages."""

    @property
    def name(self) -> str: ...

    @property
    def spent_microusd(self) -> int:
        """What the run's requests have cost so far, as far as that is known."""
        ...

    @property
    def shares_budget(self) -> bool:
        """Whether others count on what is stored of the run's use, and on what the next request reserves."""
        ...

    async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
        """The answer to ``messages``, each encoded. Raises what ends the attempt."""
        ...

    def used(self, reply: Reply) -> ModelUse:
        """What ``reply`` used, with its price; counts it."""
        ...


class Deltas(Protocol):
    def add(self, turn: int, fragment: Fragment) -> None: ...
    async def flush(self) -> None: ...
    async def reset(self, turn: int, reason: str) -> None: ...


@dataclass(frozen=True)
class Finished:
    """The model is done, or its user is."""

    summary: str
    blocked: bool = False
    read_through: int = 0
    """The highest number of the user's messages that was heard and may not be stored as read; 0: none."""


@dataclass(frozen=True)
class Parked:
    """It is its user's turn; nothing that was said is unread. ``summary``: what the model said last."""

    summary: str


@dataclass
class Durable:
    """Where a loop keeps what must not be lost."""

    save: Callable[[Checkpoint], Awaitable[Standing]]
    """Stores a checkpoint, fenced."""
    saved_tree: Callable[[Sequence[FileChange] | None], Awaitable[SavedTree | None]]
    """What to store of the worktree, given what tools wrote (None: not known); None where that is as it was."""
    changed: Callable[[], Sequence[FileChange]] = tuple
    """What the last ``saved_tree`` found to differ from the one before it."""


@dataclass
class Limits:
    max_turns: int
    turns: int = 0
    """Requests that earlier attempts made."""


@dataclass
class _Turn:
    """What is under way."""

    number: int
    is_sure: bool = True
    """Whether all that was written since everything was looked at is what tools have told of."""
    is_open: bool = False
    """Whether something else may write in the worktree at any time."""
    malformed: int = 0
    """Turns in a row that had only malformed calls."""
    results: list[ToolResult] | None = None
    """Of calls that were made with what ended the loop, for when it goes on all the same."""


class Loop:
    def __init__(
        self,
        *,
        model: Model,
        toolbox: Toolbox,
        transcript: Transcript,
        deltas: Deltas,
        durable: Durable,
        limits: Limits,
        conversation: Conversation | None = None,
        ends_on_text: bool = False,
    ) -> None:
        """``conversation``: with the run's user, who can be asked and waited for; None: the model works alone.

        ``ends_on_text``: a reply without tool calls is the result.
        """
        self._model = model
        self._toolbox = toolbox
        self._transcript = transcript
        self._deltas = deltas
        self._durable = durable
        self._max_turns = limits.max_turns
        self._conversation = conversation
        self._ends_on_text = ends_on_text
        self._turn = _Turn(limits.turns)
        self._saving = Saving(self._stored)
        self._is_resumed = transcript.last_role == "assistant"
        self._interrupt = conversation.interrupt if conversation is not None else None

    async def notice(self) -> None:
        """The user said something: if that is to be heard at once, what is under way is broken off."""
        if self._conversation is not None:
            await self._conversation.notice()

    async def run(self) -> Finished | Parked:
        """Drive turns until the model is done or waits for its user; where that does not stand, as its user has said
        something since, run it again.

        Raises ``RunFailedError``, and what saving and the model raise.
        """
        try:
            while True:
                if self._transcript.last_role == "assistant":
                    ended = await self._after_reply()
                    self._is_resumed = False
                    if ended is not None:
                        return ended
                if self._transcript.last_role == "user":
                    await self._ask()
        except Exception:
            await self._saving.done()  # it is about to be stored how the run ended: what it did, and paid, comes first
            raise
        finally:
            await self._saving.settle()

    @property
    def had_ended(self) -> bool:
        """Whether the transcript ends where the model called its work done."""
        calls = self._transcript.open_calls()
        return bool(calls) and all(call.name == TaskComplete.name for call in calls)

    async def go_on(self, words: str) -> Finished | Parked:
        """Say ``words`` to a model that was done, and drive on as ``run`` does."""
        answers = [ToolResult(call.id, "Noted.") for call in self._transcript.open_calls()]
        message = self._transcript.append("user", [*result_blocks(answers), text_block(words)])
        await self._saving.save(Checkpoint(messages=[message], events=[self._next_turn()]))
        return await self.run()

    def times_begun(self, mark: str) -> int:
        """How often ``go_on`` said what begins with ``mark``, over all attempts; since its user had the run go on."""
        return self._transcript.times_begun(mark, since=prompt("go_on"))

    async def _ask(self) -> None:
        """One turn's request: checks the limits first, stores the reply."""
        if self._turn.number >= self._max_turns:
            raise RunFailedError(ExitReason.MAX_TURNS, f"not finished after {self._max_turns} turns")
        self._turn.number += 1
        turn = self._turn.number
        began = time.monotonic()
        watch = Watch(
            lambda fragment: self._deltas.add(turn, fragment),
            lambda reason: self._deltas.reset(turn, reason),
            self._interrupt,
        )
        reply = await self._saving.ahead(self._reply(watch))
        await self._deltas.flush()
        await self._keep(reply, timedelta(seconds=time.monotonic() - began))

    async def _reply(self, watch: Watch) -> Reply:
        if self._model.shares_budget:
            # Stored later, it would be missing from what the budget has left, and take this request's reservation away.
            await self._saving.used()
        return await self._model(self._transcript.bodies, watch)

    async def _keep(self, reply: Reply, took: timedelta) -> None:
        """Store the reply as far as it can stand in a transcript, before anything that it asks for is done."""
        use = self._model.used(reply)
        told = [
            events.turn_ended(self._turn.number, reply, took),
            events.usage(self._turn.number, use, self._model.spent_microusd),
        ]
        if (failure := self._failure(reply)) is not None:
            await self._saving.save(Checkpoint(usage=use, events=told))  # it was paid for all the same
            raise failure
        messages = [self._transcript.append("assistant", standing_blocks(reply))]
        calls = self._transcript.open_calls()
        told += [events.tool_started(self._turn.number, call, self._toolbox.subject(call)) for call in calls]
        if not calls and (asked := _GOES_ON.get(reply.stop_reason)):
            messages.append(self._say(prompt(asked)))
            told.append(self._next_turn())
        checkpoint = Checkpoint(messages=messages, usage=use, events=told)
        if not calls or not self._toolbox.only_reads(calls):
            await self._saving.save(checkpoint)
        elif self._conversation is None and not any(call.name == TaskComplete.name for call in calls):
            self._saving.hold(checkpoint)
        else:  # its user may have said something, which the answer tells, or it may be the end
            self._saving.begin(checkpoint)

    def _failure(self, reply: Reply) -> RunFailedError | None:
        """Why the run cannot go on from ``reply``."""
        match reply.stop_reason:
            case "refusal":
                return RunFailedError(ExitReason.MODEL_REFUSED, text_of(reply) or "the model refused the request")
            case "model_context_window_exceeded":
                words = "the conversation no longer fits the model's window"
                return RunFailedError(ExitReason.CONTEXT_EXHAUSTED, words)
            case "max_tokens" if self._transcript.times_said(prompt("cut_off")) >= MAX_CUT_OFFS:
                words = f"its replies were cut off at max_tokens {MAX_CUT_OFFS + 1} times"
                return RunFailedError(ExitReason.STUCK, words)
            case _:
                return None

    async def _after_reply(self) -> Finished | Parked | None:
        """Do what the last reply asks for; None where the model is to be asked again."""
        calls = self._transcript.open_calls()
        if calls:
            return await self._run_tools(calls)
        if self._conversation is not None:
            return await self._hear(self._conversation)
        if self._ends_on_text or self._transcript.times_said(prompt("nudge")) >= MAX_NUDGES:
            return Finished(self._transcript.last_text())
        message = self._say(prompt("nudge"))
        await self._saving.save(Checkpoint(messages=[message], events=[self._next_turn()]))
        return None

    async def _hear(self, conversation: Conversation, question: ToolCall | None = None) -> Finished | Parked | None:
        """It is the user's turn. ``question``: what the model has asked, if it did by a tool."""
        await self._saving.done()  # who is woken must find what the model has said
        heard = await conversation.hear()
        last_words = question_of(question) or self._transcript.last_text()
        if heard is None:
            return Parked(last_words)
        if heard.texts and question is not None:
            self._take_up(result_blocks([ToolResult(question.id, "\n\n".join(heard.texts))]), heard)
        elif heard.texts:
            self._take_up([text_block(words) for words in heard.texts], heard)
        return await self._completed(heard, last_words)

    def _take_up(self, content: list[dict[str, Any]], heard: Heard) -> None:
        """Let ``content`` be what the user says; it is stored while the model is asked again."""
        message = self._transcript.append("user", content)
        told = [] if heard.completes else [self._next_turn()]
        self._saving.begin(Checkpoint(messages=[message], events=told, read_through=heard.through))

    async def _completed(self, heard: Heard | None, last_words: str) -> Finished | None:
        """The end, where the user has said that it is; what is being stored is stored by then."""
        if heard is None or not heard.completes:
            return None
        await self._saving.done()
        return Finished(last_words, read_through=heard.through)

    async def _run_tools(self, calls: list[ToolCall]) -> Finished | Parked | None:
        if self._conversation is not None and (question := only_question(calls)) is not None:
            return await self._hear(self._conversation, question)
        results = await self._results(calls)
        heard = await self._conversation.hear_if_told() if self._conversation is not None else None
        completion, self._toolbox.completion = self._toolbox.completion, None
        if completion is not None and heard is None and is_meant(completion, results):
            # Stored no further: a resumed attempt runs these calls again, from the checkpoint before them.
            self._turn.results = results if self._conversation is not None else None
            return Finished(completion.summary, blocked=completion.status == "blocked")
        if completion is not None and heard is None:
            results = instead_of(TaskComplete.name, calls, results, OTHERS_FAILED, is_error=True)
        elif heard is not None:
            results = instead_of(TaskComplete.name, calls, results, MORE_WAS_SAID)
        self._answer(calls, results, heard)
        return await self._completed(heard, completion.summary if completion else self._transcript.last_text())

    async def _results(self, calls: list[ToolCall]) -> list[ToolResult]:
        """What ``calls`` come to; they are not made again where the loop had ended with them."""
        results, self._turn.results = self._turn.results, None
        if results is not None:
            if self._conversation is not None:
                self._conversation.told(has_unread=True)  # else it would have ended
            return results
        results = await self._saving.beside(
            # What an earlier attempt may have done outside is not done again.
            self._toolbox.run(calls, after_a_break=self._is_resumed, interrupt=self._interrupt)
        )
        return instead_of(AskUser.name, calls, results, NOT_ALONE, is_error=True)

    def _answer(self, calls: list[ToolCall], results: list[ToolResult], heard: Heard | None) -> None:
        """Give the model the ``results`` of its ``calls``; they are stored while it is asked again."""
        content = result_blocks(results)
        if self._repeats(calls, results) == NUDGE_AT_IDENTICAL:
            content.append(text_block(prompt("repeating")))
        content += [text_block(words) for words in (heard.texts if heard else ())]
        message = self._transcript.append("user", content)
        told = [events.tool_ended(self._turn.number, *answered) for answered in zip(calls, results, strict=True)]
        changes = [change for result in results for change in result.changed]
        told += [events.file_changed(change) for change in changes]
        checkpoint = Checkpoint(
            messages=[message],
            events=told if heard and heard.completes else [*told, self._next_turn()],
            read_through=heard.through if heard else 0,
            outputs=self._toolbox.outputs.take_new(),
        )
        silently = self._toolbox.may_have_written(calls)
        written = self._written(calls, results, changes, silently=silently)
        told_of = changes if silently else None
        self._saving.begin_making(lambda: self._with_tree(checkpoint, written, told_of=told_of))

    def _written(
        self, calls: list[ToolCall], results: list[ToolResult], changes: list[FileChange], *, silently: bool
    ) -> list[FileChange] | None:
        """``changes``, where that is all that can have been written since the last look at the worktree; else None.

        ``silently``: more may have been changed than that.
        """
        turn = self._turn
        turn.is_open = turn.is_open or self._toolbox.lets_others_write(calls)
        turn.is_sure = turn.is_sure and not self._toolbox.failed_to_write(calls, results)
        if not silently and (not changes or (turn.is_sure and not turn.is_open)):
            return changes
        turn.is_sure = True  # everything is looked at now
        return None

    async def _with_tree(
        self, checkpoint: Checkpoint, written: Sequence[FileChange] | None, *, told_of: Sequence[FileChange] | None
    ) -> Checkpoint:
        """``written``: what to save of the worktree; None: whatever has changed.

        ``told_of``: what is told already where a command may have changed more, which only the worktree can tell.
        """
        tree = await self._durable.saved_tree(written)
        told = list(checkpoint.events)
        if told_of is not None:
            known = {change.path for change in told_of}
            found = [change for change in self._durable.changed() if change.path not in known]
            told[-1:-1] = [events.file_changed(change) for change in found[:_MOST_FILES_TOLD]]  # before the next turn
        return replace(checkpoint, tree=tree, events=told)

    def _repeats(self, calls: list[ToolCall], results: list[ToolResult]) -> int:
        """How many turns in a row were just like this one; raises where they get nowhere."""
        turn = self._turn
        turn.malformed = turn.malformed + 1 if all(result.malformed for result in results) else 0
        if turn.malformed >= MAX_MALFORMED:
            raise RunFailedError(ExitReason.STUCK, f"{MAX_MALFORMED} turns in a row had only malformed tool calls")
        repeats = self._transcript.repeats(calls, results)
        if repeats >= MAX_IDENTICAL:
            raise RunFailedError(ExitReason.STUCK, f"made the same call {MAX_IDENTICAL} times in a row")
        return repeats

    async def _stored(self, checkpoint: Checkpoint) -> Standing:
        standing = await self._durable.save(checkpoint)
        if self._conversation is not None:
            self._conversation.told(has_unread=standing.has_unread)
        return standing

    def _say(self, text: str) -> StoredMessage:
        return self._transcript.append("user", [text_block(text)])

    def _next_turn(self) -> Draft:
        return events.turn_started(self._turn.number + 1, self._model.name)
