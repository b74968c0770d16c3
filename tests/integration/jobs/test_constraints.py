"""The schema itself refuses rows that no transition makes."""

import asyncpg
import pytest

from tests.integration.jobs.domain import Domain

RUNS = [
    "state = 'completed', outcome = 'stored', lease_token = NULL",
    "finished_at = now()",
    "state = 'completed', finished_at = now(), lease_token = NULL",
    "outcome = 'stored'",
    "outcome = 'splendid', state = 'completed', finished_at = now(), lease_token = NULL",
    "state = 'failed', finished_at = now(), lease_token = NULL",
    "exit_reason = 'lost'",
    "lease_token = NULL",
    "state = 'queued'",
    "state = 'sunk'",
    "queue = 'publish'",
]
JOBS = [
    "state = 'completed'",
    "finished_at = now()",
    "state = 'sunk'",
    "outcome = 'most'",
    "kind = 'voyage'",
    "runs_completed = 2",
    "runs_failed = 1, runs_cancelled = 1",
]
CHANGESETS = [
    "state = 'pushing'",
    "lease_token = gen_random_uuid()",
    "state = 'open'",
    "published_at = now()",
    "state = 'sunk'",
]


@pytest.mark.parametrize("change", RUNS)
async def test_no_such_run(domain: Domain, change: str) -> None:
    await domain.start()

    with pytest.raises(asyncpg.CheckViolationError):
        await domain.execute(f"UPDATE runs SET {change}")


@pytest.mark.parametrize("change", JOBS)
async def test_no_such_job(domain: Domain, change: str) -> None:
    await domain.start()

    with pytest.raises(asyncpg.CheckViolationError):
        await domain.execute(f"UPDATE jobs SET {change}")


@pytest.mark.parametrize("change", CHANGESETS)
async def test_no_such_changeset(domain: Domain, change: str) -> None:
    await domain.hand_over()

    with pytest.raises(asyncpg.CheckViolationError):
        await domain.execute(f"UPDATE changesets SET {change}")


async def test_one_changeset_a_run(domain: Domain) -> None:
    await domain.hand_over()

    with pytest.raises(asyncpg.UniqueViolationError):
        await domain.execute(
            "INSERT INTO changesets SELECT (jsonb_populate_record(c, jsonb_build_object("
            "'id', gen_random_uuid()))).* FROM changesets c"
        )
