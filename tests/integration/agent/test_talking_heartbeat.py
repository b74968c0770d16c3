"""What renewals tell of a run that is parked and taken up again, or whose user calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from services.jobs import heartbeat as module
from services.jobs.heartbeat import Ending, Heartbeat
from services.jobs.leases import Node, Renewed, new_node_name, renew
from services.runtime.postgres import Connection
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import DEADLINE_SECONDS, until


class Renewals:
    """Of one heartbeat: what is renewed, and the first held back between its answer and what comes of it."""

    def __init__(self) -> None:
        self.asked: list[Mapping[UUID, UUID]] = []
        self.go_on = threading.Event()

    async def __call__(self, connection: Connection, held: Mapping[UUID, UUID]) -> list[Renewed]:
        renewed = await renew(connection, held)
        if held:
            self.asked.append(held)
            await asyncio.to_thread(self.go_on.wait, DEADLINE_SECONDS)
        return renewed


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Renewals:
    renewals = Renewals()
    monkeypatch.setattr(module, "renew", renewals)
    return renewals


@pytest.fixture
async def heartbeat(database_url: str) -> AsyncIterator[Heartbeat]:
    heartbeat = Heartbeat(database_url, Node(new_node_name("agent"), "agent", capacity=2))
    heartbeat.start()
    yield heartbeat
    await heartbeat.stop()


async def test_a_renewal_of_the_lease_before_says_nothing_of_the_one_that_is_held(
    domain: Domain, heartbeat: Heartbeat, renewals: Renewals
):
    """The run was parked, woken and claimed again by the same process while a renewal was on its way."""
    before = await domain.talk()
    assert await domain.messaging.park(before.hold, summary="")
    told: list[Any] = []
    run_id = before.hold.run_id
    heartbeat.hold(run_id, before.hold.token, claimed_at=time.monotonic(), on_end=told.append)
    await until(lambda: len(renewals.asked) == 1)
    heartbeat.drop(run_id)
    await domain.say(before.hold.job_id, "Go on.")
    again = await domain.resume(run_id)
    heartbeat.hold(run_id, again.hold.token, claimed_at=time.monotonic(), on_end=told.append)
    renewals.go_on.set()
    await until(lambda: len(renewals.asked) == 2)
    assert renewals.asked[1] == {run_id: again.hold.token}, "it is renewed still"
    assert told == []


async def test_a_user_who_calls_is_told_of_until_read(domain: Domain, heartbeat: Heartbeat, renewals: Renewals):
    renewals.go_on.set()
    run = await domain.talk()
    calls: list[int] = []
    told: list[Ending] = []
    heartbeat.hold(
        run.hold.run_id,
        run.hold.token,
        claimed_at=time.monotonic(),
        on_end=told.append,
        on_call=lambda: calls.append(len(renewals.asked)),
    )
    await domain.say(run.hold.job_id, "No hurry.")
    await until(lambda: len(renewals.asked) >= 2)
    assert calls == []
    await domain.say(run.hold.job_id, "Stop.", interrupt=True)
    await until(lambda: len(calls) >= 1)
    await domain.execute("UPDATE inbox SET read_at = now()")
    read_at = len(renewals.asked)
    await until(lambda: len(renewals.asked) >= read_at + 3)
    assert all(renewal <= read_at + 1 for renewal in calls), "only what was asked before it was read"
    assert told == []
