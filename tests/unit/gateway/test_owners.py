"""Whose job it is: remembered, looked up once, bounded, and never waited for for long."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from services.contracts.words import EventKind
from services.gateway.events import owners as module
from services.gateway.events.owners import Owners
from services.jobs.eventlog import EventLog, LoggedEvent
from services.runtime.postgres import StoreUnavailableError

CLIENT, JOB = uuid4(), str(uuid4())


class Log(EventLog):
    """``failure``: raised by every look-up; `hang`: none is answered."""

    def __init__(self, client_id: UUID | None, failure: Exception | None = None, *, hangs: bool = False) -> None:
        self.client_id = client_id
        self.failure = failure
        self.hangs = hangs
        self.asked = 0

    async def after(self, job_id: UUID, number: int, *, most: int = 500) -> list[LoggedEvent]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        if self.client_id is None:
            return []
        return [LoggedEvent(uuid4(), job_id, None, 1, 0, EventKind.LOG, {}, datetime.now(UTC), self.client_id, 1)]


async def test_what_was_learned_is_not_looked_up():
    owners, log = Owners(), Log(None)
    owners.learn(JOB, "c")
    assert await owners.of(JOB, log) == "c"
    assert log.asked == 0


async def test_what_was_not_is_looked_up_once():
    owners, log = Owners(), Log(CLIENT)
    assert [await owners.of(JOB, log) for _ in range(3)] == [str(CLIENT)] * 3
    assert log.asked == 1


async def test_a_job_that_there_is_not_is_looked_up_once():
    owners, log = Owners(), Log(None)
    assert [await owners.of(JOB, log) for _ in range(3)] == [""] * 3
    assert log.asked == 1
    assert await owners.of("not-a-uuid", log) == ""
    assert log.asked == 1


@pytest.mark.parametrize("hangs", [False, True])
async def test_while_postgres_is_away_it_is_asked_now_and_then(hangs: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LOOK_UP_SECONDS", 0.01)
    owners, log = Owners(), Log(CLIENT, StoreUnavailableError("away"), hangs=hangs)
    assert [await owners.of(JOB, log) for _ in range(3)] == [""] * 3
    assert log.asked == 1
    log.failure, log.hangs = None, False
    monkeypatch.setattr(owners, "_not_before", 0.0)
    assert await owners.of(JOB, log) == str(CLIENT)


async def test_the_jobs_heard_of_longest_ago_are_forgotten():
    owners, log = Owners(most=2), Log(None)
    for job in ("a", "b"):
        owners.learn(job, job)
    assert await owners.of("a", log) == "a"
    owners.learn("c", "c")
    assert [await owners.of(job, log) for job in ("a", "c", "b")] == ["a", "c", ""]
