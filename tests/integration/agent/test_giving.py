"""To whom the scheduler gives runs: agents that have room, that can be told, and that take them up."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts.words import RunState
from services.jobs import admitting
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node
from services.runtime.jetstream import Bus
from services.runtime.postgres import Record
from services.scheduler.admission import Admission
from tests.integration.agent.agents import StartAgent, agent_process
from tests.integration.agent.fleet import DEADLINE_SECONDS, Fleet
from tests.integration.agent.messages_server import call, hanging, said, whole

DONE = call(1, "task_complete", summary="Answered.", status="done")
ANSWER = whole(DONE)


class Scheduler:
    """What gives runs to agents, and takes back what they did not take up."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._admission = Admission(fleet.domain.admitting, fleet.domain.scheduling, fleet.bus)

    async def give(self) -> None:
        await self._admission.run_once()

    async def until(self, run_id: UUID, *states: RunState) -> Record:
        """Go on until the run is in one of ``states``."""

        async def is_there() -> bool:
            await self.give()
            await self._fleet.domain.lose()
            return (await self._fleet.run(run_id))["state"] in states

        await self._fleet.until(is_there)
        return await self._fleet.run(run_id)


@pytest.fixture
def scheduler(fleet: Fleet) -> Scheduler:
    return Scheduler(fleet)


@pytest.fixture
def orders_stand(monkeypatch: pytest.MonkeyPatch, postgres_is_up_long: None) -> None:
    """What is not taken up is taken back where it is recalled, and not since its lease has run out."""
    monkeypatch.setattr(admitting, "LEASE", timedelta(hours=1))


async def submit(fleet: Fleet) -> UUID:
    """The one run of a new task."""
    job_id = await fleet.submit(kind="task", repositories=[])
    (row,) = await fleet.domain.rows("SELECT id FROM runs WHERE job_id = $1", job_id)
    run_id: UUID = row["id"]
    return run_id


def gone(fleet: Fleet, agent: str) -> Callable[[], Awaitable[bool]]:
    """Whether nothing is given to ``agent`` before it says again that it lives."""

    async def is_gone() -> bool:
        return not await fleet.domain.rows("SELECT FROM nodes WHERE name = $1 AND capacity > 0", agent)

    return is_gone


async def the_node(fleet: Fleet) -> str:
    """The name of the one agent that has places."""
    (row,) = await fleet.domain.rows("SELECT name FROM nodes WHERE kind = 'agent' AND capacity > 0")
    name: str = row["name"]
    return name


async def hang(fleet: Fleet, scheduler: Scheduler) -> UUID:
    """A run whose model is in the middle of its reply."""
    fleet.model.answer(hanging(said("Almost there."), DONE))
    run_id = await submit(fleet)
    await scheduler.give()
    await fleet.model.until(fleet.model.waits)
    return run_id


async def test_a_full_agent_is_given_nothing_more_until_it_has_room(
    fleet: Fleet, start_agent: StartAgent, scheduler: Scheduler
):
    await start_agent(capacity=1)
    first = await hang(fleet, scheduler)
    run_ids = [await submit(fleet) for _ in range(3)]
    await scheduler.give()
    assert [(await fleet.run(run_id))["attempt"] for run_id in run_ids] == [0, 0, 0]
    fleet.model.ever_after = ANSWER
    fleet.model.go_on.set()
    for run_id in (first, *run_ids):
        assert (await scheduler.until(run_id, RunState.COMPLETED))["attempt"] == 1


async def test_another_agent_is_given_what_a_full_one_has_no_room_for(
    fleet: Fleet, start_agent: StartAgent, scheduler: Scheduler
):
    full = await start_agent(capacity=1)
    first = await hang(fleet, scheduler)
    second = await submit(fleet)
    await scheduler.give()
    assert (await fleet.run(second))["state"] == "queued"
    other = await start_agent(capacity=1)
    fleet.model.answer(ANSWER)
    run = await scheduler.until(second, RunState.COMPLETED)
    assert (run["agent"], run["attempt"]) == (other.name, 1)
    fleet.model.go_on.set()
    assert (await scheduler.until(first, RunState.COMPLETED))["agent"] == full.name


