"""An agent that lost its lease without noticing, as one that was stopped and continued: it can do nothing any more.

Its run goes on elsewhere meanwhile, and is left alone by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from services.contracts.words import RunState
from services.jobs.heartbeat import Heartbeat
from tests.integration.agent.agents import LONG_SECONDS, Agent, HeldVcs, QuietHeartbeat, StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import Answer, call, hanging, refused, said, whole

pytestmark = pytest.mark.usefixtures("postgres_is_up_long")

WRITE = whole(call(1, "write_file", path="g.txt", content="b\n"))
DONE = call(3, "task_complete", summary="Wrote b.", status="done")
REFUSED = refused(400, "max_tokens: larger than the model allows")
OVERLOADED = refused(529, "Overloaded", kind="overloaded_error")
SLOW_DOWN = refused(429, "Slow down", kind="rate_limit_error", retry_after="3600")
ENDS = (RunState.PUBLISHING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.QUEUED)


@dataclass(frozen=True)
class Zombie:
    """``go_on``: continue what it was stopped at."""

    agent: Agent
    run_id: UUID
    go_on: Callable[[], object]


Stop = Callable[[], Awaitable[Zombie]]


@pytest.fixture
def stop_in_a_reply(fleet: Fleet, start_agent: StartAgent, request: pytest.FixtureRequest) -> Stop:
    """Stopped while the model was replying, after a first change."""

    async def stop() -> Zombie:
        agent = await start_agent(heartbeat=QuietHeartbeat)
        fleet.model.answer(WRITE, request.param)
        run_id = await fleet.dispatch()
        await fleet.model.until(fleet.model.waits)
        return Zombie(agent, run_id, fleet.model.go_on.set)

    return stop


@pytest.fixture
def stop_at_its_commit(fleet: Fleet, start_agent: StartAgent, request: pytest.FixtureRequest) -> Stop:
    async def stop() -> Zombie:
        vcs = HeldVcs(fleet, request.param)
        agent = await start_agent(heartbeat=QuietHeartbeat, vcs=vcs)
        fleet.model.answer(WRITE, whole(DONE))
        run_id = await fleet.dispatch()
        await vcs.until_reached()
        return Zombie(agent, run_id, vcs.go_on.set)

    return stop


async def heir(fleet: Fleet, start_agent: StartAgent, zombie: Zombie) -> HeldVcs:
    """Take the zombie's run away and have another agent go on with it, which stops before its commit."""
    await zombie.agent.take_no_more()
    await fleet.lose(zombie.run_id)
    vcs = HeldVcs(fleet, "before commit")
    await start_agent(heartbeat=QuietHeartbeat, vcs=vcs)
    fleet.model.answer(whole(DONE))
    await fleet.again(zombie.run_id)
    await vcs.until_reached()
    assert fleet.worktrees(zombie.run_id) == ["2"]
    return vcs


async def can_do_nothing(
    fleet: Fleet, start_agent: StartAgent, zombie: Zombie, end: Callable[[], Awaitable[None]]
) -> None:
    """Whatever the zombie does until its ``end`` changes nothing, and the run ends as if it were not there."""
    vcs = await heir(fleet, start_agent, zombie)
    before, orders = await fleet.domain.fingerprint(), await fleet.publications_ordered()
    await end()
    assert await fleet.domain.fingerprint() == before
    assert (fleet.worktrees(zombie.run_id), await fleet.publications_ordered()) == (["2"], orders)
    vcs.go_on.set()
    run = await fleet.until_run(zombie.run_id, *ENDS)
    assert (run["state"], run["attempt"], run["attempts_spent"], run["times_lost"]) == ("publishing", 2, 0, 1)
    changeset = await fleet.changeset(zombie.run_id)
    assert (changeset["state"], fleet.branches()) == ("queued", ["main"])
    assert (b"+b" in changeset["patch"], b"+c" in changeset["patch"]) == (True, False)
    assert (await fleet.kinds(zombie.run_id)).count("run.publishing") == 1


def held_back(answer: Answer) -> Answer:
    return replace(answer, then="wait")


