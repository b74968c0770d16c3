"""An agent that the kernel kills for its memory: its runs go on elsewhere, and that costs none of them an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from signal import SIGKILL

import pytest

from services.agent.sandbox import cgroups
from services.agent.sandbox.cgroups import Cgroup
from services.agent.sandbox.limits import Limits
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from tests.integration.faults.conftest import StartService
from tests.integration.faults.devouring_agent import DEVOUR
from tests.integration.faults.ledger import (
    assert_every_event_was_published_once,
    assert_every_job_was_done_once,
    rows_of,
    until_drained,
)
from tests.integration.faults.processes import AGENT, PATIENCE_SECONDS, SCHEDULER, Service, Submitter
from tests.integration.waiting import until_async

pytestmark = pytest.mark.timeout(180)
DEVOURING_AGENT = "tests.integration.faults.devouring_agent"
MEMORY_BYTES = 192 * 1024**2
BYSTANDERS = 4
"""Runs that do nothing wrong, on the agent that dies."""
PAUSE_SECONDS = 0.1


@pytest.fixture
async def small_memory() -> AsyncIterator[Cgroup]:
    """A cgroup with little memory; empty at the end of the test, since whatever was in it is gone by then."""
    found = cgroups.find()
    if "memory" not in found.controllers:
        pytest.skip("no memory cgroup can be made here: that takes root, or a delegated tree, and a writable mount")
    cgroup = found.make(Limits(memory_bytes=MEMORY_BYTES))
    yield cgroup
    await cgroup.remove()


@pytest.fixture
async def doomed(small_memory: Cgroup, start: StartService) -> Service:
    """The agent in the small cgroup; it ends before the cgroup is removed."""
    service = await start(DEVOURING_AGENT)
    small_memory.add(service.process.pid)
    return service


async def test_the_runs_of_an_agent_out_of_memory_go_on_elsewhere(
    doomed: Service, start: StartService, submitter: Submitter, database: Database, bus: Bus
) -> None:
    await start(SCHEDULER)
    for _ in range(BYSTANDERS):
        await submitter.submit()
    await until_async(lambda: _are_held(database, BYSTANDERS))
    await start(AGENT)

    async with asyncio.timeout(PATIENCE_SECONDS):
        while doomed.process.returncode is None:
            await submitter.submit(DEVOUR)  # whichever agent it comes to: the other one answers it
            await asyncio.sleep(PAUSE_SECONDS)
    await until_drained(database)

    assert doomed.process.returncode == -SIGKILL, "\n".join((await doomed.lines())[-30:])
    await assert_every_job_was_done_once(database, submitter.accepted)
    await assert_every_event_was_published_once(database, bus)
    runs = await rows_of(database, "SELECT attempt, times_lost, attempts_spent FROM runs")
    assert {row["attempts_spent"] for row in runs} == {0}
    moved = [row for row in runs if row["times_lost"]]
    assert len(moved) > BYSTANDERS, "those that waited, and the one that devoured"
    assert {(row["attempt"], row["times_lost"]) for row in moved} == {(2, 1)}


async def _are_held(database: Database, runs: int) -> bool:
    return len(await rows_of(database, "SELECT FROM leases WHERE kind = 'run' AND taken")) == runs
