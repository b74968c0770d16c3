"""Leases over slow and half-open links: kept while renewals get through, given up in time where they do not."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from services.contracts.words import EventKind
from services.jobs.heartbeat import GIVE_UP_AFTER, Ending, Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.models import ClaimedRun
from services.jobs.unit import Draft
from services.runtime.postgres import Database, StoreUnavailableError
from tests.integration.faults.proxy import Link
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until, until_async

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]
CALL_SECONDS = 30
SLACK_SECONDS = 1.0
"""A quarter of a second between two looks, and a machine that is busy."""


async def test_a_slow_link_keeps_its_leases(domain: Domain, postgres_link: Link) -> None:
    """Each renewal takes over a second: that is still in time."""
    heartbeat = Heartbeat(postgres_link.url, Node(new_node_name("agent"), "agent"))
    heartbeat.start()
    run = await domain.start()
    told: list[Ending] = []
    heartbeat.hold(run.hold.run_id, run.hold.token, claimed_at=time.monotonic(), on_end=told.append)
    try:
        await renewed(domain)
        postgres_link.latency_seconds = 0.3
        for _ in range(2):
            await renewed(domain)
    finally:
        postgres_link.latency_seconds = 0
        await heartbeat.stop()
    assert told == []


async def renewed(domain: Domain) -> None:
    (before,) = await domain.rows("SELECT expires_at FROM leases")

    async def later() -> bool:
        return bool(await domain.rows("SELECT FROM leases WHERE expires_at > $1", before["expires_at"]))

    await until_async(later)


async def test_a_holder_is_told_five_seconds_after_its_last_good_renewal(domain: Domain, postgres_link: Link) -> None:
    heartbeat = Heartbeat(postgres_link.url, Node(new_node_name("agent"), "agent"))
    heartbeat.start()
    run = await domain.start()
    told_at: list[float] = []
    hold = run.hold
    claimed_at = time.monotonic()
    heartbeat.hold(hold.run_id, hold.token, claimed_at=claimed_at, on_end=lambda _: told_at.append(time.monotonic()))
    await renewed(domain)
    stalled_at = time.monotonic()
    postgres_link.stall()
    await until(lambda: bool(told_at))
    postgres_link.flow()
    await heartbeat.stop()
    assert told_at[0] - stalled_at <= GIVE_UP_AFTER.total_seconds() + SLACK_SECONDS


async def test_an_agent_cut_off_for_a_lease_ends_its_work_first_and_writes_nothing_afterwards(
    domain: Domain, postgres_link: Link, linked_database: Database
) -> None:
    """It writes all the time; what was under way when the link went half-open arrives when the run is another's."""
    heartbeat = Heartbeat(postgres_link.url, Node(new_node_name("agent"), "agent"))
    heartbeat.start()
    linked = Domain(linked_database)
    run = await domain.start()
    work = asyncio.create_task(_write_for_ever(linked, run))
    ended: list[Ending] = []

    def end(ending: Ending) -> None:
        ended.append(ending)
        work.cancel()

    heartbeat.hold(run.hold.run_id, run.hold.token, claimed_at=time.monotonic(), on_end=end)
    await renewed(domain)
    postgres_link.stall()

    async def is_taken() -> bool:
        return await domain.lose() == 1

    await until_async(is_taken)
    assert ended == [Ending.LOST], "another could have begun with the run while the first was at it"
    before = await domain.fingerprint()
    postgres_link.flow()
    await asyncio.wait([work], timeout=CALL_SECONDS)
    await heartbeat.stop()
    assert work.done(), "the write that was under way has no end"
    assert await domain.fingerprint() == before


async def _write_for_ever(domain: Domain, run: ClaimedRun) -> None:
    while True:
        with suppress(StoreUnavailableError):
            await domain.running.tell(run.hold, [Draft(EventKind.LOG, {"message": "still here"})])
        await asyncio.sleep(0)