async def test_an_agent_without_nats_has_no_places(
    fleet: Fleet, start_agent: StartAgent, scheduler: Scheduler, nats_server: EmbeddedServers
):
    agent = await start_agent()
    run_id = await submit(fleet)
    await nats_server.kill("nats")
    await fleet.until(agent.has_no_places)
    await nats_server.start("nats")
    await fleet.until(agent.has_places)
    fleet.model.answer(ANSWER)
    run = await scheduler.until(run_id, RunState.COMPLETED)
    assert (run["agent"], run["attempt"]) == (agent.name, 1)


async def test_an_agent_that_has_not_found_nats_yet_has_no_places(fleet: Fleet, start_agent: StartAgent):
    away = await start_agent(bus=Bus("nats://127.0.0.1:1", name="away"), has_places=False)

    async def is_seen() -> bool:
        return bool(await fleet.domain.rows("SELECT FROM nodes WHERE name = $1", away.name))

    await fleet.until(is_seen)
    assert await away.has_no_places()


async def test_an_agent_whose_event_loop_is_blocked_has_no_places_until_it_goes_on(fleet: Fleet):
    """Its heartbeat has a thread of its own and keeps its runs, but it would hear of no other."""
    node, blocks, go_on, ends = Node("blocked", "agent"), threading.Event(), threading.Event(), threading.Event()

    async def agent() -> None:
        heartbeat = Heartbeat(fleet.database_url, node)
        heartbeat.start()
        heartbeat.offer(lambda: 3)
        await asyncio.to_thread(blocks.wait, DEADLINE_SECONDS)
        go_on.wait(DEADLINE_SECONDS)
        await asyncio.to_thread(ends.wait, DEADLINE_SECONDS)
        await heartbeat.stop()

    async def has_none() -> bool:
        return not await fleet.has_places(node.name)

    process = asyncio.create_task(asyncio.to_thread(asyncio.run, agent()))
    await fleet.until(lambda: fleet.has_places(node.name))
    blocks.set()
    await fleet.until(has_none)
    go_on.set()
    await fleet.until(lambda: fleet.has_places(node.name))
    ends.set()
    await process


@pytest.mark.usefixtures("orders_stand")
async def test_what_is_given_to_a_killed_agent_is_recalled_at_once(
    fleet: Fleet, start_agent: StartAgent, scheduler: Scheduler, tmp_path: Path
):
    async with agent_process(fleet, tmp_path / "agent.log") as process:
        dead = await the_node(fleet)
        process.kill()
        await process.wait()
    run_id = await submit(fleet)
    await scheduler.give()
    await fleet.until(gone(fleet, dead))
    other = await start_agent()
    fleet.model.answer(ANSWER)
    run = await scheduler.until(run_id, RunState.COMPLETED)
    assert (run["agent"], run["attempt"], run["attempts_spent"], run["times_lost"]) == (other.name, 2, 0, 0)
    events = await fleet.domain.events(run["job_id"])
    started = [event.data["agent"] for event in events if event.kind == "run.started"]
    assert started == [dead, other.name]
    assert [event.data for event in events if event.kind == "run.requeued"] == [{"reason": "unclaimed"}]


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_stopped_agent_does_not_begin_late_with_what_another_has(
    fleet: Fleet, start_agent: StartAgent, scheduler: Scheduler, tmp_path: Path
):
    """It hears the order once it is continued; what it hears after that shows that it was done with it."""
    async with agent_process(fleet, tmp_path / "agent.log") as process:
        stopped = await the_node(fleet)
        os.kill(process.pid, signal.SIGSTOP)
        run_id = await submit(fleet)
        await scheduler.give()
        await fleet.until(gone(fleet, stopped))
        other = await start_agent()
        fleet.model.answer(hanging(said("Almost there."), DONE))

        async def has_begun() -> bool:
            await fleet.domain.lose()
            await scheduler.give()
            return fleet.model.waits.is_set()

        await fleet.until(has_begun)
        assert (await fleet.run(run_id))["agent"] == other.name
        await other.take_no_more()
        os.kill(process.pid, signal.SIGCONT)
        fleet.model.answer(ANSWER)
        run = await scheduler.until(await submit(fleet), RunState.COMPLETED)
        assert (run["agent"], run["attempt"]) == (stopped, 1)
        fleet.model.go_on.set()
        run = await fleet.until_run(run_id, RunState.COMPLETED)
        assert (run["agent"], run["attempt"], run["times_lost"]) == (other.name, 2, 1), "it may have died of it"
        assert len(fleet.model.requests) == 2
