"""The Claude tool loop of one attempt: turn → reply → checkpoint → tools → checkpoint, until it is finished.

It begins wherever the transcript stands, so that a resumed attempt is the same loop. A checkpoint of results is stored
while the next request is under way, and one of a reply while tools run that only read, or with their results where
those are there at once: what follows from either is stored behind it, so a kill between them costs nothing that was
checkpointed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from services.agent import events
from services.agent.answering import (
    CANCELLED,
    MORE_WAS_SAID,
    NOT_ALONE,
    NOTED,
    OTHERS_FAILED,
    instead_of,
    is_meant,
    only_completes,
    only_question,
    question_of,
    standing_blocks,
    text_block,
)
from services.agent.conversation import Conversation, Heard
from services.agent.endings import Finished, Limits, Parked, exceeded, failure_of, finished, stored_end
from services.agent.model import Fragment, Reply, Watch
from services.agent.prompts import prompt
from services.agent.recording import Durable, Recording, ended
from services.agent.saving import Saving, joined
from services.agent.tools import Toolbox, ToolCall, ToolResult
from services.agent.tools.finishing import AskUser, TaskComplete
from services.agent.transcript import Transcript, is_answer, result_blocks
from services.contracts.words import EventKind
from services.jobs.models import Checkpoint, ModelUse, Standing, StoredMessage
from services.jobs.unit import Draft

# Replies that are not over, and the prompt that has the model go on with them.
_GOES_ON = {"max_tokens": "cut_off", "pause_turn": "paused", "compaction": "paused"}

_MAX_NUDGES = 1
_FEWEST_IDENTICAL = 2
"""From so many on the model is told that it repeats itself."""


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


@dataclass
class _Turn:
    """What is under way."""

    number: int
    malformed: int = 0
    """Turns in a row that had only malformed calls."""
    held: _Held | None = None


@dataclass(frozen=True)
class _Held:
    """What the calls of the last reply came to, which ended the loop. It is stored once it is known what is said with
    it: why the model is to go on, or that this was the end.
    """

    results: list[ToolResult]
    checkpoint: Checkpoint
    """What is to be stored with them."""


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
        self._recording = Recording(toolbox, durable)
        self._save = durable.save
        self._limits = limits
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
        return stored_end(self._transcript) or await self._drive()

    async def _drive(self) -> Finished | Parked:
        try:
            while True:
                if self._transcript.last_role == "assistant":
                    outcome = await self._after_reply()
                    self._is_resumed = False
                    if outcome is not None:
                        return outcome
                if self._transcript.last_role == "user":
                    await self._ask()
        except Exception:
            await self._saving.done()  # it is about to be stored how the run ended: what it did, and paid, comes first
            raise
        finally:
            await self._saving.settle()

    @property
    def owes_an_answer(self) -> bool:
        """Whether the model has spoken last, and it is not its user's turn."""
        if self._conversation is None:
            return self._transcript.last_role == "assistant"
        calls = self._transcript.open_calls()
        return bool(calls) and only_question(calls) is None

    @property
    def has_warning(self) -> bool:
        """Whether the model is to hear of something, with whatever is said next, before what it has done can stand."""
        return self._recording.has_warning

    async def go_on(self, words: str) -> Finished | Parked:
        """Say ``words`` to the model that has spoken last, with what its calls came to, and drive on as ``run`` does.

        Nothing that it has said ends the loop: it is asked in any case, if the run may ask at all.
        """
        calls = self._transcript.open_calls()
        if (held := self._turn.held) is None:
            held = await self._hold(calls, await self._made(calls))
            self._is_resumed, self._toolbox.completion = False, None
        checkpoint = self._answered(calls, held, words)
        await self._saving.save(joined(checkpoint, Checkpoint(events=[self._next_turn()])))
        return await self._drive()

    async def conclude(self) -> None:
        """What the loop ended with stands, and nothing follows from it in this run: store what came with it.

        The model is to read it only where its user has the run go on, so that it says this already.
        """
        calls = self._transcript.open_calls()
        if self._turn.held is not None and not only_completes(calls):
            await self._saving.save(self._answered(calls, self._turn.held, prompt("go_on")))

    def left(self) -> Checkpoint | None:
        """What is to be stored where the run is cancelled now, after whatever else is stored: what the last reply's
        calls came to, as far as that is known. What was refused, as the run was to be cancelled, may be just that. The
        loop is not to be run again then.
        """
        if (refused := self._saving.unstored) is not None and is_answer(refused.messages):
            told = [event for event in refused.events if event.kind is not EventKind.TURN_STARTED]  # there will be none
            return replace(refused, events=told)
        calls = self._transcript.open_calls()
        if not self.owes_an_answer or only_completes(calls):
            return None
        results = [ToolResult(call.id, CANCELLED, is_error=True) for call in calls]
        unknown = Checkpoint(events=ended(self._turn.number, calls, results))
        return self._answered(calls, self._turn.held or _Held(results, unknown), prompt("go_on"))

    def _answered(self, calls: list[ToolCall], held: _Held, words: str) -> Checkpoint:
        """With the results of ``calls``, which end nothing, and ``words``."""
        self._turn.held = None
        results = instead_of(TaskComplete.name, calls, held.results, NOTED)
        said = [text_block(each) for each in (*self._recording.news(), words)]
        message = self._transcript.append("user", [*result_blocks(results), *said])
        return joined(held.checkpoint, Checkpoint(messages=[message]))

    def times_begun(self, mark: str) -> int:
        """How often ``go_on`` said what begins with ``mark``, over all attempts."""
        return self._transcript.times_begun(mark)

    async def _ask(self) -> None:
        """One turn's request: checks the limits first, stores the reply."""
        turn = self._turn
        failure = exceeded(self._limits, self._transcript, turns=turn.number, malformed=turn.malformed)
        if failure is not None:
            raise failure
        turn.number += 1
        began = time.monotonic()
        watch = Watch(
            lambda fragment: self._deltas.add(turn.number, fragment),
            lambda reason: self._deltas.reset(turn.number, reason),
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
        if (failure := failure_of(reply, self._transcript, self._limits)) is not None:
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

    async def _after_reply(self) -> Finished | Parked | None:
        """Do what the last reply asks for; None where the model is to be asked again."""
        calls = self._transcript.open_calls()
        if calls:
            return await self._run_tools(calls)
        if self._conversation is not None:
            return await self._hear(self._conversation)
        if self._ends_on_text or self._transcript.times_said(prompt("nudge")) >= _MAX_NUDGES:
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
            await self._hold(calls, results)
            return finished(completion)
        if completion is not None and heard is None:
            results = instead_of(TaskComplete.name, calls, results, OTHERS_FAILED, is_error=True)
        elif heard is not None:
            results = instead_of(TaskComplete.name, calls, results, MORE_WAS_SAID)
        self._answer(calls, results, heard)
        return await self._completed(heard, completion.summary if completion else self._transcript.last_text())

    async def _results(self, calls: list[ToolCall]) -> list[ToolResult]:
        """What ``calls`` come to; they are not made again where the loop had ended with them."""
        if self._turn.held is None:
            return await self._made(calls)
        if self._conversation is not None:
            self._conversation.told(has_unread=True)  # else it would have ended
        return self._turn.held.results

    async def _made(self, calls: list[ToolCall]) -> list[ToolResult]:
        results = await self._saving.beside(
            # What an earlier attempt may have done outside is not done again.
            self._toolbox.run(calls, after_a_break=self._is_resumed, interrupt=self._interrupt)
        )
        return instead_of(AskUser.name, calls, results, NOT_ALONE, is_error=True)

    async def _hold(self, calls: list[ToolCall], results: list[ToolResult]) -> _Held:
        """The loop ends with ``calls``: keep what they came to, and tell watchers of it now.

        Were this attempt lost, the next would make them again, from the checkpoint before them.
        """
        checkpoint = Checkpoint(events=ended(self._turn.number, calls, results))
        if not only_completes(calls):
            made = await self._recording.of(self._turn.number, calls, results)()
            self._turn.held = _Held(results, made)  # all of it, should the run be cancelled by now
            await self._saving.save(Checkpoint(events=made.events))
            checkpoint = replace(made, events=())
        self._turn.held = _Held(results, checkpoint)
        return self._turn.held

    def _answer(self, calls: list[ToolCall], results: list[ToolResult], heard: Heard | None) -> None:
        """Give the model the ``results`` of its ``calls``; they are stored while it is asked again."""
        content = result_blocks(results)
        self._turn.malformed = self._turn.malformed + 1 if all(result.malformed for result in results) else 0
        if self._transcript.repeats_with(content) >= max(_FEWEST_IDENTICAL, self._limits.max_identical_calls - 1):
            content.append(text_block(prompt("repeating")))
        content += [text_block(words) for words in (*self._recording.news(), *(heard.texts if heard else ()))]
        message = self._transcript.append("user", content)
        told = [] if heard and heard.completes else [self._next_turn()]
        more = Checkpoint(messages=[message], events=told, read_through=heard.through if heard else 0)
        held, self._turn.held = self._turn.held, None
        if held is not None:
            self._saving.begin(joined(held.checkpoint, more))
            return
        record = self._recording.of(self._turn.number, calls, results)

        async def made() -> Checkpoint:
            return joined(await record(), more)

        self._saving.begin_making(made)

    async def _stored(self, checkpoint: Checkpoint) -> Standing:
        standing = await self._save(checkpoint)
        if self._conversation is not None:
            self._conversation.told(has_unread=standing.has_unread)
        return standing

    def _say(self, text: str) -> StoredMessage:
        return self._transcript.append("user", [text_block(text)])

    def _next_turn(self) -> Draft:
        return events.turn_started(self._turn.number + 1, self._model.name)
