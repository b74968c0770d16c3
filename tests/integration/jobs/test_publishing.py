"""A publication is one vcs's at a time, and ends its run with it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from services.contracts.words import ExitReason, Publish
from services.jobs.errors import LeaseLostError
from services.jobs.publishing import Publication, PublicationHold, Publishing
from tests.integration.jobs.domain import COMMIT, Domain, shown

LONG = timedelta(seconds=10)
WRITES: dict[str, Callable[[Publishing, PublicationHold], Awaitable[object]]] = {
    "delivered": lambda publishing, hold: publishing.delivered(hold, shown("/late"), branch="b", commit_sha="c"),
    "failed": lambda publishing, hold: publishing.failed(hold, reason=ExitReason.PUSH_REJECTED, error="late"),
    "retry": lambda publishing, hold: publishing.retry(hold, error="late", delay=timedelta()),
}


async def claimed_again(domain: Domain, publication: Publication) -> Publication:
    (due,) = await domain.publishing.due(overdue=LONG)
    again = await domain.publishing.claim(due.changeset_id, due.run_id, dispatch=due.dispatch, holder="vcs-2")
    assert again is not None
    assert again.hold.changeset_id == publication.hold.changeset_id
    return again


async def test_a_claim_has_all_that_the_commit_is_made_of(domain: Domain) -> None:
    publication = await domain.push()

    row = await domain.row("changesets", publication.hold.changeset_id)
    assert (row["state"], row["lease_token"]) == ("pushing", publication.hold.token)
    assert (publication.commit_sha, publication.patch, publication.message) == (
        COMMIT.sha,
        COMMIT.patch,
        COMMIT.message,
    )
    assert (publication.author_name, publication.author_email) == (COMMIT.author_name, COMMIT.author_email)
    assert (publication.time, publication.base_sha, publication.tries) == (COMMIT.time, "b" * 40, 1)
    assert (publication.expected_remote_sha, publication.summary) == ("", "done")


async def test_claimers_at_once_get_one_claim(domain: Domain) -> None:
    run, changeset_id = await domain.hand_over()

    claims = await asyncio.gather(*(domain.claim_changeset(run, changeset_id) for _ in range(6)))

    assert len([claim for claim in claims if claim is not None]) == 1


async def test_a_stale_order_claims_nothing(domain: Domain) -> None:
    run, changeset_id = await domain.hand_over()
    (newer,) = await domain.publishing.due(overdue=timedelta())

    assert newer.dispatch == 2
    assert await domain.claim_changeset(run, changeset_id, dispatch=1) is None
    assert await domain.claim_changeset(run, changeset_id, dispatch=2) is not None


async def test_an_order_is_sent_again_only_where_nobody_claimed_it_in_time(domain: Domain) -> None:
    run, changeset_id = await domain.hand_over()
    assert await domain.publishing.due(overdue=LONG) == []

    await domain.execute("UPDATE changesets SET dispatched_at = now() - interval '11 seconds'")
    (due,) = await domain.publishing.due(overdue=LONG)
    assert (due.changeset_id, due.dispatch) == (changeset_id, 2)
    assert await domain.publishing.due(overdue=LONG) == []

    assert await domain.claim_changeset(run, changeset_id, dispatch=2) is not None
    await domain.execute("UPDATE changesets SET dispatched_at = now() - interval '11 seconds'")
    assert await domain.publishing.due(overdue=LONG) == []


async def test_delivering_opens_the_changeset_and_completes_the_run(domain: Domain) -> None:
    publication = await domain.push()
    hold = publication.hold

    await domain.publishing.delivered(hold, shown("/changesets/1"), branch=publication.branch, commit_sha=COMMIT.sha)

    changeset = await domain.row("changesets", hold.changeset_id)
    run = await domain.row("runs", hold.run_id)
    job = await domain.row("jobs", hold.job_id)
    assert (changeset["state"], changeset["url"], changeset["lease_token"]) == ("open", "/changesets/1", None)
    assert (run["state"], run["outcome"], run["summary"]) == ("completed", "delivered", "done")
    assert (job["state"], job["outcome"], job["runs_active"]) == ("completed", "all", 0)
    assert (await domain.kinds(hold.job_id))[-3:] == ["changeset.pushed", "run.finished", "job.finished"]
    assert await domain.rows("SELECT FROM leases") == []


async def test_a_change_whose_tests_failed_is_a_draft_and_its_run_is_never_called_delivered(domain: Domain) -> None:
    run = await domain.start()
    changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.DRAFT, summary="done", verified=False)
    assert (await domain.row("runs", run.hold.run_id))["outcome"] is None
    publication = await domain.claim_changeset(run, changeset_id)
    assert publication is not None
    assert (publication.publish, publication.verified) == (Publish.DRAFT, False)

    await domain.publishing.delivered(publication.hold, shown("/c"), branch=publication.branch, commit_sha=COMMIT.sha)

    row, job = await domain.row("runs", run.hold.run_id), await domain.row("jobs", run.hold.job_id)
    assert (row["state"], row["outcome"], job["state"]) == ("completed", "unverified", "completed")
    (finished,) = [e for e in await domain.events(run.hold.job_id) if e.kind.value == "run.finished"]
    assert finished.data["outcome"] == "unverified"
    read = await domain.reading.changeset(domain.client, changeset_id)
    assert (read.state.value, read.is_draft, read.verified) == ("open", True, False)


@pytest.mark.parametrize(("verified", "outcome"), [(False, "unverified"), (True, "stored"), (None, "stored")])
async def test_what_is_only_stored_says_whether_its_tests_passed(
    domain: Domain, verified: bool | None, outcome: str
) -> None:
    run = await domain.start()
    changeset_id = await domain.running.deliver(
        run.hold, COMMIT, publish=Publish.NONE, summary="done", verified=verified
    )

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["outcome"]) == ("completed", outcome)
    (finished,) = [e for e in await domain.events(run.hold.job_id) if e.kind.value == "run.finished"]
    assert finished.data["outcome"] == outcome
    shown = await domain.reading.run(domain.client, run.hold.run_id)
    assert shown.changeset is not None
    assert (shown.changeset.id, shown.changeset.state.value) == (changeset_id, "stored")
    assert (shown.changeset.is_draft, shown.changeset.verified) == (False, verified)


async def test_a_change_whose_tests_passed_is_delivered(domain: Domain) -> None:
    run = await domain.start()
    changeset_id = await domain.running.deliver(
        run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done", verified=True
    )
    publication = await domain.claim_changeset(run, changeset_id)
    assert publication is not None
    await domain.publishing.delivered(publication.hold, shown("/c"), branch=publication.branch, commit_sha=COMMIT.sha)
    assert (await domain.row("runs", run.hold.run_id))["outcome"] == "delivered"


async def test_a_refused_push_fails_the_run_and_keeps_the_changeset(domain: Domain) -> None:
    hold = (await domain.push()).hold

    await domain.publishing.failed(hold, reason=ExitReason.PUSH_REJECTED, error="no\0 access")

    changeset = await domain.row("changesets", hold.changeset_id)
    run = await domain.row("runs", hold.run_id)
    assert (changeset["state"], changeset["patch"]) == ("failed", COMMIT.patch)
    assert changeset["error"] == run["error"] == "no\N{SYMBOL FOR NULL} access"
    assert (run["state"], run["exit_reason"]) == ("failed", "push_rejected")
    assert (await domain.row("jobs", hold.job_id))["state"] == "failed"


async def test_a_retry_waits_and_is_claimed_anew(domain: Domain) -> None:
    publication = await domain.push()
    await domain.publishing.retry(publication.hold, error="forge is away", delay=timedelta(minutes=1))

    row = await domain.row("changesets", publication.hold.changeset_id)
    assert (row["state"], row["error"]) == ("queued", "forge is away")
    assert await domain.publishing.due(overdue=LONG) == []
    await domain.execute("UPDATE changesets SET not_before = now()")
    again = await claimed_again(domain, publication)
    assert again.tries == 2
    assert (again.branch, again.commit_sha) == (publication.branch, publication.commit_sha)


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("write", WRITES)
async def test_a_lost_publication_refuses_its_old_holder(domain: Domain, write: str) -> None:
    old = await domain.push()
    assert await domain.publishing.lose_expired() == 0
    await domain.expire(old.hold.changeset_id)
    assert await domain.publishing.lose_expired() == 1

    async def refused() -> None:
        before = await domain.fingerprint()
        with pytest.raises(LeaseLostError):
            await WRITES[write](domain.publishing, old.hold)
        assert await domain.fingerprint() == before

    await refused()
    again = await claimed_again(domain, old)
    await refused()
    await domain.publishing.delivered(again.hold, shown("/c"), branch=again.branch, commit_sha=again.commit_sha)
    await refused()


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_losing_runs_leaves_publications_alone_and_the_other_way_round(domain: Domain) -> None:
    publication = await domain.push()
    run = await domain.start("https://a/other")
    await domain.expire(publication.hold.changeset_id)
    await domain.expire(run.hold.run_id)

    assert await domain.lose() == 1
    assert (await domain.row("changesets", publication.hold.changeset_id))["state"] == "pushing"
    assert await domain.publishing.lose_expired() == 1
    assert (await domain.row("changesets", publication.hold.changeset_id))["state"] == "queued"
