"""A cancel is accepted once and for good, in every state but one that ended or is being pushed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.contracts.words import ExitReason, Publish
from services.jobs import cancelling
from services.jobs.errors import LeaseLostError, NotCancellableError, NotFoundError
from services.jobs.models import ClaimedRun
from services.jobs.publishing import Publication, PublicationHold
from tests.integration.jobs.domain import COMMIT, Domain, shown


async def queued(domain: Domain) -> UUID:
    return await domain.submit()


async def dispatched(domain: Domain) -> UUID:
    """By a scheduler of before: none leaves a run in this state any more."""
    return await domain.dispatch_as_before()


async def waiting(domain: Domain) -> UUID:
    """Nothing parks a run yet: its row says that it was."""
    run = await domain.start()
    await domain.execute("DELETE FROM leases")
    await domain.execute("UPDATE runs SET state = 'waiting', lease_token = NULL")
    return run.hold.job_id


async def publishing(domain: Domain) -> UUID:
    return (await domain.hand_over())[0].hold.job_id


IDLE: dict[str, Callable[[Domain], Awaitable[UUID]]] = {
    "queued": queued,
    "dispatched": dispatched,
    "waiting": waiting,
    "publishing": publishing,
}


async def carry_out(domain: Domain) -> int:
    return await domain.cancelling.cancel_idle(await domain.cancelling.waiting())


@pytest.mark.parametrize("state", IDLE)
async def test_an_idle_run_is_cancelled_by_the_scheduler(domain: Domain, state: str) -> None:
    job_id = await IDLE[state](domain)
    assert await domain.run_states(job_id) == [state]

    await domain.cancelling.request(domain.client, job_id)
    assert (await domain.row("jobs", job_id))["state"] == "cancelling"
    assert await carry_out(domain) == 1

    job = await domain.row("jobs", job_id)
    assert await domain.run_states(job_id) == ["cancelled"]
    assert (job["state"], job["outcome"], job["runs_active"], job["runs_cancelled"]) == ("cancelled", None, 0, 1)
    assert job["finished_at"] is not None
    assert (await domain.kinds(job_id))[-3:] == ["job.cancel_requested", "run.finished", "job.finished"]
    assert await domain.cancelling.waiting() == []


async def test_a_held_run_is_cancelled_by_its_agent(domain: Domain) -> None:
    run = await domain.start()
    await domain.cancelling.request(domain.client, run.hold.job_id)

    (accepted,) = await domain.cancelling.waiting()
    assert (accepted.run_id, accepted.held) == (run.hold.run_id, True)
    assert await domain.cancelling.cancel_idle([accepted]) == 0

    await domain.running.cancelled(run.hold)
    job = await domain.row("jobs", run.hold.job_id)
    assert (job["state"], job["runs_active"], job["runs_cancelled"]) == ("cancelled", 0, 1)
    assert await domain.rows("SELECT FROM leases") == []


async def test_what_waited_to_be_published_is_kept_but_not_published(domain: Domain) -> None:
    run, changeset_id = await domain.hand_over()
    await domain.cancelling.request(domain.client, run.hold.job_id)
    assert await domain.claim_changeset(run, changeset_id) is None
    await carry_out(domain)

    assert (await domain.row("changesets", changeset_id))["state"] == "stored"
    assert await domain.publishing.due(overdue=timedelta()) == []
    assert await domain.reading.diff(domain.client, run.hold.run_id) == COMMIT.patch


async def test_what_is_being_pushed_can_not_be_cancelled(domain: Domain) -> None:
    publication = await domain.push()
    before = await domain.fingerprint()

    with pytest.raises(NotCancellableError, match="being pushed"):
        await domain.cancelling.request(domain.client, publication.hold.job_id)
    with pytest.raises(NotCancellableError, match="being pushed"):
        await domain.cancelling.request_run(domain.client, publication.hold.run_id)
    assert await domain.fingerprint() == before


async def half_pushed(domain: Domain) -> tuple[ClaimedRun, Publication]:
    """Of a job's two runs, one whose changeset a vcs is pushing."""
    run = await domain.start("https://a/1", "https://a/2", maxParallel=1)
    changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done")
    publication = await domain.claim_changeset(run, changeset_id)
    assert publication is not None
    return run, publication


