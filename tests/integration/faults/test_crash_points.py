"""Whoever dies, and wherever between two awaits of a run's path: each job is done once, and its events told once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from tests.integration.faults.conftest import StartGateway, StartService
from tests.integration.faults.failpoints import DIED
from tests.integration.faults.ledger import (
    assert_every_event_was_published_once,
    assert_every_job_was_done_once,
    until_drained,
)
from tests.integration.faults.processes import AGENT, GATEWAY, SCHEDULER, Submitter
from tests.integration.waiting import POLL_SECONDS

pytestmark = pytest.mark.timeout(240)
LIVES_SECONDS = 120
SUBMITTERS = 3

BEFORE_AND_AFTER = ("before", "after")
ALL_MOMENTS = ("before", "within", "after")


def _points(call: str, moments: Sequence[str], calls: int) -> list[str]:
    return [f"{moment}:{call}:{number}" for number in range(1, calls + 1) for moment in moments]


FAILPOINTS = {
    GATEWAY: (
        *_points("transaction", ALL_MOMENTS, 6),
        *_points("publish_in_order", BEFORE_AND_AFTER, 3),
        *_points("send", BEFORE_AND_AFTER, 6),
    ),
    SCHEDULER: (
        *_points("transaction", ALL_MOMENTS, 7),
        *_points("statement", BEFORE_AND_AFTER, 4),  # looks and dispatches
        *_points("publish_in_order", BEFORE_AND_AFTER, 5),
        *_points("send", BEFORE_AND_AFTER, 7),
        *_points("send_many", BEFORE_AND_AFTER, 2),
        *_points("tell", BEFORE_AND_AFTER, 4),
    ),
    AGENT: (
        *_points("transaction", ALL_MOMENTS, 4),
        *_points("statement", BEFORE_AND_AFTER, 1),  # a claim, as of what an earlier life has left
        *_points("send", BEFORE_AND_AFTER, 8),
    ),
}
"""The first calls of each kind of a process's life: its start, and its first rounds over what the last one left."""


@pytest.mark.parametrize("dying", FAILPOINTS)
async def test_each_job_is_done_once_wherever_a_process_dies(
    start: StartService, start_gateway: StartGateway, database: Database, bus: Bus, dying: str
) -> None:
    points = {module: failpoints if module == dying else () for module, failpoints in FAILPOINTS.items()}
    gateway = await start_gateway(failpoints=points[GATEWAY])
    services = {module: await start(module, failpoints=points[module]) for module in (SCHEDULER, AGENT)}
    victim = (services | {GATEWAY: gateway.service})[dying]
    submitter = Submitter(gateway.client)
    enough = asyncio.Event()

    async with asyncio.TaskGroup() as group:
        for _ in range(SUBMITTERS):
            group.create_task(submitter.keep_submitting(enough))
        try:
            async with asyncio.timeout(LIVES_SECONDS):
                while not await victim.in_last_life():  # noqa: ASYNC110  another process sets no event here
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            enough.set()
    await until_drained(database)

    died = [line.removeprefix(DIED).strip() for line in await victim.lines() if line.startswith(DIED)]
    assert died == list(FAILPOINTS[dying])
    await assert_every_job_was_done_once(database, submitter.accepted)
    await assert_every_event_was_published_once(database, bus)
