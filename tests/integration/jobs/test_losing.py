"""A run whose agent stopped renewing is queued again, cancelled where that was asked for, or failed the fifth time."""

import asyncio
from datetime import timedelta

import pytest

from services.jobs import scheduling
from services.jobs.leases import renew
from tests.integration.jobs.domain import Domain


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_lost_run_is_queued_again_and_costs_no_attempt(domain: Domain) -> None:
    run = await domain.start()
    assert await domain.lose() == 0

    await domain.expire(run.hold.run_id)
    assert await domain.lose() == 1

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["times_lost"], row["attempts_spent"], row["lease_token"]) == ("queued", 1, 0, None)
    assert (await domain.row("jobs", run.hold.job_id))["runs_active"] == 0
    assert (await domain.events(run.hold.job_id))[-1].data == {"reason": "lost"}
    assert await domain.rows("SELECT FROM leases") == []


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_the_fifth_loss_fails_the_run(domain: Domain) -> None:
    run = await domain.start()
    for _ in range(4):
        await domain.expire(run.hold.run_id)
        assert await domain.lose() == 1
        run = await domain.resume(run.hold.run_id)

    await domain.expire(run.hold.run_id)
    assert await domain.lose() == 1

    row = await domain.row("runs", run.hold.run_id)
    job = await domain.row("jobs", run.hold.job_id)
    assert (row["state"], row["exit_reason"], row["attempt"]) == ("failed", "lost", 5)
    assert (job["state"], job["runs_active"], job["runs_failed"]) == ("failed", 0, 1)
    assert (await domain.kinds(run.hold.job_id))[-2:] == ["run.finished", "job.finished"]


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_run_lost_while_being_cancelled_is_cancelled(domain: Domain) -> None:
    run = await domain.start()
    await domain.cancelling.request(domain.client, run.hold.job_id)
    await domain.expire(run.hold.run_id)

    assert await domain.lose() == 1

    job = await domain.row("jobs", run.hold.job_id)
    assert await domain.run_states(run.hold.job_id) == ["cancelled"]
    assert (job["state"], job["runs_active"], job["runs_cancelled"]) == ("cancelled", 0, 1)


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_sweeps_at_once_lose_a_run_once(domain: Domain) -> None:
    runs = [await domain.start(f"https://a/{n}") for n in range(5)]
    for run in runs:
        await domain.expire(run.hold.run_id)

    lost = await asyncio.gather(*(domain.lose() for _ in range(5)))

    assert sum(lost) == len(runs)
    assert {row["times_lost"] for row in await domain.rows("SELECT times_lost FROM runs")} == {1}


async def test_nothing_expires_until_a_lease_after_postgres_started(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await domain.start()
    await domain.expire(run.hold.run_id)
    monkeypatch.setattr(scheduling, "LEASE", timedelta(days=1))
    assert await domain.lose() == 0

    monkeypatch.setattr(scheduling, "LEASE", timedelta(milliseconds=1))
    assert await domain.lose() == 1


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_run_that_is_being_renewed_is_not_lost(domain: Domain) -> None:
    hold = (await domain.start()).hold
    await domain.expire(hold.run_id)
    async with domain.database.transaction() as connection:
        assert await renew(connection, {hold.run_id: hold.token})
        assert await domain.lose() == 0

    assert await domain.running.holds(hold.run_id, attempt=1, token=hold.token)
    assert (await domain.row("leases", hold.run_id))["token"] == hold.token
    assert await domain.lose() == 0


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_publication_that_is_being_renewed_is_not_lost(domain: Domain) -> None:
    hold = (await domain.push()).hold
    await domain.expire(hold.changeset_id)
    async with domain.database.transaction() as connection:
        assert await renew(connection, {hold.changeset_id: hold.token})
        await domain.publishing.lose_expired()

    assert (await domain.row("changesets", hold.changeset_id))["state"] == "pushing"
    assert (await domain.row("leases", hold.changeset_id))["token"] == hold.token


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_of_a_lost_publication_no_lease_is_left_to_renew(domain: Domain) -> None:
    hold = (await domain.push()).hold
    await domain.expire(hold.changeset_id)
    await domain.publishing.lose_expired()

    async with domain.database.connection() as connection:
        assert await renew(connection, {hold.changeset_id: hold.token}) == []
    row = await domain.row("changesets", hold.changeset_id)
    assert (row["state"], row["lease_token"]) == ("queued", None)
