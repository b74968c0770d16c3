"""What must be true of Postgres and of the event stream once all work is done, whatever happened in between."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from uuid import UUID

import orjson

from services.contracts import subjects
from services.runtime.jetstream import Bus, Tailed
from services.runtime.postgres import Database, Record
from tests.integration.faults.processes import POLL_SECONDS
from tests.integration.jobs.sequences import SEQUENCED

DRAIN_SECONDS = 90
_ONCE = ("job.submitted", "job.started", "run.finished", "job.finished")


async def until_drained(database: Database) -> None:
    """Wait until every job is final and every event published."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while await _left(database):  # noqa: ASYNC110  other processes set no event here
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not drained within {DRAIN_SECONDS} s: {await _left(database)}") from None


async def _left(database: Database) -> dict[str, int]:
    rows = await rows_of(
        database,
        f"""SELECT 'runs ' || state AS what, count(*) AS many FROM runs
           WHERE state NOT IN ('completed', 'failed', 'cancelled') GROUP BY 1
           UNION ALL SELECT 'events', count(*) FROM {SEQUENCED} e WHERE place IS NULL HAVING count(*) > 0
           UNION ALL SELECT 'confirmations', 1 FROM event_cursor WHERE sent < assigned""",
    )
    return {row["what"]: row["many"] for row in rows}


async def rows_of(database: Database, statement: str) -> list[Record]:
    async with database.connection() as connection:
        return list(await connection.fetch(statement))


async def assert_every_job_was_done_once(database: Database, accepted: dict[str, set[UUID]]) -> None:
    """One job for each key, completed; its events numbered from 1 without holes, its end told once."""
    jobs = await rows_of(database, "SELECT id, state, last_event_number FROM jobs")
    assert all(len(answers) == 1 for answers in accepted.values()), "one key was answered with several jobs"
    assert {row["id"] for row in jobs} == {job_id for answers in accepted.values() for job_id in answers}
    assert Counter(row["state"] for row in jobs) == {"completed": len(accepted)}
    assert await rows_of(database, "SELECT FROM leases") == [], "a lease outlived its run"
    numbers: dict[UUID, list[int]] = defaultdict(list)
    kinds: dict[UUID, Counter[str]] = defaultdict(Counter)
    for row in await rows_of(database, "SELECT job_id, number, kind, attempt FROM events ORDER BY job_id, number"):
        numbers[row["job_id"]].append(row["number"])
        kinds[row["job_id"]][row["kind"]] += 1
    attempts = {r["job_id"]: r["attempt"] for r in await rows_of(database, "SELECT job_id, attempt FROM runs")}
    for job in jobs:
        assert numbers[job["id"]] == list(range(1, job["last_event_number"] + 1))
        assert {kind: kinds[job["id"]][kind] for kind in _ONCE} == dict.fromkeys(_ONCE, 1), kinds[job["id"]]
        assert kinds[job["id"]]["run.started"] == attempts[job["id"]]


async def assert_every_event_was_published_once(database: Database, bus: Bus) -> None:
    """Each event of the log stands in the stream once, under its one sequence, and in the order of those."""
    logged = await rows_of(database, f"SELECT id, place FROM {SEQUENCED} e ORDER BY place")
    assert [row["place"] for row in logged] == list(range(1, len(logged) + 1))
    assert await published(bus) == [(str(row["id"]), row["place"]) for row in logged]


async def published(bus: Bus) -> list[tuple[str, int]]:
    """The durable events of the stream, as id and sequence, in the stream's order."""
    position = await bus.stream_position(subjects.EVENTS_STREAM)
    messages = bus.read(
        subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=position.first_sequence - 1, until=position.last_sequence
    )
    return [_named(message) async for message in messages]


def _named(message: Tailed) -> tuple[str, int]:
    return orjson.loads(message.data)["id"], int((message.headers or {})[subjects.SEQUENCE_HEADER])
