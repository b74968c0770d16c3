"""Postgres's backends end, or all of it does, under load: whole transactions are tried again, nothing is doubled."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from signal import SIGQUIT
from uuid import UUID

import asyncpg
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from tests.integration.conftest import migrate
from tests.integration.faults.conftest import StartGateway, StartService
from tests.integration.faults.ledger import (
    assert_every_event_was_published_once,
    assert_every_job_was_done_once,
    until_drained,
)
from tests.integration.faults.processes import AGENT, SCHEDULER, Submitter

log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(180)
SUBMITTERS = 4
CUTS = 12
JOBS_BETWEEN_CUTS = 5
SECONDS_TO_FIRST_SUCCESS = 20
"""Two, on a machine that is not shared with other tests."""
TERMINATE = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> $1"""


@asynccontextmanager
async def load(*submitters: Submitter) -> AsyncIterator[None]:
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for submitter in submitters:
            group.create_task(submitter.keep_submitting(enough))
        try:
            yield
        finally:
            enough.set()


async def more_accepted(submitter: Submitter, jobs: int) -> None:
    """Wait until so many more jobs were accepted."""
    wanted = len(submitter.accepted) + jobs
    async with asyncio.timeout(60):
        while len(submitter.accepted) < wanted:  # noqa: ASYNC110  it is the load that is waited for
            await asyncio.sleep(0.02)


async def test_every_backend_is_terminated_again_and_again(
    start: StartService, start_gateway: StartGateway, database: Database, bus: Bus, database_url: str
) -> None:
    gateways = [await start_gateway() for _ in range(2)]
    for module in (SCHEDULER, AGENT):
        await start(module)
    accepted: dict[str, set[UUID]] = {}
    submitters = [Submitter(gateway.client, accepted) for gateway in gateways for _ in range(SUBMITTERS // 2)]
    for gateway in gateways:
        await gateway.until_healthy()

    ended = 0
    connection = await asyncpg.connect(database_url)
    try:
        async with load(*submitters):
            for _ in range(CUTS):
                await more_accepted(submitters[0], JOBS_BETWEEN_CUTS)
                ended += len(await connection.fetch(TERMINATE, connection.get_server_pid()))
    finally:
        await connection.close()

    assert ended > CUTS, "the services had connections"
    await until_drained(database)
    await assert_every_job_was_done_once(database, accepted)
    await assert_every_event_was_published_once(database, bus)


@pytest.fixture
async def own_postgres() -> AsyncIterator[EmbeddedServers]:
    """A durable Postgres of the test's own, with the schema."""
    async with EmbeddedServers(servers=("postgres",)) as servers:
        await migrate(servers.database_url)
        yield servers


async def test_an_immediate_restart_under_load(
    start_gateway: StartGateway, start: StartService, own_postgres: EmbeddedServers
) -> None:
    """`pg_ctl stop -m immediate` is this signal; the next start recovers from the log."""
    gateway = await start_gateway(DATABASE_URL=own_postgres.database_url)
    for module in (SCHEDULER, AGENT):
        await start(module, DATABASE_URL=own_postgres.database_url)
    await gateway.until_healthy()
    submitters = [Submitter(gateway.client, {}) for _ in range(SUBMITTERS)]
    async with load(*submitters):
        await more_accepted(submitters[0], JOBS_BETWEEN_CUTS)
        child = own_postgres.running.pop("postgres")
        child._send(SIGQUIT)
        await asyncio.wait_for(child.wait(), 30)
        await own_postgres.start("postgres")
        up = time.monotonic()
        await asyncio.wait_for(more_accepted(submitters[0], 1), SECONDS_TO_FIRST_SUCCESS)
        log.info("first success %.2f s after Postgres took connections", time.monotonic() - up)
        await more_accepted(submitters[0], JOBS_BETWEEN_CUTS)

    accepted = {key: answers for submitter in submitters for key, answers in submitter.accepted.items()}
    database = Database(own_postgres.database_url, size=2, name="test")
    try:
        await until_drained(database)
        await assert_every_job_was_done_once(database, accepted)
    finally:
        await database.close()