@pytest.mark.parametrize(
    "stop_in_a_reply",
    [
        pytest.param(hanging(call(2, "write_file", path="h.txt", content="c\n")), id="checkpoint"),
        pytest.param(hanging(DONE), id="finish"),
        pytest.param(hanging(call(2, "task_complete", summary="No.", status="blocked")), id="be blocked"),
        pytest.param(hanging(said("No."), stop="refusal"), id="be refused"),
        pytest.param(held_back(REFUSED), id="fail"),
        pytest.param(held_back(OVERLOADED), id="be tried again"),
        pytest.param(held_back(SLOW_DOWN), id="postpone"),
    ],
    indirect=True,
)
async def test_a_zombie_can_not(fleet: Fleet, start_agent: StartAgent, stop_in_a_reply: Stop):
    zombie = await stop_in_a_reply()
    fleet.model.ever_after = OVERLOADED

    async def end() -> None:
        zombie.go_on()
        await zombie.agent.drain(LONG_SECONDS)

    await can_do_nothing(fleet, start_agent, zombie, end)


@pytest.mark.parametrize("stop_at_its_commit", ["before commit", "behind commit"], indirect=True)
async def test_a_zombie_can_neither_commit_nor_deliver(fleet: Fleet, start_agent: StartAgent, stop_at_its_commit: Stop):
    zombie = await stop_at_its_commit()

    async def end() -> None:
        zombie.go_on()
        await zombie.agent.drain(LONG_SECONDS)

    await can_do_nothing(fleet, start_agent, zombie, end)


@pytest.mark.parametrize("stop_in_a_reply", [hanging(DONE)], ids=["in a reply"], indirect=True)
async def test_a_zombie_can_not_hand_the_run_back(fleet: Fleet, start_agent: StartAgent, stop_in_a_reply: Stop):
    zombie = await stop_in_a_reply()

    async def end() -> None:
        await zombie.agent.drain(0.1)
        await fleet.model.until(fleet.model.gone)

    await can_do_nothing(fleet, start_agent, zombie, end)


async def test_the_same_agent_can_hold_its_run_again(fleet: Fleet, start_agent: StartAgent):
    """The attempt that lost the run is stopped at that, without the one that has it now, which hears of a cancel."""
    vcs = HeldVcs(fleet, "before commit")
    await start_agent(vcs=vcs, heartbeat=QuietHeartbeat)
    fleet.model.answer(WRITE, hanging(DONE))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    await fleet.lose(run_id)
    fleet.model.answer(whole(DONE))
    await fleet.again(run_id)
    await vcs.until_reached()

    async def only_the_second() -> bool:
        return fleet.worktrees(run_id) == ["2"]

    await fleet.until(only_the_second)  # although the first was never answered by the model
    await fleet.cancel(run_id, tell=True)
    run = await fleet.until_run(run_id, *ENDS)
    assert (run["state"], run["attempt"]) == ("cancelled", 2)
    assert fleet.worktrees(run_id) == []


@pytest.mark.parametrize("stop_in_a_reply", [hanging(DONE)], ids=["in a reply"], indirect=True)
async def test_a_lost_run_that_nobody_has_yet_is_left_queued(fleet: Fleet, stop_in_a_reply: Stop):
    zombie = await stop_in_a_reply()
    await fleet.lose(zombie.run_id)
    before = await fleet.domain.fingerprint()
    zombie.go_on()
    await zombie.agent.drain(LONG_SECONDS)
    assert await fleet.domain.fingerprint() == before
    assert fleet.worktrees(zombie.run_id) == []
    assert (await fleet.kinds(zombie.run_id))[-1] == "run.requeued"


async def test_an_agent_that_hears_of_its_loss_stops_at_once(fleet: Fleet, start_agent: StartAgent):
    """The heartbeat finds out while the model still writes."""
    agent = await start_agent(heartbeat=Heartbeat)
    fleet.model.answer(WRITE, hanging(DONE))
    run_id = await fleet.dispatch()
    await fleet.model.until(fleet.model.waits)
    await fleet.lose(run_id)
    before = await fleet.domain.fingerprint()
    await fleet.model.until(fleet.model.gone)
    await fleet.until_released(run_id)
    await agent.drain(LONG_SECONDS)
    assert await fleet.domain.fingerprint() == before
