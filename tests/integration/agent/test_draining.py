"""Agents that stop: what ends in time ends, and the rest goes on elsewhere where it stood."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from quarterdeck.stack.environment import base_environment
from services.contracts.words import RunState
from services.jobs.running import Claim, Order, Running
from tests.integration.agent.agents import LONG_SECONDS, StartAgent
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


class SlowClaims(Running):
    """Claims that are not answered until they are let go."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.domain.units)
        self.claimed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def claim(self, orders: Sequence[Order], *, agent: str) -> list[Claim]:
        claims = await super().claim(orders, agent=agent)
        self.claimed.set()
        await self.go_on.wait()
        return claims


async def test_a_run_claimed_while_draining_is_handed_back(fleet: Fleet, start_agent: StartAgent):
    running = SlowClaims(fleet)
    agent = await start_agent(running=running)
    run_id = await fleet.dispatch()
    async with asyncio.timeout(DEADLINE_SECONDS):
        await running.claimed.wait()
    await agent.drain(0.1)
    running.go_on.set()
    run = await fleet.until_run(run_id, RunState.QUEUED, RunState.FAILED, RunState.PUBLISHING)
    assert (run["state"], run["attempt"], run["attempts_spent"]) == ("queued", 1, 0)
    assert fleet.model.requests == []
    await fleet.until_no_orders()


async def test_sigterm_hands_the_run_back_and_the_process_ends(fleet: Fleet, tmp_path: Path):
    with (tmp_path / "agent.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.agent"),
            env=base_environment() | fleet.agent_environment | {"QUARTERDECK_DRAIN_SECONDS": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        run_id = await hang(fleet)
        os.kill(process.pid, signal.SIGTERM)
        run = await fleet.until_run(run_id, RunState.QUEUED, RunState.FAILED, RunState.CANCELLED)
        assert (run["state"], run["attempts_spent"], run["times_lost"]) == ("queued", 0, 0)
        assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0, (tmp_path / "agent.log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (await fleet.kinds(run_id))[-1] == "run.requeued"
    assert fleet.worktrees(run_id) == []
    assert await fleet.domain.rows("SELECT FROM leases") == []
    assert await fleet.domain.rows("SELECT FROM nodes WHERE name LIKE 'agent-%'") == []
