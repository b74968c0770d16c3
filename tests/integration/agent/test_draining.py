"""Agents that stop: what ends in time ends, and the rest goes on elsewhere where it stood."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services.contracts.words import RunState
from services.jobs.orders import Claim, Order
from services.jobs.running import Running
from services.runtime.jetstream import BusUnavailableError
from tests.integration.agent.agents import LONG_SECONDS, StartAgent, agent_process
from tests.integration.agent.fleet import DEADLINE_SECONDS, Fleet
from tests.integration.agent.messages_server import call, hanging, said, whole

READ = whole(call(1, "read_file", path="f.txt"))
EDIT = whole(call(2, "edit_file", path="f.txt", old_string="a", new_string="b"))
DONE = call(3, "task_complete", summary="Changed a to b.", status="done")


async def hang(fleet: Fleet, **options: Any) -> UUID:
    """A run that has read and edited, and whose model is in the middle of its last reply."""
    fleet.model.answer(READ, EDIT, hanging(said("Almost there."), DONE))
    run_id = await fleet.dispatch(**options)
    await fleet.model.until(fleet.model.waits)
    return run_id


async def test_what_ends_in_time_is_let_end(fleet: Fleet, start_agent: StartAgent):
    agent = await start_agent()
    run_id = await hang(fleet)
    draining = asyncio.create_task(agent.drain(LONG_SECONDS))
    fleet.model.go_on.set()
    await draining
    run = await fleet.run(run_id)
    assert (run["state"], run["attempt"]) == ("publishing", 1)


async def test_what_cannot_end_in_time_is_handed_back_and_goes_on_elsewhere(fleet: Fleet, start_agent: StartAgent):
    first = await start_agent()
    run_id = await hang(fleet)
    await first.drain(0.1)
    run = await fleet.until_run(run_id, RunState.QUEUED, RunState.FAILED)
    stored = await fleet.transcript(run_id)
    assert len(stored) == 5, "the results beside the request that was broken off"
    assert (run["state"], run["attempts_spent"], run["times_lost"], run["turns"]) == ("queued", 0, 0, 2)
    assert (await fleet.kinds(run_id))[-1] == "run.requeued"
    await fleet.until_released(run_id)
    other = await start_agent()
    fleet.model.answer(whole(DONE))
    await fleet.again(run_id)
    run = await fleet.until_run(run_id, RunState.PUBLISHING)
    assert (run["attempt"], run["turns"], run["agent"]) == (2, 3, other.name)
    assert (await fleet.transcript(run_id))[:-1] == stored
    assert fleet.model.requests[-1]["messages"] == fleet.model.requests[-2]["messages"]
    assert b"-a\n+b\n" in (await fleet.changeset(run_id))["patch"]


async def test_a_draining_agent_says_so_takes_what_was_on_its_way_and_hears_nothing_more(
    fleet: Fleet, start_agent: StartAgent
):
    agent = await start_agent()
    run_id = await hang(fleet)
    await fleet.submit(kind="task", repositories=[])
    (late,) = await fleet.admit()
    draining = asyncio.create_task(agent.drain(LONG_SECONDS))
    await fleet.until(agent.has_no_places)
    fleet.model.answer(whole(call(1, "task_complete", summary="Answered.", status="done")))
    await fleet.send(late)
    assert (await fleet.until_run(late.run_id, RunState.COMPLETED))["attempt"] == 1
    assert not draining.done()
    fleet.model.go_on.set()
    await draining
    assert (await fleet.run(run_id))["state"] == "publishing"
    with pytest.raises(BusUnavailableError, match="no responders"):
        await fleet.send(late)


class SlowClaims(Running):
    """Claims that are not answered until they are let go."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self._claimed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def claim(self, orders: Sequence[Order]) -> list[Claim]:
        claims = await super().claim(orders)
        self._claimed.set()
        await self.go_on.wait()
        return claims

    async def until_claimed(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._claimed.wait()


async def test_a_run_claimed_while_all_is_handed_back_is_handed_back(fleet: Fleet, start_agent: StartAgent):
    running = SlowClaims(fleet)
    agent = await start_agent(running=running)
    run_id = await fleet.dispatch_to_claim()
    await running.until_claimed()
    await agent.drain(0.1)
    running.go_on.set()
    run = await fleet.until_run(run_id, RunState.QUEUED, RunState.FAILED, RunState.PUBLISHING)
    assert (run["state"], run["attempt"], run["attempts_spent"], run["times_lost"]) == ("queued", 1, 0, 0)
    assert fleet.model.requests == []


async def test_a_run_claimed_while_draining_has_the_time_that_there_is(fleet: Fleet, start_agent: StartAgent):
    """A claim that ends begins an attempt, which is waited for as well."""
    running = SlowClaims(fleet)
    agent = await start_agent(running=running)
    fleet.model.answer(whole(call(1, "task_complete", summary="Answered.", status="done")))
    run_id = await fleet.dispatch_to_claim(kind="task", repositories=[])
    await running.until_claimed()
    draining = asyncio.create_task(agent.drain(LONG_SECONDS))
    await fleet.until(agent.has_no_places)
    running.go_on.set()
    await draining
    run = await fleet.run(run_id)
    assert (run["state"], run["attempt"]) == ("completed", 1)


async def test_sigterm_hands_the_run_back_and_the_process_ends(fleet: Fleet, tmp_path: Path):
    log = tmp_path / "agent.log"
    async with agent_process(fleet, log, QUARTERDECK_DRAIN_SECONDS="1") as process:
        run_id = await hang(fleet)
        process.send_signal(signal.SIGTERM)
        run = await fleet.until_run(run_id, RunState.QUEUED, RunState.FAILED, RunState.CANCELLED)
        assert (run["state"], run["attempts_spent"], run["times_lost"]) == ("queued", 0, 0)
        assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0, log.read_text()
    assert (await fleet.kinds(run_id))[-1] == "run.requeued"
    assert fleet.worktrees(run_id) == []
    assert await fleet.domain.rows("SELECT FROM leases") == []
    assert await fleet.domain.rows("SELECT FROM nodes WHERE name LIKE 'agent-%'") == []
