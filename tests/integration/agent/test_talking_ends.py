"""How conversations end over real servers, and that nothing which was accepted is lost at their end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.contracts.words import Outcome
from services.jobs.errors import LeaseLostError, NotWaitingError
from services.jobs.messaging import Messaging
from services.jobs.models import Hold
from services.jobs.running import Running
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import call, hanging, said, whole
from tests.integration.agent.talking import ANSWER, MORE, READ, User, asks, ends, talk

ROUNDS = 8
READS_AND_ENDS = whole(
    call(1, "read_file", path="f.txt"), call(2, "task_complete", summary="It says a.", status="done")
)


class SpokenTo(Running):
    """A user says something just before the run's end is recorded, once."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self._fleet = fleet
        self.refused: list[str] = []

    async def complete(self, hold: Hold, outcome: Outcome, *, summary: str, read_through: int = 0) -> bool:
        if not self.refused:
            await User(self._fleet, hold.run_id).says("One more thing.", rings=False)
        is_over = await super().complete(hold, outcome, summary=summary, read_through=read_through)
        self.refused += [] if is_over else [summary]
        return is_over


async def test_a_message_between_the_models_end_and_the_runs_is_answered(fleet: Fleet, start_agent: StartAgent):
    running = SpokenTo(fleet)
    await start_agent(running=running)
    user = await talk(fleet, READS_AND_ENDS, ends(3))
    run = await user.until_ended()
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "answered", "All is said.")
    assert (run["attempt"], run["turns"], running.refused) == (1, 2, ["It says a."])
    was_read, ending, words = (await user.transcript())[2]["content"]
    assert "a" in was_read["content"]
    assert "more to say" in ending["content"]
    assert words == said("One more thing.")
    kinds = await fleet.kinds(user.run_id)
    assert (kinds.count("run.finished"), kinds.count("tool.ended")) == (1, 2)
    assert await user.unread() == []


async def test_a_message_between_its_users_end_and_the_runs_is_answered(fleet: Fleet, start_agent: StartAgent):
    running = SpokenTo(fleet)
    await start_agent(running=running)
    user = await talk(fleet, hanging(said("It says a."), stop="end_turn"), MORE)
    await fleet.model.until(fleet.model.waits)
    await user.completes()
    fleet.model.go_on.set()
    assert (await user.until_waiting())["summary"] == "It still does."
    assert running.refused == ["It says a."]
    assert (await user.transcript())[2]["content"] == [said("One more thing.")]


async def test_a_message_between_the_last_word_and_the_parking_is_answered(
    fleet: Fleet, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch
):
    answered: list[bool] = []

    async def park(self: Messaging, hold: Hold, *, summary: str, park: Any = Messaging.park) -> bool:
        if not answered:
            await User(fleet, hold.run_id).says("One more thing.", rings=False)
        answered.append(await park(self, hold, summary=summary))
        return answered[-1]

    monkeypatch.setattr(Messaging, "park", park)
    await start_agent()
    user = await talk(fleet, ANSWER, MORE)
    run = await user.until_waiting()
    assert (run["summary"], run["attempt"], answered) == ("It still does.", 1, [False, True])
    assert (await fleet.kinds(user.run_id)).count("run.waiting") == 1


async def test_what_was_said_while_it_spoke_is_heard_before_it_may_end(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    last = hanging(call(1, "task_complete", summary="It says a.", status="done"))
    user = await talk(fleet, last, ends(2))
    await fleet.model.until(fleet.model.waits)
    await user.says("And now?", rings=False)
    fleet.model.go_on.set()
    assert (await user.until_ended())["summary"] == "All is said."
    assert (await user.transcript())[2]["content"][1] == said("And now?")


async def test_its_user_ends_it_at_the_end_of_the_turn(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, hanging(said("Reading."), call(1, "read_file", path="f.txt")))
    await fleet.model.until(fleet.model.waits)
    await user.completes()
    assert (await fleet.run(user.run_id))["state"] == "running"
    fleet.model.go_on.set()
    run = await user.until_ended()
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "answered", "Reading.")
    assert len(fleet.model.requests) == 1
    assert (await user.transcript())[-1]["role"] == "user", "the results are kept"
    assert await user.unread() == []


async def test_its_user_ends_it_at_once_where_it_waits(fleet: Fleet, start_agent: StartAgent):
    await start_agent()
    user = await talk(fleet, asks(1, "Why?"))
    await user.until_waiting()
    await user.completes()
    run = await fleet.run(user.run_id)
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "answered", "Why?")
    with pytest.raises(NotWaitingError):
        await user.says("Too late.")


async def test_who_leaves_with_a_word_is_not_answered_but_kept(fleet: Fleet, start_agent: StartAgent):
    """It was woken by the word; nobody wants an answer any more when an agent takes it."""
    await start_agent()
    user = await talk(fleet, READ, ANSWER)
    await user.until_waiting()
    await user.says("Thanks.", rings=False)
    await user.completes()
    await fleet.again(user.run_id)
    run = await user.until_ended()
    assert (run["outcome"], run["summary"], run["turns"]) == ("answered", "It says a.", 2)
    assert (await user.transcript())[-1]["content"] == [said("Thanks.")]


async def test_a_message_and_the_runs_end_at_once_never_miss_each_other(fleet: Fleet):
    """Either the user is told that nobody hears any more, or the run does not end."""
    for _ in range(ROUNDS):
        run = await fleet.domain.talk()
        ended, spoke = await asyncio.gather(
            fleet.domain.running.complete(run.hold, Outcome.ANSWERED, summary="Done."),
            fleet.domain.say(run.hold.job_id, "Wait!"),
            return_exceptions=True,
        )
        assert ended is True or not isinstance(spoke, BaseException)
        assert isinstance(spoke, NotWaitingError) is (ended is True)
        state = (await fleet.run(run.hold.run_id))["state"]
        assert state == ("completed" if ended is True else "running")


async def test_only_what_is_above_what_was_heard_keeps_a_run_from_its_end(fleet: Fleet):
    domain = fleet.domain
    run = await domain.talk()
    for words in ("One.", "Two."):
        await domain.say(run.hold.job_id, words)
    assert not await domain.running.complete(run.hold, Outcome.ANSWERED, summary="Done.", read_through=1)
    assert [message.text for message in await domain.messaging.unread(run.hold)] == ["One.", "Two."]
    assert "run.finished" not in await domain.kinds(run.hold.job_id)
    assert await domain.running.complete(run.hold, Outcome.ANSWERED, summary="Done.", read_through=2)
    assert await domain.messaging.unread(run.hold) == []
    with pytest.raises(LeaseLostError):
        await domain.running.complete(run.hold, Outcome.ANSWERED, summary="Done.", read_through=2)


async def test_a_refused_end_takes_none_of_its_neighbours_along(fleet: Fleet):
    """Ends are recorded together."""
    domain = fleet.domain
    runs = [await domain.talk() for _ in range(3)]
    await domain.say(runs[1].hold.job_id, "Wait!")
    ends_of = [domain.running.complete(run.hold, Outcome.ANSWERED, summary="Done.") for run in runs]
    assert await asyncio.gather(*ends_of) == [True, False, True]
    assert [(await fleet.run(run.hold.run_id))["state"] for run in runs] == ["completed", "running", "completed"]
