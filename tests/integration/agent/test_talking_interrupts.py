"""A user who is heard at once, wherever the run is: in a reply, a tool, a wait, a preparation; told of it or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.agent.attempt import Attempt
from services.jobs.heartbeat import Heartbeat
from services.jobs.messaging import InboxMessage, Messaging
from services.jobs.models import Hold
from tests.integration.agent.agents import HeldVcs, QuietHeartbeat, StartAgent
from tests.integration.agent.fleet import DEADLINE_SECONDS, Fleet
from tests.integration.agent.messages_server import call, hanging, refused, said, whole
from tests.integration.agent.talking import ANSWER, MORE, READ, User, talk
from tests.integration.waiting import until, wait_gone

SPEAKING = hanging(said("It says"), call(2, "read_file", path="f.txt"))
CALLS = [call(number, "search_code", pattern="a") for number in (1, 2)]


class Bells:
    """How often attempts were told that their user has said something."""

    def __init__(self) -> None:
        self.rung = 0

    async def until_rung(self, times: int) -> None:
        await until(lambda: self.rung >= times)


@pytest.fixture
def bells(monkeypatch: pytest.MonkeyPatch) -> Bells:
    bells = Bells()

    def hear(attempt: Attempt, *, hear: Any = Attempt.hear) -> None:
        hear(attempt)
        bells.rung += 1

    monkeypatch.setattr(Attempt, "hear", hear)
    return bells


async def talk_while_it_speaks(fleet: Fleet) -> User:
    user = await talk(fleet, SPEAKING, MORE)
    await fleet.model.until(fleet.model.waits)
    return user


async def broken_off(fleet: Fleet, user: User) -> None:
    """Wait for the next time that the run waits: the reply was broken off, and what was said answered."""
    assert (await user.until_waiting())["summary"] == "It still does."
    replied, heard = (await user.transcript())[-3:-1]
    assert (replied["content"], heard["content"]) == ([said("It says")], [said("Stop.")])
    assert await user.unread() == []
    assert (await stop_reasons(fleet, user))[-2:] == ["interrupted", "end_turn"]


async def stop_reasons(fleet: Fleet, user: User) -> list[str]:
    told = await fleet.domain.events(await fleet.job_of(user.run_id))
    return [event.data["stopReason"] for event in told if event.kind == "turn.ended"]


async def until_read(fleet: Fleet, user: User) -> None:
    async def is_read() -> bool:
        return not await user.unread()

    await fleet.until(is_read)


async def test_a_reply_is_broken_off_and_stays_as_far_as_it_came(fleet: Fleet, start_agent: StartAgent):
    await start_agent(heartbeat=QuietHeartbeat)
    user = await talk_while_it_speaks(fleet)
    await user.says("Stop.", interrupt=True)
    await fleet.model.until(fleet.model.gone)
    await broken_off(fleet, user)
    run = await fleet.run(user.run_id)
    assert (run["attempt"], run["turns"]) == (1, 2)


async def test_the_heartbeat_tells_where_the_bell_was_lost(fleet: Fleet, start_agent: StartAgent):
    await start_agent(heartbeat=Heartbeat)
    user = await talk_while_it_speaks(fleet)
    await user.says("Stop.", interrupt=True, rings=False)
    await fleet.model.until(fleet.model.gone)
    await broken_off(fleet, user)


async def test_without_an_interrupt_it_may_end_its_turn(fleet: Fleet, start_agent: StartAgent):
    await start_agent(heartbeat=Heartbeat)
    user = await talk(fleet, SPEAKING, MORE)
    await fleet.model.until(fleet.model.waits)
    await user.says("And then?")
    fleet.model.go_on.set()
    await user.until_waiting()
    result, words = (await user.transcript())[-2]["content"]
    assert (result["type"], words) == ("tool_result", said("And then?"))
    assert not fleet.model.gone.is_set()


async def test_a_tool_is_stopped_with_its_processes(
    fleet: Fleet, start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program, pid = tmp_path / "slow search", tmp_path / "pid"
    program.write_text(f'#!/bin/sh\necho $$ > "{pid}.$$"; mv "{pid}.$$" "{pid}"; exec sleep 600\n')
    program.chmod(0o755)
    monkeypatch.setattr("services.agent.tools.ripgrep._program", lambda: str(program))
    await start_agent(heartbeat=QuietHeartbeat)
    user = await talk(fleet, whole(*CALLS), MORE)
    await until(pid.exists)
    await user.says("Stop.", interrupt=True)
    await user.until_waiting()
    await wait_gone(int(pid.read_text()))
    *results, words = (await user.transcript())[-2]["content"]
    assert [result["is_error"] for result in results] == [True] * len(CALLS)
    assert words == said("Stop.")


async def test_the_wait_before_another_try_is_broken_off(fleet: Fleet, start_agent: StartAgent):
    """Longer than any test: the service asks to stay away, for the whole fleet."""
    await start_agent(heartbeat=QuietHeartbeat)
    away = refused(529, "Overloaded", kind="overloaded_error", retry_after="250")
    fleet.model.ever_after = away
    user = await talk(fleet, READ, away)
    await fleet.model.until_asked(2)
    await user.says("Stop.", interrupt=True)
    await until_read(fleet, user)
    replied, heard = (await user.transcript())[-2:]
    assert replied["content"] == [said("(interrupted by the user)")]
    assert heard["content"] == [said("Stop.")]
    await fleet.cancel(user.run_id, tell=True)
    assert (await user.until_ended())["state"] == "cancelled"


async def test_who_calls_before_the_first_turn_is_heard_at_its_beginning(
    fleet: Fleet, start_agent: StartAgent, bells: Bells
):
    """It rings while the worktree is prepared, and only then."""
    vcs = HeldVcs(fleet, "behind prepare")
    await start_agent(heartbeat=QuietHeartbeat, vcs=vcs)
    # The interrupt may come before the request, or while it is answered.
    user = await talk(fleet, hanging(said("It still does."), stop="end_turn"), MORE)
    await vcs.until_reached()
    await user.says("Stop.", interrupt=True)
    await bells.until_rung(1)
    vcs.go_on.set()
    await until_read(fleet, user)
    fleet.model.go_on.set()
    await user.until_waiting()
    assert (await user.transcript())[2]["content"] == [said("Stop.")]
    assert (await stop_reasons(fleet, user))[0] == "interrupted"


async def test_of_two_bells_at_once_both_are_heard(
    fleet: Fleet, start_agent: StartAgent, bells: Bells, monkeypatch: pytest.MonkeyPatch
):
    """The second rings while the agent looks for what the first was about."""
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(self: Messaging, hold: Hold, *, look: Any = Messaging.unread) -> list[InboxMessage]:
        seen: list[InboxMessage] = await look(self, hold)
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return seen

    await start_agent(heartbeat=QuietHeartbeat)
    user = await talk_while_it_speaks(fleet)
    monkeypatch.setattr(Messaging, "unread", slow)
    await user.says("One.")
    async with asyncio.timeout(DEADLINE_SECONDS):
        await looked.wait()
    await user.says("Stop.", interrupt=True)
    await bells.until_rung(2)
    go_on.set()
    await fleet.model.until(fleet.model.gone)
    await user.until_waiting()
    assert (await user.transcript())[-2]["content"] == [said("One."), said("Stop.")]


async def test_what_was_heard_already_breaks_nothing_off(fleet: Fleet, start_agent: StartAgent):
    """A late bell, or the heartbeat's, for a message that the model is answering."""
    await start_agent(heartbeat=Heartbeat)
    user = await talk(fleet, ANSWER, hanging(said("It still does."), stop="end_turn"))
    await user.until_waiting()
    await user.says("Stop.", interrupt=True, rings=False)
    await fleet.again(user.run_id)
    await fleet.model.until(fleet.model.waits)
    await user.ring()
    fleet.model.go_on.set()
    assert (await user.until_waiting())["summary"] == "It still does."
    assert not fleet.model.gone.is_set()