async def test_a_cancel_reaches_the_runs_beside_the_one_being_pushed(domain: Domain) -> None:
    run, publication = await half_pushed(domain)

    await domain.cancelling.request(domain.client, run.hold.job_id)
    await carry_out(domain)
    assert sorted(await domain.run_states(run.hold.job_id)) == ["cancelled", "publishing"]
    await domain.publishing.delivered(publication.hold, shown("/c"), branch="b", commit_sha="c" * 40)

    job = await domain.row("jobs", run.hold.job_id)
    assert (job["state"], job["runs_completed"], job["runs_cancelled"]) == ("cancelled", 1, 1)


async def retry(domain: Domain, hold: PublicationHold) -> None:
    await domain.publishing.retry(hold, error="the remote is away", delay=timedelta())


async def postpone(domain: Domain, hold: PublicationHold) -> None:
    await domain.publishing.postpone(hold, error="the forge wants us to wait", delay=timedelta())


async def lose(domain: Domain, hold: PublicationHold) -> None:
    await domain.expire(hold.changeset_id)
    assert await domain.publishing.lose_expired() == 1


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("come_back", [retry, postpone, lose])
async def test_what_was_being_pushed_is_not_pushed_again(
    domain: Domain, come_back: Callable[[Domain, PublicationHold], Awaitable[None]]
) -> None:
    """The cancel came too late for that push, but not for the next."""
    run, publication = await half_pushed(domain)
    await domain.cancelling.request(domain.client, run.hold.job_id)
    await carry_out(domain)

    await come_back(domain, publication.hold)
    (order,) = await domain.publishing.due(overdue=timedelta())
    assert await domain.claim_changeset(run, publication.hold.changeset_id, dispatch=order.dispatch) is None
    assert await carry_out(domain) == 1

    assert (await domain.row("changesets", publication.hold.changeset_id))["state"] == "stored"
    job = await domain.row("jobs", run.hold.job_id)
    assert (job["state"], job["runs_cancelled"]) == ("cancelled", 2)
    assert (await domain.row("runs", run.hold.run_id))["cancel_requested_at"] == job["cancel_requested_at"]


async def test_a_push_for_a_run_that_had_ended_before_the_cancel_goes_on(domain: Domain) -> None:
    """What had ended was not cancelled; that it is published was asked for by itself."""
    run = await domain.start("https://a/1", "https://a/2")
    changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="done")
    await domain.publishing.request(domain.client, changeset_id, None)
    (order,) = await domain.publishing.due(overdue=timedelta())
    publication = await domain.claim_changeset(run, changeset_id, dispatch=order.dispatch)
    assert publication is not None
    await domain.cancelling.request(domain.client, run.hold.job_id)

    await retry(domain, publication.hold)
    await carry_out(domain)

    (order,) = await domain.publishing.due(overdue=timedelta())
    assert await domain.claim_changeset(run, changeset_id, dispatch=order.dispatch) is not None


async def test_what_agents_hold_keeps_nothing_that_is_idle_waiting(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "MOST_AT_ONCE", 1)
    held = await domain.start("https://a/1")
    idle = await domain.submit("https://a/2")
    for job_id in (held.hold.job_id, idle):
        await domain.cancelling.request(domain.client, job_id)

    assert {run.job_id: run.held for run in await domain.cancelling.waiting()} == {held.hold.job_id: True, idle: False}


async def test_nobody_cancels_what_was_not_asked_for(domain: Domain) -> None:
    run = await domain.start()
    before = await domain.fingerprint()

    with pytest.raises(LeaseLostError, match="not to be cancelled"):
        await domain.running.cancelled(run.hold)

    assert await domain.fingerprint() == before


