"""An agent whose event loop hangs: for longer than a lease it keeps its runs, for good it ends itself."""

from __future__ import annotations

import asyncio

import pytest

from services.jobs.heartbeat import EXIT_BLOCKED
from services.jobs.scheduling import LEASE
from services.runtime.postgres import Database
from tests.integration.faults.answering_agent import BLOCK, BLOCKED_FOR_GOOD_VARIABLE
from tests.integration.faults.conftest import StartService
from tests.integration.faults.ledger import assert_every_job_was_done_once, rows_of, until_drained
from tests.integration.faults.processes import AGENT, SCHEDULER, Submitter

pytestmark = pytest.mark.timeout(150)
BLOCKED_SECONDS = LEASE.total_seconds() + 2
END_SECONDS = 60


async def test_an_agent_blocked_for_longer_than_a_lease_keeps_its_run(
    start: StartService, submitter: Submitter, database: Database
) -> None:
    await start(SCHEDULER)
    await start(AGENT)
    await submitter.submit(f"{BLOCK}{BLOCKED_SECONDS}")

    await until_drained(database)

    await assert_every_job_was_done_once(database, submitter.accepted)
    (run,) = await rows_of(database, "SELECT attempt, times_lost, finished_at - started_at AS took FROM runs")
    assert run["took"] > LEASE, "it was not blocked for long enough"
    assert (run["attempt"], run["times_lost"]) == (1, 0)


async def test_an_agent_blocked_for_good_ends_itself(start: StartService, submitter: Submitter) -> None:
    await start(SCHEDULER)
    agent = await start(AGENT, **{BLOCKED_FOR_GOOD_VARIABLE: "2"})
    await submitter.submit(f"{BLOCK}{END_SECONDS * 2}")

    assert await asyncio.wait_for(agent.process.wait(), END_SECONDS) == EXIT_BLOCKED
