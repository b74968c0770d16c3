"""A user who is heard at once: what becomes of the reply and the tools that are broken off."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.agent.conversation import Conversation
from services.agent.endings import Parked
from services.agent.loop import Loop
from services.agent.model import INTERRUPTED, Reply, Watch
from services.agent.tools import ToolCall, ToolResult
from services.agent.tools.toolbox import SIDE_BY_SIDE
from services.contracts.words import EventKind
from services.jobs.messaging import InboxMessage
from tests.unit.agent.scripted import RecordedToolbox, Script, StoredRun, call, done, read, reply, said
from tests.unit.agent.talking import ANSWER, MORE, Meanwhile, Moment, assert_valid, last_message

DEADLINE_SECONDS = 30


class Caller:
    """A user who is heard by ``loop`` as by the agent that holds the run."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self.loop: Loop | None = None

    async def calls(self, text: str) -> None:
        self.run.says(text, interrupt=True)
        assert self.loop is not None
        await self.loop.notice()

    def breaks_off(self, so_far: str) -> Moment:
        """A reply that is broken off when the model has said ``so_far``."""

        async def moment(watch: Watch) -> Reply:
            await self.calls("Stop.")
            assert watch.interrupt is not None
            async with asyncio.timeout(DEADLINE_SECONDS):
                await watch.interrupt.wait()
            return reply(*([said(so_far)] if so_far else []), stop=INTERRUPTED)

        return moment

    async def talk(self, model: Script) -> object:
        self.loop = self.run.talk(model)
        return await self.loop.run()


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return StoredRun(tmp_path)


@pytest.fixture
def user(run: StoredRun) -> Caller:
    return Caller(run)


@pytest.mark.parametrize(("so_far", "stands"), [("It s", "It s"), ("", "(interrupted by the user)")])
async def test_the_reply_so_far_stays_as_text(run: StoredRun, user: Caller, so_far: str, stands: str):
    model = Meanwhile(read(1), MORE, MORE, moments={2: user.breaks_off(so_far)})
    assert await user.talk(model) == Parked("It still does.")
    assert (last_message(run, back=3), last_message(run, back=2)) == ([said(stands)], [said("Stop.")])
    assert [told["stopReason"] for told in run.told(EventKind.TURN_ENDED)] == ["tool_use", INTERRUPTED, "end_turn"]
    assert_valid(run)


async def test_running_tools_are_stopped_and_the_rest_not_begun(
    run: StoredRun, user: Caller, monkeypatch: pytest.MonkeyPatch
):
    ran: list[str] = []

    async def never(_: RecordedToolbox, call: ToolCall) -> ToolResult:
        ran.append(call.id)
        if len(ran) == SIDE_BY_SIDE:
            await user.calls("Stop.")
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(RecordedToolbox, "_run_one", never)
    many = reply(*[call(number, "read_file", path="f.txt") for number in range(1, SIDE_BY_SIDE + 2)])
    assert await user.talk(Script(many, ANSWER)) == Parked("It says a.")
    *results, words = last_message(run, back=2)
    assert all(result["is_error"] for result in results)
    assert ["Stopped" in result["content"] for result in results] == [True] * SIDE_BY_SIDE + [False]
    assert "Not begun" in results[-1]["content"]
    assert len(ran) == SIDE_BY_SIDE
    assert words == said("Stop.")
    assert_valid(run)


async def test_calls_of_a_reply_that_was_whole_already_are_not_begun(run: StoredRun, user: Caller):
    async def moment(_: Watch) -> None:
        await user.calls("Stop.")

    assert await user.talk(Meanwhile(reply(done(1)), ANSWER, moments={1: moment})) == Parked("It says a.")
    result, words = last_message(run, back=2)
    assert "Not begun" in result["content"]
    assert words == said("Stop.")


async def test_what_was_heard_already_interrupts_nothing(run: StoredRun, user: Caller):
    """The bell for a message that came with the results of the turn before is late."""

    async def says(_: Watch) -> None:
        run.says("Stop.", interrupt=True)

    async def rings(watch: Watch) -> None:
        assert user.loop is not None
        await user.loop.notice()
        assert watch.interrupt is not None
        assert not watch.interrupt.is_set()

    assert await user.talk(Meanwhile(read(1), ANSWER, moments={1: says, 2: rings})) == Parked("It says a.")
    assert last_message(run, back=2)[1] == said("Stop.")


async def test_a_call_between_a_look_and_its_answer_still_interrupts():
    """The look that is under way does not see it; what that look comes to must not silence the call."""
    stored = [InboxMessage(1, "One.", interrupt=False, completes=False)]
    looked, answered = asyncio.Event(), asyncio.Event()

    async def unread() -> list[InboxMessage]:
        seen = list(stored)
        if not looked.is_set():
            looked.set()
            await answered.wait()
        return seen

    conversation = Conversation(unread)
    hearing = asyncio.create_task(conversation.hear())
    await looked.wait()
    stored.append(InboxMessage(2, "Stop.", interrupt=True, completes=False))
    await conversation.notice()
    answered.set()
    heard = await hearing
    assert heard is not None
    assert (heard.texts, conversation.interrupt.is_set()) == (["One."], True)
    again = await conversation.hear_if_told()
    assert again is not None
    assert (again.texts, conversation.interrupt.is_set()) == (["Stop."], False)


async def test_what_was_noticed_is_not_forgotten_for_an_older_look():
    stored = [InboxMessage(1, "One.", interrupt=False, completes=False)]

    async def unread() -> list[InboxMessage]:
        return stored

    conversation = Conversation(unread)
    await conversation.notice()
    conversation.told(has_unread=False)  # by a checkpoint that was on its way when it was said
    assert await conversation.hear_if_told() is not None