async def test_twice_is_once(domain: Domain) -> None:
    job_id = await domain.submit()
    await asyncio.gather(*(domain.cancelling.request(domain.client, job_id) for _ in range(4)))
    first = (await domain.row("jobs", job_id))["cancel_requested_at"]
    await carry_out(domain)

    await domain.cancelling.request(domain.client, job_id)

    assert (await domain.row("jobs", job_id))["cancel_requested_at"] == first
    assert (await domain.kinds(job_id)).count("job.cancel_requested") == 1
    assert await carry_out(domain) == 0


@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_what_has_ended_can_not_be_cancelled(domain: Domain, state: str) -> None:
    run = await domain.start()
    if state == "completed":
        await domain.finish(run)
    else:
        await domain.running.fail(run.hold, ExitReason.STUCK, error="round and round")

    with pytest.raises(NotCancellableError, match=f"already ended: it is {state}"):
        await domain.cancelling.request(domain.client, run.hold.job_id)
    with pytest.raises(NotCancellableError, match=f"already ended: it is {state}"):
        await domain.cancelling.request_run(domain.client, run.hold.run_id)


async def test_one_run_of_a_job_is_cancelled_alone(domain: Domain) -> None:
    run = await domain.start("https://a/1", "https://a/2", maxParallel=1)
    others = await domain.rows("SELECT id FROM runs WHERE id <> $1", run.hold.run_id)

    assert await domain.cancelling.request_run(domain.client, others[0]["id"]) == run.hold.job_id
    await domain.cancelling.request_run(domain.client, others[0]["id"])
    assert await carry_out(domain) == 1
    await domain.finish(run)

    job = await domain.row("jobs", run.hold.job_id)
    assert (job["state"], job["outcome"], job["runs_completed"], job["runs_cancelled"]) == (
        "completed",
        "partial",
        1,
        1,
    )


async def test_others_jobs_are_not_there(domain: Domain) -> None:
    run = await domain.start()
    other = await domain.new_client("other")

    for job_id, run_id in ((run.hold.job_id, run.hold.run_id), (uuid4(), uuid4())):
        with pytest.raises(NotFoundError):
            await domain.cancelling.request(other, job_id)
        with pytest.raises(NotFoundError):
            await domain.cancelling.request_run(other, run_id)
    assert await domain.cancelling.waiting() == []


async def test_cancel_and_delivery_at_once_agree(domain: Domain) -> None:
    """Either the cancel came first and nothing is stored, or the changeset was handed over and then cancelled."""
    for n in range(6):
        run = await domain.start(f"https://a/{n}")
        _, delivered = await asyncio.gather(
            domain.cancelling.request(domain.client, run.hold.job_id),
            domain.running.deliver(run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done"),
            return_exceptions=True,
        )
        stored = await domain.rows("SELECT state FROM changesets WHERE run_id = $1", run.hold.run_id)
        if isinstance(delivered, LeaseLostError):
            assert stored == []
            await domain.running.cancelled(run.hold)
        else:
            assert isinstance(delivered, UUID)
            await carry_out(domain)
        assert await domain.run_states(run.hold.job_id) == ["cancelled"]


async def test_cancel_and_publication_at_once_agree(domain: Domain) -> None:
    """Either a vcs has the changeset and the cancel is refused, or the cancel is accepted and no vcs gets it."""
    for _ in range(6):
        run, changeset_id = await domain.hand_over()
        cancelled, claimed = await asyncio.gather(
            domain.cancelling.request(domain.client, run.hold.job_id),
            domain.claim_changeset(run, changeset_id),
            return_exceptions=True,
        )
        if claimed is None:
            assert cancelled is None
        else:
            assert isinstance(cancelled, NotCancellableError)
        await domain.execute("DELETE FROM changesets")
        await domain.execute("DELETE FROM leases")
